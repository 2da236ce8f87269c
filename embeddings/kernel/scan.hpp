// index/host.py: a set's own copy in eight bits a number, and its best rows, exactly.
//
// A copy is made of vectors that were rotated: v' = A^T v, with orthonormal axes A, the first of which hold most of the
// vectors' length (index/host.py). Rotating leaves inner products as they are. A copy is scanned with the rotated query
// q', and what may be among the best is scored by `dot` from q and the vectors themselves.
//
// v' has two parts, its head and its tail, and each part p of a row r is codes c_pr, whole numbers from -127 to 127,
// times a scale s_pr; of a query codes k_p times S_p. Rows lie in order of their length, longest first. Three bounds of
// a row's score are tried, from the cheapest to the closest, against the k-th largest that rows seen so far must reach:
// by the row's length, by its head and the length of its tail, and by its head and its tail. Below, |x| is a length, D
// the dimensions (D_p of a part) and u = 2**-24.
//
//   Rounding to codes strays by half a scale in each number (2**-15 more covers that the division is rounded):
//       |v'_pr - s_pr c_pr| <= s_pr h_p   and   |q'_p - S_p k_p| <= S_p h_p   with   h_p = (1/2 + 2**-15) sqrt(D_p).
//   A code is at most 127, so |v'_pr| <= s_pr m_p with m_p = 127 sqrt(D_p) + h_p. Then, by Cauchy-Schwarz,
//       |q'_p.v'_pr - S_p s_pr k_p.c_pr| <= s_pr E_p   with   E_p = S_p h_p m_p + (|q'_p| + S_p h_p) h_p.
//   k_p.c_pr is a sum of whole numbers that fits 32 bits: it is exact, in any order and on any processor.
//   Axes of rounded numbers are orthonormal within 3 u sqrt(D), and a rotated vector's D sums of D products are rounded
//   by D u each: q.v and q'.v' lie at most 6 D sqrt(D) u |q'| |v'| apart.
//   `dot` strays from q.v by at most 2 D u |q| |v|, and 64 u |q'| |v'| more cover what the bounds themselves are
//   rounded by in single precision. All this together is at most
//       w |v'|   with   w = u (6 D sqrt(D) + 2 D + 64) |q'|
//   (a hundredth of it more, for |q| and |v| are not quite |q'| and |v'|) and what underflows,
//       f = 8 D 2**-126 (1 + |q'| + the longest |v'|)
//   (score.py; scales are never below 2**-126).
//
// So with e_p = E_p + w m_p, score and S_h s_hr k_h.c_hr + S_t s_tr k_t.c_tr lie at most s_hr e_h + s_tr e_t + f apart;
// the score is at most s_hr (S_h k_h.c_hr + e_h) + |v'_tr| (|q'_t| + w) + f, and at most |v'_r| (|q'| + w) + f.
// A row of which one of these lies below the k-th largest lower bound of the rows seen so far has k rows with larger
// scores; all others are kept.

#pragma once

#include <bit>
#include <cstring>
#include <string>

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#endif

#include "members.hpp"

namespace {

constexpr py::ssize_t ROWS = 32;         // of a block
constexpr std::int32_t MOST = 127;       // the largest code
constexpr double STRAY = 0.5 + 0x1p-15;  // of a number from its code, in scales

// A number no smaller, in single precision.
float upwards(double number) {
    return std::nextafter(static_cast<float>(number), std::numeric_limits<float>::infinity());
}

// The same dimensions of all rows of a copy, quantised.
struct Part {
    py::ssize_t dimensions, pairs;
    std::vector<float> scales;  // one for each row of a block
    // Block by block; in a block by pairs of dimensions; in a pair by row. What one instruction multiplies and adds up
    // stands side by side.
    std::vector<std::int8_t> codes;

    Part(py::ssize_t blocks, py::ssize_t dimensions)
        : dimensions(dimensions),
          pairs((dimensions + 1) / 2),
          scales(blocks * ROWS),
          codes(blocks * ROWS * pairs * 2) {}

