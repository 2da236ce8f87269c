// features.py: what the ranker reads of each candidate.

#pragma once

#include "customer.hpp"

namespace {

// The tables of a release that features are read from, and the reading itself; the columns are those of features.RANKER_FEATURES.
class FeatureReader {
  public:
    FeatureReader(Table<float> products_NP, Table<std::int32_t> groups_NQ, Array<float> lifts_GG,
                  Table<float> vectors_ND, Table<float> als_NT, Array<std::int64_t> offsets,
                  Array<std::int32_t> sold_L, Array<float> popular_L, Array<float> month_L, Table<float> hazards_NH,
                  Array<float> hazards_GH, std::vector<float> hazard_ends, py::ssize_t gap, py::ssize_t price,
                  py::ssize_t narrow, py::ssize_t wide)
        : products_NP_(std::move(products_NP)),
          groups_NQ_(std::move(groups_NQ)),
          lifts_GG_(std::move(lifts_GG)),
          vectors_ND_(std::move(vectors_ND)),
          als_NT_(std::move(als_NT)),
          offsets_(std::move(offsets)),
          sold_L_(std::move(sold_L)),
          popular_L_(std::move(popular_L)),
          month_L_(std::move(month_L)),
          hazards_NH_(std::move(hazards_NH)),
          hazards_GH_(std::move(hazards_GH)),
          hazard_ends_(std::move(hazard_ends)),
          gap_(gap),
          price_(price),
          narrow_(narrow),
          wide_(wide) {
        for (const std::int64_t size : {groups_NQ_.size, vectors_ND_.size, als_NT_.size, hazards_NH_.size})
            check(size == products_NP_.size, "expected tables (N, …) of all products");
        check(lifts_GG_.ndim() == 2 && lifts_GG_.shape(0) == lifts_GG_.shape(1) && lifts_GG_.size() > 0,
              "expected lifts (G, G)");
        check(sold_L_.size() == popular_L_.size() && sold_L_.size() == month_L_.size(),
              "expected figures for each product sold at a location");
        check(offsets_.size() >= 1 && offsets_.data()[0] >= 0 &&
                  std::is_sorted(offsets_.data(), offsets_.data() + offsets_.size()) &&
                  offsets_.data()[offsets_.size() - 1] == sold_L_.size(),
              "expected offsets that ascend to what is sold at the locations");
        check(gap_ >= 0 && gap_ < products_NP_.columns && price_ >= 0 &&
                  price_ < products_NP_.columns && narrow_ >= 0 && narrow_ < groups_NQ_.columns && wide_ >= 0 && wide_ < groups_NQ_.columns,
              "expected columns of the tables");
        check(hazards_NH_.columns == static_cast<py::ssize_t>(hazard_ends_.size()) + 1 && hazards_GH_.ndim() == 2 &&
                  hazards_GH_.shape(0) > 0 && hazards_GH_.shape(1) == hazards_NH_.columns &&
                  std::is_sorted(hazard_ends_.begin(), hazard_ends_.end()),
              "expected hazards of each span of days");
        for (const Array<std::int32_t>* codes : {&groups_NQ_.base, &groups_NQ_.tail})
            for (py::ssize_t n = 0; n < codes->size(); ++n) check(codes->data()[n] >= 0, "expected codes of groups, or 0");
    }

    // How many columns `read` writes, besides those that are the same for all candidates.
    py::ssize_t columns() const {
        return OWN + 2 + GROUP * groups() + products_NP_.columns + 3 + 2 + 2 + 3 + groups() + 2;
    }

