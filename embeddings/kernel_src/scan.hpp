// index/planned.py: a set's own copy in eight bits a number, and its best rows, exactly.
//
// A copy is scanned, and what may be among the best is scored by `dot` from the vectors themselves. A row r of the copy
// is its codes c_r, whole numbers from -127 to 127, times its scale s_r; a query q is codes k times a scale s. Below,
// |x| is a length, D the dimensions and u = 2**-24.
//
//   Rounding to codes strays by half a scale in each number (2**-15 more covers that the division is rounded):
//       |v_r - s_r c_r| <= s_r h   and   |q - s k| <= s h   with   h = (1/2 + 2**-15) sqrt(D).
//   A code is at most 127, so |v_r| <= s_r m with m = 127 sqrt(D) + h. Then, by Cauchy-Schwarz,
//       |q.v_r - s s_r k.c_r| <= |q - s k| |v_r| + |s k| |v_r - s_r c_r| <= s s_r (h m + (|q|/s + h) h).
//   k.c_r is a sum of whole numbers that fits 32 bits: it is exact, in any order and on any processor.
//   `dot` strays from q.v_r by at most 2 D u |q| |v_r| <= s s_r 2 D u (|q|/s) m, and by what underflows (score.py).
//
// So in units of s, score and s_r k.c_r lie at most s_r e + f apart, with e the sum of what is multiplied by s_r and f
// what underflows. A row with s_r (k.c_r + e) + f below the k-th largest s_r (k.c_r - e) - f of the rows seen so far
// has k rows with larger scores; all others are kept. The bounds are computed in double precision, and e is enlarged by
// a thousandth for that.

#pragma once

#include <bit>
#include <cstring>

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#endif

#include "arrays.hpp"

namespace {

// The rows of a set, quantised.
struct Copy {
    static constexpr py::ssize_t ROWS = 32;         // of a block
    static constexpr std::int32_t MOST = 127;       // the largest code
    static constexpr double STRAY = 0.5 + 0x1p-15;  // of a number from its code, in scales

    py::ssize_t catalogue, dimensions, pairs, blocks;  // catalogue: how many rows that has
    float largest_scale = 0;
    std::vector<std::int32_t> rows;  // of the catalogue
    std::vector<float> scales;       // one for each row of a block
    // Block by block; in a block by pairs of dimensions; in a pair by row. What one instruction multiplies and adds up
    // stands side by side.
    std::vector<std::int8_t> codes;

    Copy(py::ssize_t count, py::ssize_t catalogue, py::ssize_t dimensions)
        : catalogue(catalogue),
          dimensions(dimensions),
          pairs((dimensions + 1) / 2),
          blocks((count + ROWS - 1) / ROWS),
          rows(count),
          scales(blocks * ROWS),
          codes(blocks * ROWS * pairs * 2) {}

    template <class Row>
    static Copy of(const Array<float>& vectors_ND, const Array<Row>& rows_N) {
        check(vectors_ND.ndim() == 2 && rows_N.ndim() == 1 && vectors_ND.shape(0) <= INT32_MAX &&
                  vectors_ND.shape(1) * MOST <= INT32_MAX,
              "expected vectors (N, D) of fewer than 2**31 rows and 2**24 dimensions, and rows");
        Copy copy(rows_N.size(), vectors_ND.shape(0), vectors_ND.shape(1));
        std::vector<std::int8_t> codes(2 * copy.pairs);
        const auto at = [&](py::ssize_t n) { return vectors_ND.data() + rows_N.data()[n] * copy.dimensions; };
        for (py::ssize_t n = 0; n < rows_N.size(); ++n)
            check(rows_N.data()[n] >= 0 && rows_N.data()[n] < vectors_ND.shape(0), "expected rows of the catalogue");
        for (py::ssize_t n = 0; n < rows_N.size(); ++n) {
            if (n + AHEAD < rows_N.size()) prefetch(at(n + AHEAD), copy.dimensions);
            copy.rows[n] = static_cast<std::int32_t>(rows_N.data()[n]);
            const float scale = quantize(at(n), copy.dimensions, codes.data());
            copy.scales[n] = scale;
            copy.largest_scale = std::max(copy.largest_scale, scale);
            std::int8_t* block = copy.codes.data() + n / ROWS * ROWS * 2 * copy.pairs + n % ROWS * 2;
            for (py::ssize_t pair = 0; pair < copy.pairs; ++pair)
                std::memcpy(block + pair * ROWS * 2, codes.data() + pair * 2, 2);
        }
        return copy;
    }

    // What the copy of so many rows takes.
    static py::ssize_t bytes_of(py::ssize_t count, py::ssize_t dimensions) {
        const py::ssize_t blocks = (count + ROWS - 1) / ROWS;
        return count * sizeof(std::int32_t) + blocks * ROWS * (sizeof(float) + (dimensions + 1) / 2 * 2);
    }