    static py::ssize_t bytes_of(py::ssize_t blocks, py::ssize_t dimensions) {
        return blocks * ROWS * (sizeof(float) + (dimensions + 1) / 2 * 2);
    }

    // Of row n of the copy; in `scratch` codes come one by one, with room for one more. The largest number's code is
    // the largest, unless its scale's inverse would not be a number.
    void quantize(const float* numbers, py::ssize_t n, std::int8_t* scratch) {
        std::int32_t largest = 0;  // magnitudes as whole numbers: in the same order
        for (py::ssize_t d = 0; d < dimensions; ++d)
            largest = std::max(largest, std::bit_cast<std::int32_t>(numbers[d]) & INT32_MAX);
        const float scale = std::max(std::bit_cast<float>(largest) / MOST, std::numeric_limits<float>::min());
        const float inverse = 1 / scale;
        for (py::ssize_t d = 0; d < dimensions; ++d) {
            const float code = numbers[d] * inverse;
            scratch[d] = static_cast<std::int8_t>(static_cast<std::int32_t>(code + (code < 0 ? -0.5f : 0.5f)));
        }
        if (dimensions % 2) scratch[dimensions] = 0;
        std::int8_t* block = codes.data() + n / ROWS * ROWS * 2 * pairs + n % ROWS * 2;
        for (py::ssize_t pair = 0; pair < pairs; ++pair) std::memcpy(block + pair * ROWS * 2, scratch + pair * 2, 2);
        scales[n] = scale;
    }

    // Row n becomes what row m of the same dimensions is elsewhere.
    void take(const Part& other, py::ssize_t m, py::ssize_t n) {
        const std::int8_t* from = other.codes.data() + m / ROWS * ROWS * 2 * pairs + m % ROWS * 2;
        std::int8_t* to = codes.data() + n / ROWS * ROWS * 2 * pairs + n % ROWS * 2;
        for (py::ssize_t pair = 0; pair < pairs; ++pair) std::memcpy(to + pair * ROWS * 2, from + pair * ROWS * 2, 2);
        scales[n] = other.scales[m];
    }
};

// The rows of a set, the longest first.
struct QuantisedSet {
    py::ssize_t catalogue, blocks;   // catalogue: how many rows that has
    std::vector<std::int32_t> rows;  // of the catalogue
    std::vector<float> norms;      // of the rows of a block and of all after it, at least
    std::vector<float> tails;        // length of each row's tail, at least
    Part head, tail;

    QuantisedSet(py::ssize_t count, py::ssize_t catalogue, py::ssize_t dimensions)
        : catalogue(catalogue),
          blocks((count + ROWS - 1) / ROWS),
          rows(count),
          norms(blocks),
          tails(blocks * ROWS),
          head(blocks, headed(dimensions)),
          tail(blocks, dimensions - headed(dimensions)) {}

    py::ssize_t dimensions() const { return head.dimensions + tail.dimensions; }

