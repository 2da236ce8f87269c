// sources.py and statistics.py: what is proposed.

#pragma once

#include "customer.hpp"
#include "members.hpp"

namespace {

// The eligible ones among some weighted rows, and of these the `most` of the largest weights, in no order; equal
// weights by row.
class Largest {
  public:
    Largest(const Members& eligible, py::ssize_t most, py::ssize_t offered) : eligible_(eligible), most_(most) {
        check(most >= 0, "expected at least none wanted");
        inside_.resize(offered);
    }

    void offer(std::int64_t row, float weight) {  // no branch: nobody predicts what is eligible
        inside_[count_] = {-weight, row};
        count_ += eligible_.has(row);
        odd_ |= std::isnan(weight);
    }

    Array<std::int64_t> found() {
        check(!odd_, "expected weights that are numbers");  // others have no order, without which sorting reads anywhere
        inside_.resize(count_);
        if (static_cast<py::ssize_t>(inside_.size()) > most_) {
            std::nth_element(inside_.begin(), inside_.begin() + most_, inside_.end());
            inside_.resize(most_);
        }
        Array<std::int64_t> rows_K(static_cast<py::ssize_t>(inside_.size()));
        std::transform(inside_.begin(), inside_.end(), rows_K.mutable_data(),
                       [](const auto& one) { return one.second; });
        return rows_K;
    }