    py::ssize_t nbytes() const { return bytes_of(static_cast<py::ssize_t>(rows.size()), dimensions); }

  private:
    // Writes the codes of a vector and gives their scale: so that the largest number's code is the largest, but never
    // so small that its inverse would not be a number.
    static float quantize(const float* vector, py::ssize_t dimensions, std::int8_t* codes) {
        std::int32_t largest = 0;  // magnitudes as whole numbers: in the same order, and NaN and infinity at its end
        for (py::ssize_t d = 0; d < dimensions; ++d) {
            const auto bits = std::bit_cast<std::int32_t>(vector[d]);
            largest = std::max(largest, bits & INT32_MAX);
        }
        const auto magnitude = std::bit_cast<float>(largest);
        check(std::isfinite(magnitude), "expected finite vectors");
        const float scale = std::max(magnitude / MOST, std::numeric_limits<float>::min());
        const float inverse = 1 / scale;
        for (py::ssize_t d = 0; d < dimensions; ++d) {
            const float code = vector[d] * inverse;
            codes[d] = static_cast<std::int8_t>(static_cast<std::int32_t>(code + (code < 0 ? -0.5f : 0.5f)));
        }
        return scale;
    }
};

// A query as a copy is scanned for it. See the top for what its numbers mean.
struct Coded {
    std::vector<std::int16_t> codes;
    double stray, underflow;

    Coded(const float* query, const Copy& copy) : codes(2 * copy.pairs) {
        const auto dimensions = static_cast<double>(copy.dimensions);
        double squares = 0, largest = 0;
        for (py::ssize_t d = 0; d < copy.dimensions; ++d) {
            squares += static_cast<double>(query[d]) * query[d];
            largest = std::max(largest, std::abs(static_cast<double>(query[d])));
        }
        check(std::isfinite(squares), "expected finite queries");
        const double most = std::min<double>(INT16_MAX, std::floor(INT32_MAX / (Copy::MOST * dimensions)));
        const double scale = largest > 0 ? largest / most : 1, length = std::sqrt(squares) / scale;
        for (py::ssize_t d = 0; d < copy.dimensions; ++d)
            codes[d] = static_cast<std::int16_t>(std::lrint(query[d] / scale));
        const double half = Copy::STRAY * std::sqrt(dimensions), reach = Copy::MOST * std::sqrt(dimensions) + half;
        stray = 1.001 * (half * reach + (length + half) * half + dimensions * 0x1p-23 * length * reach);
        underflow = 4 * dimensions * std::numeric_limits<float>::min() *
                    (1 / scale + length + copy.largest_scale * reach / scale);
    }
};

// The first block, from a given one on, with a row whose score may reach `least`, and the sums of products of its
// codes; or `past`, where there is none before it.
py::ssize_t next_plain(const Copy& copy, const Coded& coded, double least, py::ssize_t block, py::ssize_t past,
                       std::int32_t* sums) {
    constexpr py::ssize_t WIDTH = 2 * Copy::ROWS;
    for (; block < past; ++block) {
        const std::int8_t* codes = copy.codes.data() + block * WIDTH * copy.pairs;
        std::array<std::int32_t, WIDTH> products{};
        for (py::ssize_t pair = 0; pair < copy.pairs; ++pair)
            for (py::ssize_t at = 0; at < WIDTH; ++at)
                products[at] += codes[pair * WIDTH + at] * coded.codes[pair * 2 + at % 2];
        bool reached = false;
        for (py::ssize_t r = 0; r < Copy::ROWS; ++r) {
            sums[r] = products[2 * r] + products[2 * r + 1];
            reached |= copy.scales[block * Copy::ROWS + r] * (sums[r] + coded.stray) >= least;
        }
        if (reached) return block;
    }
    return block;
}

#if defined(__GNUC__) && defined(__x86_64__)
// The same, with what every x86 processor since 2015 knows.
__attribute__((target("avx2"))) py::ssize_t next_avx2(const Copy& copy, const Coded& coded, double least,
                                                      py::ssize_t block, py::ssize_t past, std::int32_t* sums) {
    constexpr py::ssize_t WIDTH = 2 * Copy::ROWS, PARTS = WIDTH / 16;
    const __m256d stray = _mm256_set1_pd(coded.stray), lowest = _mm256_set1_pd(least);
    for (; block < past; ++block) {
        const std::int8_t* codes = copy.codes.data() + block * WIDTH * copy.pairs;
        __m256i products[PARTS];
        for (auto& part : products) part = _mm256_setzero_si256();
        for (py::ssize_t pair = 0; pair < copy.pairs; ++pair) {
            std::int32_t two;
            std::memcpy(&two, coded.codes.data() + pair * 2, sizeof two);
            const __m256i query = _mm256_set1_epi32(two);
            for (py::ssize_t part = 0; part < PARTS; ++part) {
                const auto* at = reinterpret_cast<const __m128i*>(codes + pair * WIDTH + part * 16);
                products[part] = _mm256_add_epi32(products[part],
                                                  _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(at)), query));
            }
        }
        __m256d reached = _mm256_setzero_pd();
        for (py::ssize_t part = 0; part < PARTS; ++part)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + part * 8), products[part]);
        for (py::ssize_t r = 0; r < Copy::ROWS; r += 4) {
            const __m256d scales = _mm256_cvtps_pd(_mm_loadu_ps(copy.scales.data() + block * Copy::ROWS + r));
            const __m128i* four = reinterpret_cast<const __m128i*>(sums + r);
            const __m256d high = _mm256_mul_pd(scales, _mm256_add_pd(_mm256_cvtepi32_pd(_mm_loadu_si128(four)), stray));
            reached = _mm256_or_pd(reached, _mm256_cmp_pd(high, lowest, _CMP_GE_OQ));
        }
        if (_mm256_movemask_pd(reached)) return block;
    }
    return block;
}