    // Of vectors in the order of their rows, rotated.
    template <class Row>
    static QuantisedSet of(const Array<float>& rotated_ND, const Array<Row>& rows_N, py::ssize_t catalogue) {
        check(rotated_ND.ndim() == 2 && rows_N.ndim() == 1 && rotated_ND.shape(0) == rows_N.size() &&
                  catalogue <= INT32_MAX && rotated_ND.shape(1) * MOST <= INT32_MAX,
              "expected rows of a catalogue of fewer than 2**31, and their vectors (N, D) of fewer than 2**24 "
              "dimensions");
        const py::ssize_t count = rows_N.size(), dimensions = rotated_ND.shape(1);
        QuantisedSet copy(count, catalogue, dimensions);
        struct Measured {
            float length, tail;
            py::ssize_t n;
            bool operator<(const Measured& other) const { return length > other.length; }
        };
        std::vector<Measured> order(count);
        for (py::ssize_t n = 0; n < count; ++n) {
            check(rows_N.data()[n] >= 0 && rows_N.data()[n] < catalogue, "expected rows of the catalogue");
            const float* vector = rotated_ND.data() + n * dimensions;
            const double in_head = squares(vector, copy.head.dimensions);
            const double in_tail = squares(vector + copy.head.dimensions, copy.tail.dimensions);
            check(std::isfinite(in_head + in_tail), "expected finite vectors");
            order[n] = {upwards(std::sqrt(in_head + in_tail)), upwards(std::sqrt(in_tail)), n};
        }
        std::sort(order.begin(), order.end());
        std::vector<std::int8_t> scratch(dimensions + 1);
        for (py::ssize_t n = 0; n < count; ++n) {
            if (n + AHEAD < count) prefetch(rotated_ND.data() + order[n + AHEAD].n * dimensions, dimensions);
            const float* vector = rotated_ND.data() + order[n].n * dimensions;
            copy.rows[n] = static_cast<std::int32_t>(rows_N.data()[order[n].n]);
            if (n % ROWS == 0) copy.norms[n / ROWS] = order[n].length;
            copy.tails[n] = order[n].tail;
            copy.head.quantize(vector, n, scratch.data());
            copy.tail.quantize(vector + copy.head.dimensions, n, scratch.data());
        }
        return copy;
    }

    // A copy of those of these rows that are members: they lie in order already.
    QuantisedSet among(const Members& members) const {
        const std::vector<std::uint64_t> bits = members.bits(catalogue);
        std::vector<std::int32_t> places(rows.size());
        py::ssize_t count = 0;
        for (std::size_t m = 0; m < rows.size(); ++m) {  // without a branch that a processor would predict wrongly
            places[count] = static_cast<std::int32_t>(m);
            count += bits[rows[m] / 64] >> (rows[m] % 64) & 1;
        }
        QuantisedSet copy(count, catalogue, dimensions());
        for (py::ssize_t n = 0; n < count; ++n) {
            const py::ssize_t m = places[n];
            copy.rows[n] = rows[m];
            if (n % ROWS == 0) copy.norms[n / ROWS] = norms[m / ROWS];
            copy.tails[n] = tails[m];
            copy.head.take(head, m, n);
            copy.tail.take(tail, m, n);
        }
        return copy;
    }

    // What the copy of so many rows takes.
    static py::ssize_t bytes_of(py::ssize_t count, py::ssize_t dimensions) {
        const py::ssize_t blocks = (count + ROWS - 1) / ROWS, first = headed(dimensions);
        return count * sizeof(std::int32_t) + blocks * (1 + ROWS) * sizeof(float) + Part::bytes_of(blocks, first) +
               Part::bytes_of(blocks, dimensions - first);
    }

    py::ssize_t nbytes() const { return bytes_of(static_cast<py::ssize_t>(rows.size()), dimensions()); }

  private:
    // How many dimensions a head has. An eighth costs little where it tells nothing.
    static py::ssize_t headed(py::ssize_t dimensions) { return std::min(dimensions, (dimensions + 15) / 16 * 2); }
};

// A part of a query as a copy is scanned for it. See the top for what its numbers mean.
struct CodedPart {
    std::vector<std::int16_t> codes;
    double scale, length, stray;

    CodedPart(const float* query, const Part& part) : codes(2 * part.pairs) {
        const auto dimensions = static_cast<double>(part.dimensions);
        double largest = 0;
        for (py::ssize_t d = 0; d < part.dimensions; ++d)
            largest = std::max(largest, std::abs(static_cast<double>(query[d])));
        length = std::sqrt(squares(query, part.dimensions));
        check(std::isfinite(length), "expected finite queries");
        const double most = std::min<double>(INT16_MAX, std::floor(INT32_MAX / (MOST * std::max(dimensions, 1.0))));
        scale = std::max(largest / most, static_cast<double>(std::numeric_limits<float>::min()));
        for (py::ssize_t d = 0; d < part.dimensions; ++d)
            codes[d] = static_cast<std::int16_t>(std::lrint(query[d] / scale));
        const double half = STRAY * std::sqrt(dimensions);
        stray = scale * half * farthest(part) + (length + scale * half) * half;
    }