  private:
    const Members& eligible_;
    py::ssize_t most_;
    std::size_t count_ = 0;
    bool odd_ = false;
    std::vector<std::pair<float, std::int64_t>> inside_;
};

// What is scored highest.
Array<std::int64_t> largest(const Scored& scored, const Members& eligible, py::ssize_t most) {
    const auto& [rows_S, weights_S] = scored;
    check(rows_S.size() == weights_S.size(), "expected as many weights as rows");
    Largest best(eligible, most, rows_S.size());
    for (py::ssize_t s = 0; s < rows_S.size(); ++s) best.offer(rows_S.data()[s], weights_S.data()[s]);
    return best.found();
}

// What the customer buys most, a purchase at the location asked about counting `more` on top.
Array<std::int64_t> again(const Customer& customer, const Array<float>& here_R, float more, const Members& eligible,
                          py::ssize_t most) {
    const py::ssize_t bought = customer.rows_R.size();
    check(here_R.size() == bought + 1, "expected figures for each product bought, and one more");
    Largest best(eligible, most, bought);
    for (py::ssize_t r = 0; r < bought; ++r)
        best.offer(customer.rows_R.data()[r], customer.slow_R[r] + more * here_R.data()[r]);
    return best.found();
}

// What is most due of what the customer bought on several days: a log-normal bump around the usual gap, times how often
// it is bought at all.
Array<std::int64_t> due(const Customer& customer, float aged, const Members& eligible, py::ssize_t most) {
    Largest best(eligible, most, customer.rhythms.size());
    for (const auto& [row, since, gap, slow] : customer.rhythms) {
        const float far = std::log(std::max((since + aged) / std::max(gap, 0.5f), 0.01f));
        best.offer(row, slow * std::exp(-2 * far * far));
    }
    return best.found();
}

// Of some products the usual days between two days on which the customer bought each, and the days since the last one as
// of the newest purchase; (0, 0) for what was not bought on several days. The gap of `own_RC` is smoothed, as if the
// product's usual one, a column of its figures, had been seen once more.
std::vector<std::pair<double, double>> usual_gaps(const Customer& customer, const Table<float>& products_NP,
                                               py::ssize_t usual, const std::vector<std::int64_t>& rows) {
    check(usual >= 0 && usual < products_NP.columns, "expected a column of the figures");
    std::vector<std::pair<double, double>> found;
    for (const std::int64_t row : rows) {
        const std::size_t place = keys_of(customer.rows_R).find(row);
        const float* own = customer.own_RC.data() + place * OWN;
        if (place == static_cast<std::size_t>(customer.rows_R.size()) || own[DAYS] <= 1) {
            found.emplace_back(0, 0);
            continue;
        }
        check(products_NP.holds(row), "expected rows of the catalogue");
        const double seen = double{own[GAP]} * own[DAYS] - products_NP.row(row)[usual];
        found.emplace_back(seen / (own[DAYS] - 1), own[SINCE]);
    }
    return found;
}

// The places of the largest weights, at most `most` of them: descending, equal weights by place.
Array<std::int64_t> foremost(const Array<float>& weights_R, py::ssize_t most) {
    check(most >= 0, "expected at least none wanted");
    std::vector<std::pair<float, std::int64_t>> ranked(weights_R.size());
    for (py::ssize_t r = 0; r < weights_R.size(); ++r) {
        check(!std::isnan(weights_R.data()[r]), "expected weights that are numbers");
        ranked[r] = {-weights_R.data()[r], r};
    }
    const auto kept = std::min(most, weights_R.size());
    std::partial_sort(ranked.begin(), ranked.begin() + kept, ranked.end());
    Array<std::int64_t> places_K(kept);
    std::transform(ranked.begin(), ranked.begin() + kept, places_K.mutable_data(),
                   [](const auto& one) { return one.second; });
    return places_K;
}

// All rows of some lists, ascending, each with the number of the first list that holds it.
std::pair<Array<std::int64_t>, Array<std::int64_t>> merged(const std::vector<Array<std::int64_t>>& lists) {
    constexpr int ROW = 32;  // where the bits of a row begin, above those of its list
    std::vector<std::uint64_t> all;
    for (std::size_t list = 0; list < lists.size(); ++list)
        for (py::ssize_t k = 0; k < lists[list].size(); ++k) {
            check(lists[list].data()[k] >= 0 && lists[list].data()[k] <= std::numeric_limits<std::int32_t>::max(),
                  "expected rows of a catalogue");
            all.push_back(static_cast<std::uint64_t>(lists[list].data()[k]) << ROW | list);
        }
    std::sort(all.begin(), all.end());
    const auto end =
        std::unique(all.begin(), all.end(), [](std::uint64_t a, std::uint64_t b) { return a >> ROW == b >> ROW; });
    const auto count = static_cast<py::ssize_t>(end - all.begin());
    Array<std::int64_t> rows_K(count), lists_K(count);
    for (py::ssize_t k = 0; k < count; ++k) {
        rows_K.mutable_data()[k] = static_cast<std::int64_t>(all[k] >> ROW);
        lists_K.mutable_data()[k] = static_cast<std::uint32_t>(all[k]);
    }
    return {rows_K, lists_K};
}

// The neighbours of some weighted products, ascending, each with its weighted sum of cosines.
Scored around(const Array<std::int64_t>& rows_R, const Array<float>& weights_R, const Table<std::int32_t>& near_NT,
              const Table<float>& cosines_NT) {
    check(rows_R.size() == weights_R.size(), "expected as many weights as rows");
    check(near_NT.size == cosines_NT.size && near_NT.columns == cosines_NT.columns,
          "expected neighbours and cosines (N, T)");
    const py::ssize_t most = near_NT.columns;
    std::vector<Keyed<double>> met;
    met.reserve(rows_R.size() * most);
    for (py::ssize_t r = 0; r < rows_R.size(); ++r) {
        const std::int64_t row = rows_R.data()[r];
        check(near_NT.holds(row), "expected rows of the catalogue");
        const std::int32_t* near = near_NT.row(row);
        const float* cosines = cosines_NT.row(row);
        for (py::ssize_t t = 0; t < most; ++t)
            if (near[t] >= 0)
                met.push_back({static_cast<std::uint32_t>(near[t]), static_cast<double>(cosines[t]) * weights_R.data()[r]});
    }
    sort_by_key(met);
    std::vector<std::int64_t> rows_S;
    std::vector<float> sums_S;
    for (std::size_t begin = 0, end = 0; begin < met.size(); begin = end) {
        double sum = 0;
        for (; end < met.size() && met[end].key == met[begin].key; ++end) sum += met[end].value;
        rows_S.push_back(met[begin].key);
        sums_S.push_back(static_cast<float>(sum));
    }
    return {array_of(rows_S), array_of(sums_S)};
}

}  // namespace
