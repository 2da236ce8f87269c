// eligible.py, sources.py and statistics.py: what is proposed, and whether it may be shown.

#pragma once

#include "arrays.hpp"

namespace {

// The rows of a set, to be asked whether a row is among them: in bits where these take no more memory than the rows.
class Members {
  public:
    template <class T>
    static Members of(const Array<T>& rows_N) {
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

    bool has(std::int64_t row) const {
        if (row < 0 || row >= past_) return false;
        if (!bits_.empty()) return bits_[row / 64] >> (row % 64) & 1;
        return rows_.empty() || Keys<std::int64_t>{rows_.data(), rows_.size()}.find(row) != rows_.size();
    }

    Array<bool> contains(const Array<std::int64_t>& rows_R) const {
        Array<bool> inside_R(rows_R.size());
        std::transform(rows_R.data(), rows_R.data() + rows_R.size(), inside_R.mutable_data(),
                       [this](std::int64_t row) { return has(row); });
        return inside_R;
    }

  private:
    std::int64_t size_ = 0, past_ = 0;
    std::vector<std::uint64_t> bits_;
    std::vector<std::int64_t> rows_;
};

// The rows of a set that have the largest weights, at most `most` of them, in no order; equal weights by row.
Array<std::int64_t> largest(const Array<std::int64_t>& rows_S, const Array<float>& weights_S, const Members& eligible,
                            py::ssize_t most) {
    check(rows_S.size() == weights_S.size() && most >= 0, "expected as many weights as rows, and at least none wanted");
    std::vector<std::pair<float, std::int64_t>> inside;
    inside.reserve(rows_S.size());
    for (py::ssize_t s = 0; s < rows_S.size(); ++s)
        if (eligible.has(rows_S.data()[s])) inside.emplace_back(-weights_S.data()[s], rows_S.data()[s]);
    if (static_cast<py::ssize_t>(inside.size()) > most) {
        std::nth_element(inside.begin(), inside.begin() + most, inside.end());
        inside.resize(most);
    }
    Array<std::int64_t> found(static_cast<py::ssize_t>(inside.size()));
    std::transform(inside.begin(), inside.end(), found.mutable_data(), [](const auto& one) { return one.second; });
    return found;
}

// All rows of some lists, ascending, each with the number of the first list that holds it.
std::pair<Array<std::int64_t>, Array<std::int64_t>> merged(const std::vector<Array<std::int64_t>>& lists) {
    std::vector<Keyed<std::uint32_t>> all;
    for (std::size_t list = 0; list < lists.size(); ++list)
        for (py::ssize_t k = 0; k < lists[list].size(); ++k) {
            check(lists[list].data()[k] >= 0 && lists[list].data()[k] <= std::numeric_limits<std::int32_t>::max(),
                  "expected rows of a catalogue");
            all.push_back({static_cast<std::uint32_t>(lists[list].data()[k]), static_cast<std::uint32_t>(list)});
        }
    sort_by_key(all);
    const auto end = std::unique(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.key == b.key; });
    const auto count = static_cast<py::ssize_t>(end - all.begin());
    Array<std::int64_t> rows_K(count), lists_K(count);
    for (py::ssize_t k = 0; k < count; ++k) {
        rows_K.mutable_data()[k] = all[k].key;
        lists_K.mutable_data()[k] = all[k].value;
    }
    return {rows_K, lists_K};
}

// What was bought on several days, and how due it is: a log-normal bump around its usual gap, times how often it is
// bought at all.
std::pair<Array<std::int64_t>, Array<float>> due(const Array<std::int64_t>& bought_R, const Array<float>& own_RC,
                                                 double aged) {
    check(own_RC.ndim() == 2 && own_RC.shape(1) == OWN && own_RC.shape(0) == bought_R.size() + 1,
          "expected own (R + 1, 8)");
    std::vector<std::int64_t> rows_S;
    std::vector<float> weights_S;
    for (py::ssize_t r = 0; r < bought_R.size(); ++r) {
        const float* own = own_RC.data(r, 0);
        if (own[DAYS] <= 1) continue;
        const double far = std::log(std::max((own[SINCE] + aged) / std::max(own[GAP], 0.5f), 0.01));
        rows_S.push_back(bought_R.data()[r]);
        weights_S.push_back(static_cast<float>(own[SLOW] * std::exp(-2 * far * far)));
    }
    return {array_of(rows_S), array_of(weights_S)};
}

// The neighbours of some weighted products, ascending, each with its weighted sum of cosines.
std::pair<Array<std::int64_t>, Array<float>> around(const Array<std::int64_t>& rows_R, const Array<float>& weights_R,
                                                    const Array<std::int32_t>& near_NT,
                                                    const Array<float>& cosines_NT) {
    check(rows_R.size() == weights_R.size(), "expected as many weights as rows");
    check(near_NT.ndim() == 2 && cosines_NT.ndim() == 2 && near_NT.shape(0) == cosines_NT.shape(0) &&
              near_NT.shape(1) == cosines_NT.shape(1),
          "expected neighbours and cosines (N, T)");
    const py::ssize_t most = near_NT.shape(1);
    std::vector<Keyed<double>> met;
    met.reserve(rows_R.size() * most);
    for (py::ssize_t r = 0; r < rows_R.size(); ++r) {
        const std::int64_t row = rows_R.data()[r];
        check(row >= 0 && row < near_NT.shape(0), "expected rows of the catalogue");
        for (py::ssize_t t = row * most; t < (row + 1) * most; ++t)
            if (near_NT.data()[t] >= 0)
                met.push_back({static_cast<std::uint32_t>(near_NT.data()[t]),
                               static_cast<double>(cosines_NT.data()[t]) * weights_R.data()[r]});
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