    static double farthest(const Part& part) {
        return (MOST + STRAY) * std::sqrt(static_cast<double>(part.dimensions));
    }
};

struct Coded {
    CodedPart head, tail;
    double underflow;
    float most, most_tail;  // of a score, for each unit of a row's length, and of its tail's
    // In single precision, as blocks are looked at.
    float head_scale, tail_scale, head_stray, tail_stray;

    Coded(const float* rotated, const QuantisedSet& copy)
        : head(rotated, copy.head), tail(rotated + copy.head.dimensions, copy.tail) {
        const auto dimensions = static_cast<double>(copy.dimensions());
        const double length = std::hypot(head.length, tail.length);
        const double stray = 1.01 * 0x1p-24 * (6 * dimensions * std::sqrt(dimensions) + 2 * dimensions + 64) * length;
        head.stray = 1.001 * (head.stray + stray * CodedPart::farthest(copy.head));
        tail.stray = 1.001 * (tail.stray + stray * CodedPart::farthest(copy.tail));
        underflow = 8 * dimensions * std::numeric_limits<float>::min() *
                    (1 + length + (copy.blocks ? copy.norms.front() : 0));
        most = upwards(1.001 * (length + stray));
        most_tail = upwards(1.001 * (tail.length + stray));
        head_scale = static_cast<float>(head.scale);
        tail_scale = static_cast<float>(tail.scale);
        head_stray = upwards(head.stray);
        tail_stray = upwards(tail.stray);
    }
};

// The sums of products of a block's codes and a query's.
void sum_plain(const Part& part, const CodedPart& query, py::ssize_t block, std::int32_t* sums) {
    constexpr py::ssize_t WIDTH = 2 * ROWS;
    const std::int8_t* codes = part.codes.data() + block * WIDTH * part.pairs;
    std::array<std::int32_t, WIDTH> products{};
    for (py::ssize_t pair = 0; pair < part.pairs; ++pair)
        for (py::ssize_t at = 0; at < WIDTH; ++at)
            products[at] += codes[pair * WIDTH + at] * query.codes[pair * 2 + at % 2];
    for (py::ssize_t r = 0; r < ROWS; ++r) sums[r] = products[2 * r] + products[2 * r + 1];
}

// What was found of a block: the sums of products of each row's codes, and which rows' scores may be large enough.
struct Found {
    std::array<std::int32_t, ROWS> heads, tails;
    std::uint32_t reached;  // a bit for each row
};

// The first block, from a given one on, with a row whose score may reach `least`; or `past`, where there is none before
// it. What is not a number reaches everything.
py::ssize_t next_plain(const QuantisedSet& copy, const Coded& query, float least, py::ssize_t block, py::ssize_t past,
                       Found& found) {
    for (; block < past; ++block) {
        const py::ssize_t start = block * ROWS;
        std::array<float, ROWS> highs;
        bool reached = false;
        sum_plain(copy.head, query.head, block, found.heads.data());
        for (py::ssize_t r = 0; r < ROWS; ++r) {
            highs[r] = copy.head.scales[start + r] *
                       (query.head_scale * static_cast<float>(found.heads[r]) + query.head_stray);
            reached |= !(highs[r] + copy.tails[start + r] * query.most_tail < least);
        }
        if (!reached) continue;
        found.reached = 0;
        sum_plain(copy.tail, query.tail, block, found.tails.data());
        for (py::ssize_t r = 0; r < ROWS; ++r) {
            const float rest = copy.tail.scales[start + r] *
                               (query.tail_scale * static_cast<float>(found.tails[r]) + query.tail_stray);
            found.reached |= std::uint32_t{!(highs[r] + rest < least)} << r;
        }
        if (found.reached) return block;
    }
    return block;
}

#if defined(__GNUC__) && defined(__x86_64__)
// The same, with what every x86 processor since 2015 knows.
constexpr py::ssize_t LANES = 8, EIGHTS = ROWS / LANES;

__attribute__((target("avx2"), always_inline)) inline void sum_avx2(const Part& part, const CodedPart& query,
                                                                    py::ssize_t block, __m256i* sums) {
    constexpr py::ssize_t WIDTH = 2 * ROWS;
    const std::int8_t* codes = part.codes.data() + block * WIDTH * part.pairs;
    for (py::ssize_t eight = 0; eight < EIGHTS; ++eight) sums[eight] = _mm256_setzero_si256();
    for (py::ssize_t pair = 0; pair < part.pairs; ++pair) {
        std::int32_t two;
        std::memcpy(&two, query.codes.data() + pair * 2, sizeof two);
        const __m256i both = _mm256_set1_epi32(two);
        for (py::ssize_t eight = 0; eight < EIGHTS; ++eight) {
            const auto* at = reinterpret_cast<const __m128i*>(codes + pair * WIDTH + eight * 2 * LANES);
            sums[eight] =
                _mm256_add_epi32(sums[eight], _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(at)), both));
        }
    }
}