const auto next_block = __builtin_cpu_supports("avx2") ? next_avx2 : next_plain;
#else
const auto next_block = next_plain;
#endif

// A row that may be among the best, and between what its score lies, in units of the query's scale.
struct Likely {
    double low, high;
    std::int32_t row;
};

// Finds the rows of a copy that may be among the best `wanted` of a query.
class Scan {
  public:
    Scan(const Copy& copy, const float* query, py::ssize_t wanted)
        : copy_(copy), coded_(query, copy), wanted_(wanted), full_(std::max<std::size_t>(FULL, 2 * wanted)) {
        likely_.reserve(std::min(full_ + Copy::ROWS, copy.rows.size()));
    }

    // Looks at some blocks.
    void look(py::ssize_t block, py::ssize_t past) {
        std::array<std::int32_t, Copy::ROWS> sums;
        for (; (block = next_block(copy_, coded_, least_, block, past, sums.data())) < past; ++block) {
            const py::ssize_t start = block * Copy::ROWS;
            const py::ssize_t count = std::min(Copy::ROWS, static_cast<py::ssize_t>(copy_.rows.size()) - start);
            for (py::ssize_t r = 0; r < count; ++r) {
                const double scale = copy_.scales[start + r], high = scale * (sums[r] + coded_.stray);
                if (high >= least_) likely_.push_back({scale * (sums[r] - coded_.stray), high, copy_.rows[start + r]});
            }
            if (likely_.size() < full_) continue;
            prune();
            full_ = std::max(full_, 2 * likely_.size());
        }
    }

    // Those of all blocks looked at.
    const std::vector<Likely>& likely() {
        prune();
        return likely_;
    }

  private:
    static constexpr std::size_t FULL = 128;  // rows that are worth a look at which of them are still likely

    void prune() {
        if (likely_.size() <= static_cast<std::size_t>(wanted_)) return;
        std::nth_element(likely_.begin(), likely_.begin() + (wanted_ - 1), likely_.end(),
                         [](const Likely& a, const Likely& b) { return a.low > b.low; });
        least_ = likely_[wanted_ - 1].low - 2 * coded_.underflow;
        std::erase_if(likely_, [this](const Likely& one) { return one.high < least_; });
    }

    const Copy& copy_;
    Coded coded_;
    py::ssize_t wanted_;
    std::size_t full_;
    double least_ = -std::numeric_limits<double>::infinity();
    std::vector<Likely> likely_;
};

// A score and its row as one whole number: the larger score, and of equal ones the smaller row, is the smaller number.
// `dot` never gives a negative zero, which would be told apart from zero: its sums start from zero and are not fused.
struct Ranked {
    static std::uint64_t of(float score, std::int32_t row) {
        const auto turned = std::bit_cast<std::uint32_t>(-score);
        return std::uint64_t{turned & SIGN ? ~turned : turned | SIGN} << 32 | static_cast<std::uint32_t>(row);
    }

    static std::int32_t row(std::uint64_t ranked) { return static_cast<std::int32_t>(ranked); }

    static float score(std::uint64_t ranked) {
        const auto turned = static_cast<std::uint32_t>(ranked >> 32);
        return -std::bit_cast<float>(turned & SIGN ? turned ^ SIGN : ~turned);
    }

  private:
    static constexpr std::uint32_t SIGN = 1u << 31;
};

// So many blocks are read by all queries of a set before the next ones: of 64 dimensions they take half a megabyte, and
// stay in a processor's own cache meanwhile.
constexpr py::ssize_t TOGETHER = 256;

