// eligible.py: what may be shown.

#pragma once

#include <bit>

#include "arrays.hpp"

namespace {

// The rows of a set, to be asked whether a row is among them: in bits where these take no more memory than the rows.
class Members {
  public:
    template <class T>
    static Members of(const Array<T>& rows_N) {
        for (py::ssize_t n = 0; n < rows_N.size(); ++n)
            check(is_row(rows_N.data()[n]) && (n == 0 || rows_N.data()[n - 1] < rows_N.data()[n]),
                  "expected rows, ascending and not negative");
        Members made;
        made.size_ = rows_N.size();
        made.past_ = made.size_ ? static_cast<std::int64_t>(rows_N.data()[made.size_ - 1]) + 1 : 0;
        if (made.past_ == made.size_) return made;  // all rows there are
        if (made.past_ <= made.size_ * 32) {
            made.bits_.resize(made.past_ / 64 + 1);
            for (py::ssize_t n = 0; n < made.size_; ++n)
                made.bits_[rows_N.data()[n] / 64] |= std::uint64_t{1} << (rows_N.data()[n] % 64);
        } else {
            made.rows_.assign(rows_N.data(), rows_N.data() + made.size_);
        }
        return made;
    }

    // The same without some rows, in any order; those that are no members are of no effect.
    Members without(const Array<std::int64_t>& rows_R) const {
        Members made = *this;
        const std::int64_t *gone = rows_R.data(), *end = gone + rows_R.size();
        if (rows_.empty()) {
            if (bits_.empty()) made.bits_ = every_row();
            for (; gone < end; ++gone) {
                if (!made.has(*gone)) continue;
                made.bits_[*gone / 64] &= ~(std::uint64_t{1} << (*gone % 64));
                --made.size_;
            }
        } else {
            std::vector<std::int64_t> ascending(gone, end);
            std::sort(ascending.begin(), ascending.end());
            std::erase_if(made.rows_, [&](std::int64_t row) {
                return std::binary_search(ascending.begin(), ascending.end(), row);
            });
            made.size_ = static_cast<std::int64_t>(made.rows_.size());
            if (made.rows_.empty()) made.past_ = 0;
        }
        return made;
    }

    // The same with some rows, in any order; those that are members are of no effect.
    Members with(const Array<std::int64_t>& rows_R) const {
        std::vector<std::int64_t> added;
        for (py::ssize_t r = 0; r < rows_R.size(); ++r) {
            check(is_row(rows_R.data()[r]), "expected rows, not negative");
            if (!has(rows_R.data()[r])) added.push_back(rows_R.data()[r]);
        }
        std::sort(added.begin(), added.end());
        added.erase(std::unique(added.begin(), added.end()), added.end());
        if (added.empty()) return *this;
        Members made = *this;
        made.size_ += static_cast<std::int64_t>(added.size());
        made.past_ = std::max(past_, added.back() + 1);
        if (rows_.empty() && made.past_ <= made.size_ * 32) {
            if (bits_.empty()) made.bits_ = every_row();
            made.bits_.resize(made.past_ / 64 + 1);
            for (const std::int64_t row : added) made.bits_[row / 64] |= std::uint64_t{1} << (row % 64);
        } else {
            const std::vector<std::int64_t> held = rows_.empty() ? rows_of(bits(past_)) : rows_;
            made.bits_.clear();
            made.rows_.resize(held.size() + added.size());
            std::merge(held.begin(), held.end(), added.begin(), added.end(), made.rows_.begin());
        }
        return made;
    }

    std::int64_t size() const { return size_; }

    bool has(std::int64_t row) const {
        if (row < 0 || row >= past_) return false;
        if (!bits_.empty()) return bits_[row / 64] >> (row % 64) & 1;
        return rows_.empty() || Keys<std::int64_t>{rows_.data(), rows_.size()}.find(row) != rows_.size();
    }

    // A bit for each row of a catalogue.
    std::vector<std::uint64_t> bits(std::int64_t catalogue) const {
        check(past_ <= catalogue, "expected members among the rows of the catalogue");
        std::vector<std::uint64_t> all = bits_.empty() && rows_.empty() ? every_row() : bits_;
        all.resize(catalogue / 64 + 1);
        for (const std::int64_t row : rows_) all[row / 64] |= std::uint64_t{1} << (row % 64);
        return all;
    }

    // Bytes that are equal exactly where the members are, however they are held: a bit for each row up to the last, or
    // the rows themselves where that takes less.
    py::bytes bytes() const {
        std::vector<std::uint64_t> words(rows_.begin(), rows_.end());
        bool few = !rows_.empty() && size_ < rows_.back() / 64 + 1;
        if (!few) {
            words = bits(past_);
            while (!words.empty() && words.back() == 0) words.pop_back();
            few = size_ < static_cast<std::int64_t>(words.size());
            if (few) {
                const std::vector<std::int64_t> rows = rows_of(words);
                words.assign(rows.begin(), rows.end());
            }
        }
        words.push_back(few);
        return {reinterpret_cast<const char*>(words.data()), words.size() * sizeof(std::uint64_t)};
    }

    Array<bool> contains(const Array<std::int64_t>& rows_R) const {
        Array<bool> inside_R(rows_R.size());
        std::transform(rows_R.data(), rows_R.data() + rows_R.size(), inside_R.mutable_data(),
                       [this](std::int64_t row) { return has(row); });
        return inside_R;
    }

  private:
    // Whether one past a number is a number, too.
    static bool is_row(std::int64_t row) { return row >= 0 && row < std::numeric_limits<std::int64_t>::max(); }

    // A bit for each row before `past_`, and none behind it.
    std::vector<std::uint64_t> every_row() const {
        std::vector<std::uint64_t> all(past_ / 64 + 1, ~std::uint64_t{0});
        all.back() = (std::uint64_t{1} << (past_ % 64)) - 1;
        return all;
    }

    static std::vector<std::int64_t> rows_of(const std::vector<std::uint64_t>& words) {
        std::vector<std::int64_t> rows;
        for (std::size_t w = 0; w < words.size(); ++w)
            for (std::uint64_t left = words[w]; left; left &= left - 1)
                rows.push_back(static_cast<std::int64_t>(w) * 64 + std::countr_zero(left));
        return rows;
    }

    std::int64_t size_ = 0, past_ = 0;
    std::vector<std::uint64_t> bits_;
    std::vector<std::int64_t> rows_;
};

}  // namespace