// scales * (scale * sums + stray)
__attribute__((target("avx2"), always_inline)) inline __m256 high_avx2(const float* scales, float scale, float stray,
                                                                       __m256i sums) {
    const __m256 scores = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(sums));
    return _mm256_mul_ps(_mm256_loadu_ps(scales), _mm256_add_ps(scores, _mm256_set1_ps(stray)));
}

__attribute__((target("avx2"))) py::ssize_t next_avx2(const QuantisedSet& copy, const Coded& query, float least,
                                                      py::ssize_t block, py::ssize_t past, Found& found) {
    const __m256 lowest = _mm256_set1_ps(least), most_tail = _mm256_set1_ps(query.most_tail);
    __m256i head_sums[EIGHTS], tail_sums[EIGHTS];
    __m256 highs[EIGHTS];
    for (; block < past; ++block) {
        const py::ssize_t start = block * ROWS;
        __m256 reached = _mm256_setzero_ps();
        sum_avx2(copy.head, query.head, block, head_sums);
        for (py::ssize_t eight = 0; eight < EIGHTS; ++eight) {
            const py::ssize_t at = start + eight * LANES;
            highs[eight] =
                high_avx2(copy.head.scales.data() + at, query.head_scale, query.head_stray, head_sums[eight]);
            const __m256 rest = _mm256_mul_ps(_mm256_loadu_ps(copy.tails.data() + at), most_tail);
            reached = _mm256_or_ps(reached, _mm256_cmp_ps(_mm256_add_ps(highs[eight], rest), lowest, _CMP_NLT_UQ));
        }
        if (!_mm256_movemask_ps(reached)) continue;
        found.reached = 0;
        sum_avx2(copy.tail, query.tail, block, tail_sums);
        for (py::ssize_t eight = 0; eight < EIGHTS; ++eight) {
            const __m256 rest = high_avx2(copy.tail.scales.data() + start + eight * LANES, query.tail_scale,
                                          query.tail_stray, tail_sums[eight]);
            const __m256 these = _mm256_cmp_ps(_mm256_add_ps(highs[eight], rest), lowest, _CMP_NLT_UQ);
            found.reached |= static_cast<std::uint32_t>(_mm256_movemask_ps(these)) << (eight * LANES);
        }
        if (!found.reached) continue;
        std::memcpy(found.heads.data(), head_sums, sizeof head_sums);
        std::memcpy(found.tails.data(), tail_sums, sizeof tail_sums);
        return block;
    }
    return block;
}

#endif

using NextBlock = py::ssize_t (*)(const QuantisedSet&, const Coded&, float, py::ssize_t, py::ssize_t, Found&);

