// index/score.py: the one arithmetic of scores.

#pragma once

#include "arrays.hpp"

namespace {

// Every query with its own K vectors, or all with the same where their first axis is 1; (B, K).
Array<float> inner_products(const Array<float>& queries_BD, const Array<float>& vectors_BKD) {
    check(queries_BD.ndim() == 2 && vectors_BKD.ndim() == 3 && queries_BD.shape(1) == vectors_BKD.shape(2) &&
              (vectors_BKD.shape(0) == 1 || vectors_BKD.shape(0) == queries_BD.shape(0)),
          "expected queries (B, D) and vectors (B, K, D) or (1, K, D)");
    const py::ssize_t queries = queries_BD.shape(0), count = vectors_BKD.shape(1), dimensions = queries_BD.shape(1);
    const py::ssize_t step = vectors_BKD.shape(0) == 1 ? 0 : count * dimensions;
    Array<float> scores_BK({queries, count});
    for (py::ssize_t b = 0; b < queries; ++b)
        for (py::ssize_t k = 0; k < count; ++k)
            scores_BK.mutable_data()[b * count + k] =
                dot(queries_BD.data() + b * dimensions, vectors_BKD.data() + b * step + k * dimensions, dimensions);
    return scores_BK;
}

// The length of the longest vector (N, D), 0 where there is none; infinite where a number is not finite.
double max_norm(const Array<float>& vectors_ND) {
    check(vectors_ND.ndim() == 2, "expected vectors (N, D)");
    double most = 0;
    for (py::ssize_t n = 0; n < vectors_ND.shape(0); ++n) {
        const double square = squares(vectors_ND.data() + n * vectors_ND.shape(1), vectors_ND.shape(1));
        if (!std::isfinite(square)) return std::numeric_limits<double>::infinity();
        most = std::max(most, square);
    }
    return std::sqrt(most);
}

// The best `kept` of the rows given for each query, and their scores, both (B, kept): descending, equal scores by row;
// -1 pads, with scores of -inf, come last.
std::pair<Array<std::int64_t>, Array<float>> best(const Array<float>& queries_BD, const Array<float>& vectors_ND,
                                                  const Array<std::int64_t>& rows_BP, py::ssize_t kept) {
    check(queries_BD.ndim() == 2 && vectors_ND.ndim() == 2 && rows_BP.ndim() == 2 &&
              queries_BD.shape(1) == vectors_ND.shape(1) && queries_BD.shape(0) == rows_BP.shape(0) && kept >= 0 &&
              kept <= rows_BP.shape(1),
          "expected queries (B, D), vectors (N, D) and rows (B, P) of at least as many as are kept");
    const py::ssize_t queries = queries_BD.shape(0), proposals = rows_BP.shape(1), dimensions = queries_BD.shape(1);
    Array<std::int64_t> rows_BK({queries, kept});
    Array<float> scores_BK({queries, kept});
    std::vector<std::pair<float, std::int64_t>> scored(proposals);  // the score turned round: the smallest is the best
    for (py::ssize_t b = 0; b < queries; ++b) {
        const std::int64_t* rows_P = rows_BP.data() + b * proposals;
        for (py::ssize_t p = 0; p < proposals; ++p) {
            if (p + AHEAD < proposals && rows_P[p + AHEAD] >= 0 && rows_P[p + AHEAD] < vectors_ND.shape(0))
                prefetch(vectors_ND.data() + rows_P[p + AHEAD] * dimensions, dimensions);
            check(rows_P[p] >= -1 && rows_P[p] < vectors_ND.shape(0), "expected rows of the catalogue, or -1");
            scored[p] = {std::numeric_limits<float>::infinity(), rows_P[p]};
            if (rows_P[p] >= 0)
                scored[p].first =
                    -dot(queries_BD.data() + b * dimensions, vectors_ND.data() + rows_P[p] * dimensions, dimensions);
            check(!std::isnan(scored[p].first), "expected finite queries and vectors");
        }
        std::partial_sort(scored.begin(), scored.begin() + kept, scored.end());
        for (py::ssize_t k = 0; k < kept; ++k) {
            rows_BK.mutable_data()[b * kept + k] = scored[k].second;
            scores_BK.mutable_data()[b * kept + k] = -scored[k].first;
        }
    }
    return {rows_BK, scores_BK};
}

// The best candidates: the place of each, its row, its score and its source; descending, equal scores by place, and
// those that are held back after all others.
std::vector<std::tuple<py::ssize_t, std::int64_t, float, std::int64_t>> leading(
    const Array<float>& scores_K, const Array<std::int64_t>& rows_K, const Array<std::int64_t>& sources_K,
    const std::optional<Array<bool>>& demoted_K, py::ssize_t most) {
    check(rows_K.size() == scores_K.size() && sources_K.size() == scores_K.size() &&
              (!demoted_K || demoted_K->size() == scores_K.size()) && most >= 0,
          "expected a row, a source and a score for each candidate, and at least none wanted");
    std::vector<std::tuple<bool, float, py::ssize_t>> ranked(scores_K.size());
    for (py::ssize_t k = 0; k < scores_K.size(); ++k) {
        check(!std::isnan(scores_K.data()[k]), "expected scores that are numbers");
        ranked[k] = {demoted_K && demoted_K->data()[k], -scores_K.data()[k], k};
    }
    const auto kept = std::min(most, scores_K.size());
    std::partial_sort(ranked.begin(), ranked.begin() + kept, ranked.end());
    std::vector<std::tuple<py::ssize_t, std::int64_t, float, std::int64_t>> found;
    for (py::ssize_t best = 0; best < kept; ++best) {
        const py::ssize_t k = std::get<2>(ranked[best]);
        found.emplace_back(k, rows_K.data()[k], scores_K.data()[k], sources_K.data()[k]);
    }
    return found;
}

// The logarithm of the sum of the exponentials of some numbers, the largest first; -inf pads, 0 of nothing.
double log_sum_exp(const Array<float>& values_K) {
    const float* values = values_K.data();
    if (values_K.size() == 0 || std::isinf(values[0])) return 0;
    double sum = 0;
    for (py::ssize_t k = 0; k < values_K.size(); ++k) sum += std::exp(static_cast<double>(values[k]) - values[0]);
    return values[0] + std::log(sum);
}

}  // namespace