// A set: its copy, or its rows where all of them are to be scored; and the places of its queries. (As a variant,
// pybind11 would make an empty array for every alternative.)
using Sought = std::pair<py::object, std::vector<py::ssize_t>>;

// The rows of a set that has no copy, as they come.
std::vector<std::int32_t> every_row(const py::object& set, py::ssize_t catalogue) {
    std::vector<std::int32_t> rows;
    const auto read = [&](const auto& rows_N) {
        rows.reserve(rows_N.size());
        for (py::ssize_t n = 0; n < rows_N.size(); ++n) {
            check(rows_N.data()[n] >= 0 && rows_N.data()[n] < catalogue, "expected rows of the catalogue");
            rows.push_back(static_cast<std::int32_t>(rows_N.data()[n]));
        }
    };
    if (Array<std::int32_t>::check_(set))
        read(py::reinterpret_borrow<Array<std::int32_t>>(set));
    else if (Array<std::int64_t>::check_(set))
        read(py::reinterpret_borrow<Array<std::int64_t>>(set));
    else
        throw py::type_error("expected copies, or contiguous rows of 32 or 64 bits");
    return rows;
}

// The best rows of each query's own set and their scores, both (B, wanted): descending, equal scores by row; -1 and
// -inf where the set holds no more, and for queries of no set.
std::pair<Array<std::int64_t>, Array<float>> nearest(const Array<float>& queries_BD, const Array<float>& vectors_ND,
                                                     const std::vector<Sought>& sets, py::ssize_t wanted) {
    check(queries_BD.ndim() == 2 && vectors_ND.ndim() == 2 && queries_BD.shape(1) == vectors_ND.shape(1) &&
              vectors_ND.shape(0) <= INT32_MAX && wanted >= 1,
          "expected queries (B, D), vectors (N, D) of fewer than 2**31 rows, and at least one row wanted");
    const py::ssize_t count = vectors_ND.shape(0), dimensions = vectors_ND.shape(1);
    Array<std::int64_t> rows_BK({queries_BD.shape(0), wanted});
    Array<float> scores_BK({queries_BD.shape(0), wanted});
    std::fill_n(rows_BK.mutable_data(), rows_BK.size(), -1);
    std::fill_n(scores_BK.mutable_data(), scores_BK.size(), -std::numeric_limits<float>::infinity());

    std::vector<Scan> scans;
    std::vector<std::uint64_t> scored;
    std::vector<std::int32_t> rows, rows_before;
    py::ssize_t before = -1;
    const auto score_before = [&] {
        if (before < 0) return;
        const float* query = queries_BD.data() + before * dimensions;
        scored.clear();
        scored.reserve(rows_before.size());
        for (const std::int32_t row : rows_before) {
            const float score = dot(query, vectors_ND.data() + row * dimensions, dimensions);
            check(!std::isnan(score), "expected finite queries and vectors");
            scored.push_back(Ranked::of(score, row));
        }
        const auto kept = std::min<std::size_t>(wanted, scored.size());
        if (kept < scored.size()) std::nth_element(scored.begin(), scored.begin() + kept, scored.end());
        std::sort(scored.begin(), scored.begin() + kept);
        for (std::size_t k = 0; k < kept; ++k) {
            rows_BK.mutable_data()[before * wanted + k] = Ranked::row(scored[k]);
            scores_BK.mutable_data()[before * wanted + k] = Ranked::score(scored[k]);
        }
    };
    for (const auto& [set, places] : sets) {
        const Copy* copy = py::isinstance<Copy>(set) ? set.cast<const Copy*>() : nullptr;
        check(!copy || (copy->catalogue == count && copy->dimensions == dimensions),
              "expected copies of these vectors");
        for (const py::ssize_t place : places)
            check(place >= 0 && place < queries_BD.shape(0), "expected places of queries");
        const auto every = copy ? std::vector<std::int32_t>() : every_row(set, count);
        scans.clear();
        if (copy) {
            for (const py::ssize_t place : places)
                scans.emplace_back(*copy, queries_BD.data() + place * dimensions, wanted);
            for (py::ssize_t block = 0; block < copy->blocks; block += TOGETHER)
                for (Scan& scan : scans) scan.look(block, std::min(block + TOGETHER, copy->blocks));
        }
        for (std::size_t query = 0; query < places.size(); ++query) {
            const py::ssize_t place = places[query];
            rows = every;
            if (copy)
                for (const Likely& one : scans[query].likely()) rows.push_back(one.row);
            for (const std::int32_t row : rows) prefetch(vectors_ND.data() + row * dimensions, dimensions);
            score_before();  // while memory sends what was asked for
            rows.swap(rows_before);
            before = place;
        }
    }
    score_before();
    return {rows_BK, scores_BK};
}

}  // namespace