// How blocks can be looked at on this processor, by the instructions needed, the fastest first. All find the same.
std::vector<std::pair<std::string, NextBlock>> instruction_sets() {
    std::vector<std::pair<std::string, NextBlock>> known;
#if defined(__GNUC__) && defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) known.emplace_back("avx2", next_avx2);
#endif
    known.emplace_back("plain", next_plain);
    return known;
}

NextBlock next_block(const std::optional<std::string>& isa) {
    static const auto known = instruction_sets();
    for (const auto& [name, next] : known)
        if (!isa || *isa == name) return next;
    throw py::value_error("expected one of the instruction sets of this processor");
}

// A row that may be among the best, and between what its score lies.
struct Likely {
    double low, high;
    std::int32_t row;
};

// Finds the rows of a copy, of some members alone if such are given, that may be among the best `wanted` of a query.
class Scan {
  public:
    Scan(const QuantisedSet& copy, const Members* members, const float* rotated, py::ssize_t wanted, NextBlock next)
        : copy_(copy),
          members_(members),
          query_(rotated, copy),
          wanted_(wanted),
          next_(next),
          full_(std::max<std::size_t>(FULL, 2 * wanted)) {
        likely_.reserve(std::min(full_ + ROWS, copy.rows.size()));
    }

    // Looks at some blocks.
    void look(py::ssize_t block, py::ssize_t past) {
        Found found;
        while (block < past && !(copy_.norms[block] * query_.most < least_)) {
            const py::ssize_t end = std::min(past, block + STRETCH);
            for (; (block = next_(copy_, query_, least_, block, end, found)) < end; ++block) keep(block, found);
        }
    }

    // Those of all blocks looked at.
    const std::vector<Likely>& likely() {
        prune();
        return likely_;
    }

  private:
    static constexpr std::size_t FULL = 128;    // rows that are worth a look at which of them are still likely
    static constexpr py::ssize_t STRETCH = 16;  // blocks after which it is asked whether rows are still long enough

    void keep(py::ssize_t block, const Found& found) {
        const py::ssize_t start = block * ROWS;
        const py::ssize_t count = static_cast<py::ssize_t>(copy_.rows.size()) - start;
        for (std::uint32_t rest = found.reached; rest; rest &= rest - 1) {
            const int r = std::countr_zero(rest);
            if (r >= count) break;
            const double in_head = copy_.head.scales[start + r], in_tail = copy_.tail.scales[start + r];
            const double score =
                in_head * query_.head.scale * found.heads[r] + in_tail * query_.tail.scale * found.tails[r];
            const double stray = in_head * query_.head.stray + in_tail * query_.tail.stray;
            if (score + stray < least_ || (members_ && !members_->has(copy_.rows[start + r]))) continue;
            likely_.push_back({score - stray, score + stray, copy_.rows[start + r]});
        }
        if (likely_.size() < full_) return;
        prune();
        full_ = std::max(full_, 2 * likely_.size());
    }

    void prune() {
        if (likely_.size() <= static_cast<std::size_t>(wanted_)) return;
        std::nth_element(likely_.begin(), likely_.begin() + (wanted_ - 1), likely_.end(),
                         [](const Likely& a, const Likely& b) { return a.low > b.low; });
        least_ = -upwards(2 * query_.underflow - likely_[wanted_ - 1].low);
        std::erase_if(likely_, [this](const Likely& one) { return one.high < least_; });
    }

