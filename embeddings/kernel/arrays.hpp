// What all of the kernel stands on: arrays, keys, sorting, inner products.

#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// Catalogue rows, ascending, and a score for each.
using Scored = std::pair<Array<std::int64_t>, Array<float>>;

constexpr double DAY = 86'400.0;

// One record of history.EVENT.
struct Event {
    std::int64_t at;
    std::int32_t product, offer, location;
    float quantity, value;
    std::uint16_t type;
    std::int8_t channel;
    std::uint8_t visit;
};

void check(bool holds, const char* expected) {
    if (!holds) throw py::value_error(expected);
}

// Rows of a base, and after them those of a tail that came later; both (., columns). In Python arrays.Table.
template <class T>
struct Table {
    Array<T> base, tail;
    const T *first = nullptr, *later = nullptr;
    std::int64_t split = 0, size = 0;
    py::ssize_t columns = 0;

    Table() = default;
    Table(Array<T> rows, Array<T> more) : base(std::move(rows)), tail(std::move(more)) {
        check(base.ndim() == 2 && tail.ndim() == 2 && base.shape(1) == tail.shape(1),
              "expected tables (N, columns), the tail as wide as the base");
        first = base.data(), later = tail.data();
        split = base.shape(0), size = split + tail.shape(0), columns = base.shape(1);
    }

    bool holds(std::int64_t row) const { return row >= 0 && row < size; }

    const T* row(std::int64_t row) const {
        return row < split ? first + row * columns : later + (row - split) * columns;
    }
};

template <class T>
Array<T> array_of(const std::vector<T>& values) {
    return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// Whether a moment lies so near that differences of two fit, as all dates do that have a name.
constexpr const char* MOMENTS = "expected moments in seconds since 1970, of less than 2**52";
bool is_moment(std::int64_t at) { return at > -(std::int64_t{1} << 52) && at < std::int64_t{1} << 52; }

std::int64_t day_of(std::int64_t at) { return at >= 0 ? at / 86'400 : -((86'399 - at) / 86'400); }

// Ascending keys, looked up without a branch that a processor could predict wrongly.
template <class T>
struct Keys {
    const T* keys;
    std::size_t size;

    // The place of a key, or the number of keys where it is not among them.
    std::size_t find(std::int64_t key) const {
        if (size == 0) return size;
        const T* at = keys;
        for (std::size_t left = size; left > 1;) {
            const std::size_t half = left / 2;
            at += half * static_cast<std::size_t>(at[half - 1] < key);
            left -= half;
        }
        return *at == key ? static_cast<std::size_t>(at - keys) : size;
    }
};

template <class T>
Keys<T> keys_of(const Array<T>& keys) {
    return {keys.data(), static_cast<std::size_t>(keys.size())};
}

// The places of some keys, as `find` gives them. All are looked up side by side, a step of each at a time: the next
// number of one comes from memory while the others are compared.
template <class T, class Wanted>
void find_all(const Keys<T>& keys, const Wanted* wanted, std::size_t count, std::uint32_t* places) {
    std::fill_n(places, count, 0);
    for (std::size_t left = keys.size; left > 1;) {
        const auto half = static_cast<std::uint32_t>(left / 2);
        for (std::size_t k = 0; k < count; ++k)  // without a branch that a processor would predict wrongly
            places[k] += half * static_cast<std::uint32_t>(keys.keys[places[k] + half - 1] < wanted[k]);
        left -= half;
    }
    const auto none = static_cast<std::uint32_t>(keys.size);
    for (std::size_t k = 0; k < count; ++k) places[k] = none && keys.keys[places[k]] == wanted[k] ? places[k] : none;
}

// A value under a key that is not negative.
template <class T>
struct Keyed {
    std::uint32_t key;
    T value;
};

// Sorts by key, keeping the order of equal keys: digit by digit, which needs no comparisons.
template <class T>
void sort_by_key(std::vector<Keyed<T>>& all) {
    constexpr int BITS = 8;
    std::uint32_t most = 0;
    for (const auto& one : all) most = std::max(most, one.key);
    std::vector<Keyed<T>> sorted(all.size());
    for (int shift = 0; shift < 32 && most >> shift; shift += BITS) {
        std::array<std::uint32_t, (1 << BITS) + 1> begins{};
        const auto digit = [shift](const Keyed<T>& one) { return (one.key >> shift) & ((1u << BITS) - 1); };
        for (const auto& one : all) ++begins[digit(one) + 1];
        std::partial_sum(begins.begin(), begins.end(), begins.begin());
        for (const auto& one : all) sorted[begins[digit(one)]++] = one;
        all.swap(sorted);
    }
}

// Sixteen sums side by side, added up in one fixed order: a pair's inner product is the same whatever else is computed.
float dot(const float* a, const float* b, py::ssize_t size) {
    constexpr py::ssize_t LANES = 16;
    std::array<float, LANES> sums{};
    py::ssize_t at = 0;
    for (; at + LANES <= size; at += LANES)
        for (py::ssize_t lane = 0; lane < LANES; ++lane) sums[lane] += a[at + lane] * b[at + lane];
    for (py::ssize_t lane = 0; at < size; ++at, ++lane) sums[lane] += a[at] * b[at];
#pragma GCC unroll 4  // so that the sums stay in registers
    for (py::ssize_t half = LANES / 2; half > 0; half /= 2)
        for (py::ssize_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    return sums[0];
}

// Asks memory for numbers that are read soon.
void prefetch(const float* begin, py::ssize_t size) {
    for (py::ssize_t at = 0; at < size; at += 16) __builtin_prefetch(begin + at);
}

// How many rows ahead of the one that is read memory is asked for.
constexpr py::ssize_t AHEAD = 6;

// The square of a vector's length: some sums side by side, as one would wait for itself.
double squares(const float* numbers, py::ssize_t dimensions) {
    std::array<double, 8> sums{};
    py::ssize_t d = 0;
    for (; d + 8 <= dimensions; d += 8)
        for (py::ssize_t side = 0; side < 8; ++side)
            sums[side] += static_cast<double>(numbers[d + side]) * numbers[d + side];
    for (; d < dimensions; ++d) sums[0] += static_cast<double>(numbers[d]) * numbers[d];
    return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// The columns of profile.OWN.
enum Own { TIMES, SLOW, MIDDLING, FAST, DAYS, SINCE, GAP, VISITS_SINCE, BASKET_SIZE, PRICE, OWN };

// How many columns profile.GROUP has.
constexpr py::ssize_t GROUP = 4;

}  // namespace

// Takes arrays.Table, or an array as a table without a tail; nothing of another dtype, and nothing that would be copied.
template <class T>
struct pybind11::detail::type_caster<Table<T>> {
    PYBIND11_TYPE_CASTER(Table<T>, const_name("Table"));

    bool load(handle source, bool) {
        if (Array<T>::check_(source)) {
            const auto base = reinterpret_borrow<Array<T>>(source);
            check(base.ndim() == 2, "expected a table (N, columns)");
            value = Table<T>(base, Array<T>(std::vector<py::ssize_t>{0, base.shape(1)}));
            return true;
        }
        const auto base = py::getattr(source, "base", py::none()), tail = py::getattr(source, "tail", py::none());
        if (py::isinstance<py::array>(source) || !Array<T>::check_(base) || !Array<T>::check_(tail)) return false;
        value = Table<T>(reinterpret_borrow<Array<T>>(base), reinterpret_borrow<Array<T>>(tail));
        return true;
    }
};