    // The features of some candidates (K, F); `list` is the number of the location's list of what is sold there, or -1;
    // `away` are days since the newest purchase.
    void read(const Customer& customer, const Array<float>& here_R, const Array<float>& hour_R,
              const Array<std::int64_t>& rows_K, const Array<float>& customer_D, std::int32_t list,
              const Array<std::int32_t>& promoted, const Scored& bought_together, const Array<std::int64_t>& meant,
              const Array<std::int64_t>& looked, const Scored& shown, float away, const std::vector<float>& context, Array<float>& features_KF) const {
        const py::ssize_t width = columns() + static_cast<py::ssize_t>(context.size());
        const auto count = static_cast<std::size_t>(rows_K.size());
        check(features_KF.ndim() == 2 && features_KF.shape(0) == rows_K.size() && features_KF.shape(1) == width,
              "expected room for all features (K, F)");
        for (const Array<float>* part : {&here_R, &hour_R})
            check(part->size() == customer.rows_R.size() + 1, "expected figures for each product bought, and one more");
        check(customer_D.size() == vectors_ND_.columns && customer.als_D.size() == als_NT_.columns,
              "expected a customer's vectors of the products' lengths");
        check(static_cast<py::ssize_t>(customer.groups.size()) == groups(), "expected figures for each kind of group");
        for (const Scored* scored : {&bought_together, &shown})
            check(scored->first.size() == scored->second.size(), "expected a score for each row");
        check(list >= -1 && list < offsets_.size() - 1, "expected a list of what is sold somewhere, or -1");
        for (const Array<std::int64_t>* rows : {&rows_K, &meant})
            for (py::ssize_t k = 0; k < rows->size(); ++k)
                check(products_NP_.holds(rows->data()[k]), "expected rows of the catalogue");

        const std::int64_t* rows = rows_K.data();
        const py::ssize_t begin = list < 0 ? 0 : offsets_.data()[list];
        const auto sold = static_cast<std::size_t>(list < 0 ? 0 : offsets_.data()[list + 1] - begin);
        const auto places_in = [&](const auto& keys, const auto* wanted) {
            std::vector<std::uint32_t> places_K(count);
            find_all(keys, wanted, count, places_K.data());
            return places_K;
        };
        const auto own_K = places_in(keys_of(customer.rows_R), rows);
        const auto entries_K = places_in(Keys<std::int32_t>{sold_L_.data() + begin, sold}, rows);
        const auto also_bought_K = places_in(keys_of(customer.also_bought.first), rows);
        const auto promoted_K = places_in(keys_of(promoted), rows);
        const auto bought_together_K = places_in(keys_of(bought_together.first), rows);
        const auto looked_K = places_in(keys_of(looked), rows);
        const auto shown_K = places_in(keys_of(shown.first), rows);
        std::vector<std::vector<std::uint32_t>> groups_QK;
        std::vector<std::int32_t> codes_K(count);
        for (py::ssize_t q = 0; q < groups(); ++q) {
            for (std::size_t k = 0; k < count; ++k) codes_K[k] = groups_NQ_.row(rows[k])[q];
            groups_QK.push_back(places_in(keys_of(customer.groups[q].first), codes_K.data()));
        }

        const auto never = static_cast<std::uint32_t>(customer.rows_R.size());
        const py::ssize_t dimensions = vectors_ND_.columns, factors = als_NT_.columns, figures = products_NP_.columns;
        for (std::size_t k = 0; k < count; ++k) {
            if (k + AHEAD < count) {
                ask_for(rows[k + AHEAD]);
                __builtin_prefetch(customer.own_RC.data() + own_K[k + AHEAD] * OWN);
                if (entries_K[k + AHEAD] != sold) {
                    __builtin_prefetch(popular_L_.data() + begin + entries_K[k + AHEAD]);
                    __builtin_prefetch(month_L_.data() + begin + entries_K[k + AHEAD]);
                }
            }
            const std::int64_t row = rows[k];
            float* out = features_KF.mutable_data() + static_cast<py::ssize_t>(k) * width;
            out = std::copy_n(customer.own_RC.data() + own_K[k] * OWN, OWN, out);
            float* own = out - OWN;
            *out++ = here_R.data()[own_K[k]];
            *out++ = hour_R.data()[own_K[k]];
            for (py::ssize_t q = 0; q < groups(); ++q)
                out = std::copy_n(customer.groups[q].second.data() + groups_QK[q][k] * GROUP, GROUP, out);
            const float* product = products_NP_.row(row);
            out = std::copy_n(product, figures, out);
            if (own_K[k] == never) {  // what was never bought is taken to have everybody's gap and price
                own[GAP] = product[gap_];
                own[PRICE] = product[price_];
            }
            const bool here = entries_K[k] != sold;
            *out++ = here ? popular_L_.data()[begin + entries_K[k]] : 0;
            *out++ = here ? month_L_.data()[begin + entries_K[k]] : 0;
            *out++ = value_of(customer.also_bought, also_bought_K[k]);
            out = of_hazards(out, row, own_K[k] == never ? -1 : own[SINCE] + away);
            out = std::copy(context.begin(), context.end(), out);
            *out++ = dot(vectors_ND_.row(row), customer_D.data(), dimensions);
            *out++ = dot(als_NT_.row(row), customer.als_D.data(), factors);
            *out++ = promoted_K[k] != static_cast<std::uint32_t>(promoted.size());
            *out++ = value_of(bought_together, bought_together_K[k]);
            out = of_session(out, groups_NQ_.row(row), meant);
            *out++ = looked_K[k] != static_cast<std::uint32_t>(looked.size());
            *out++ = value_of(shown, shown_K[k]);
        }
    }