    const QuantisedSet& copy_;
    const Members* members_;
    Coded query_;
    py::ssize_t wanted_;
    NextBlock next_;
    std::size_t full_;
    float least_ = -std::numeric_limits<float>::infinity();
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

// A set: its copy, or a larger one and which of its rows are members, or its rows where all of them are to be scored;
// the places of its queries; and rows beside the copy, which are scored, too. (As a variant, pybind11 would make an empty array for every alternative.)
using Sought = std::tuple<py::object, const Members*, std::vector<py::ssize_t>, std::optional<Array<std::int64_t>>>;

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
// -inf where the set holds no more, and for queries of no set. Copies were rotated by these axes, one a column; without
// copies there need be none. `isa` is for tests: copies are scanned with the best instructions there are.
std::pair<Array<std::int64_t>, Array<float>> nearest(const Array<float>& queries_BD,
                                                     const std::optional<Array<float>>& rotation_DD,
                                                     const Array<float>& vectors_ND, const std::vector<Sought>& sets,
                                                     py::ssize_t wanted, const std::optional<std::string>& isa) {
    check(queries_BD.ndim() == 2 && vectors_ND.ndim() == 2 && queries_BD.shape(1) == vectors_ND.shape(1) &&
              vectors_ND.shape(0) <= INT32_MAX && wanted >= 1,
          "expected queries (B, D), vectors (N, D) of fewer than 2**31 rows, and at least one row wanted");
    check(!rotation_DD || (rotation_DD->ndim() == 2 && rotation_DD->shape(0) == queries_BD.shape(1) &&
                       rotation_DD->shape(1) == queries_BD.shape(1)),
          "expected axes (D, D)");
    const py::ssize_t count = vectors_ND.shape(0), dimensions = vectors_ND.shape(1);
    Array<std::int64_t> rows_BK({queries_BD.shape(0), wanted});
    Array<float> scores_BK({queries_BD.shape(0), wanted});
    std::fill_n(rows_BK.mutable_data(), rows_BK.size(), -1);
    std::fill_n(scores_BK.mutable_data(), scores_BK.size(), -std::numeric_limits<float>::infinity());

    const NextBlock next = next_block(isa);
    std::vector<Scan> scans;
    std::vector<std::uint64_t> scored;
    std::vector<std::int32_t> rows, rows_before;
    std::vector<float> rotated(dimensions);
    const auto rotate = [&](py::ssize_t place) {
        std::fill(rotated.begin(), rotated.end(), 0.0f);
        for (py::ssize_t d = 0; d < dimensions; ++d) {
            const float number = queries_BD.data()[place * dimensions + d];
            const float* axes = rotation_DD->data() + d * dimensions;
            for (py::ssize_t axis = 0; axis < dimensions; ++axis) rotated[axis] += number * axes[axis];
        }
        return rotated.data();
    };
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
    for (const auto& [set, members, places, beside] : sets) {
        // Whether it is an array is quickly told; that it is no copy is not.
        const bool held = !py::isinstance<py::array>(set) && py::isinstance<QuantisedSet>(set);
        const QuantisedSet* copy = held ? set.cast<const QuantisedSet*>() : nullptr;
        check(!copy || (copy->catalogue == count && copy->dimensions() == dimensions),
              "expected copies of these vectors");
        check(!copy || rotation_DD, "expected the rotation of the copies");
        check(copy || !members, "expected a copy of which some rows are members");
        for (const py::ssize_t place : places)
            check(place >= 0 && place < queries_BD.shape(0), "expected places of queries");
        check(copy || !beside, "expected a copy that rows lie beside");
        const auto every = copy ? std::vector<std::int32_t>() : every_row(set, count);
        const auto others = beside ? every_row(*beside, count) : std::vector<std::int32_t>();
        scans.clear();
        if (copy) {
            for (const py::ssize_t place : places) scans.emplace_back(*copy, members, rotate(place), wanted, next);
            for (py::ssize_t block = 0; block < copy->blocks; block += TOGETHER)
                for (Scan& scan : scans) scan.look(block, std::min(block + TOGETHER, copy->blocks));
        }
        for (std::size_t query = 0; query < places.size(); ++query) {
            const py::ssize_t place = places[query];
            rows = every;
            if (copy)
                for (const Likely& one : scans[query].likely()) rows.push_back(one.row);
            rows.insert(rows.end(), others.begin(), others.end());
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