  private:
    py::ssize_t groups() const { return groups_NQ_.columns; }

    void ask_for(std::int64_t row) const {
        for (const Table<float>* table : {&vectors_ND_, &als_NT_, &products_NP_})
            prefetch(table->row(row), table->columns);
        __builtin_prefetch(groups_NQ_.row(row));
    }

    // How likely who bought it so many days ago buys it again, and anything of its narrow group; 0 if it never was.
    float* of_hazards(float* out, std::int64_t row, float days) const {
        if (days < 0) return std::fill_n(out, 2, 0.0f);
        const std::int32_t code = groups_NQ_.row(row)[narrow_];  // a group that came later is like any other
        const auto span = std::lower_bound(hazard_ends_.begin(), hazard_ends_.end(), days) - hazard_ends_.begin();
        *out++ = hazards_NH_.row(row)[span];
        *out++ = hazards_GH_.data()[(code < hazards_GH_.shape(0) ? code : 0) * hazards_GH_.shape(1) + span];
        return out;
    }

    // The score at a place, 0 past the last.
    static float value_of(const Scored& scored, std::uint32_t place) {
        return place == static_cast<std::uint32_t>(scored.second.size()) ? 0 : scored.second.data()[place];
    }

    // How much it goes with what the session is about, and whether it shares a group with any of that.
    float* of_session(float* out, const std::int32_t* codes, const Array<std::int64_t>& meant) const {
        double lift = 0;
        float* goes_with = out++;
        std::fill_n(out, groups(), 0.0f);
        for (py::ssize_t m = 0; m < meant.size(); ++m) {
            const std::int32_t* theirs = groups_NQ_.row(meant.data()[m]);
            lift += lift_of(theirs[wide_], codes[wide_]);
            for (py::ssize_t g = 0; g < groups(); ++g)
                if (codes[g] > 0 && codes[g] == theirs[g]) out[g] = 1;
        }
        *goes_with = meant.size() ? static_cast<float>(lift / static_cast<double>(meant.size())) : 0;
        return out + groups();
    }

    // How much two wide groups go together; a group that came after the lifts were counted was never sold.
    float lift_of(std::int32_t one, std::int32_t other) const {
        const py::ssize_t known = lifts_GG_.shape(0);
        return lifts_GG_.data()[(one < known ? one : 0) * known + (other < known ? other : 0)];
    }

    Table<float> products_NP_;
    Table<std::int32_t> groups_NQ_;
    Array<float> lifts_GG_;
    Table<float> vectors_ND_, als_NT_;
    Array<std::int64_t> offsets_;
    Array<std::int32_t> sold_L_;
    Array<float> popular_L_, month_L_;
    Table<float> hazards_NH_;
    Array<float> hazards_GH_;
    std::vector<float> hazard_ends_;
    py::ssize_t gap_, price_, narrow_, wide_;
};

// How often some products were bought at some locations, all together: the sum of `times_L` over the locations' lists of
// the products `sold_L` sold there.
std::vector<double> sold_at(const Array<std::int64_t>& offsets, const Array<std::int32_t>& sold_L,
                            const Array<float>& times_L, const std::vector<std::int64_t>& lists,
                            const std::vector<std::int64_t>& rows) {
    check(times_L.size() == sold_L.size(), "expected a number for each product sold");
    std::vector<double> times(rows.size());
    for (const std::int64_t list : lists) {
        check(list >= 0 && list + 1 < offsets.size(), "expected numbers of the lists");
        const std::int64_t begin = offsets.data()[list], end = offsets.data()[list + 1];
        check(0 <= begin && begin <= end && end <= sold_L.size(), "expected offsets into what is sold");
        const Keys<std::int32_t> sold{sold_L.data() + begin, static_cast<std::size_t>(end - begin)};
        for (std::size_t k = 0; k < rows.size(); ++k) {
            const std::size_t place = sold.find(rows[k]);
            if (place != sold.size) times[k] += times_L.data()[begin + static_cast<std::int64_t>(place)];
        }
    }
    return times;
}

}  // namespace
