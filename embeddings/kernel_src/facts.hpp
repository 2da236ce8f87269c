// facts.py: what the ranker reads of each candidate.

#pragma once

#include "arrays.hpp"

namespace {

// The tables of a release that facts are read from, and the reading itself; the columns are those of facts.FACTS.
class Facts {
  public:
    Facts(Array<float> products_NP, Array<std::int32_t> rhythms_NQ, Array<float> lifts_GG, Array<float> vectors_ND,
          Array<float> tastes_NT, Array<std::int64_t> offsets, Array<std::int32_t> carried_L, Array<float> popular_L,
          Array<float> month_L, py::ssize_t gap, py::ssize_t wide)
        : products_NP_(std::move(products_NP)),
          rhythms_NQ_(std::move(rhythms_NQ)),
          lifts_GG_(std::move(lifts_GG)),
          vectors_ND_(std::move(vectors_ND)),
          tastes_NT_(std::move(tastes_NT)),
          offsets_(std::move(offsets)),
          carried_L_(std::move(carried_L)),
          popular_L_(std::move(popular_L)),
          month_L_(std::move(month_L)),
          gap_(gap),
          wide_(wide) {
        for (const py::array& table :
             std::initializer_list<py::array>{products_NP_, rhythms_NQ_, vectors_ND_, tastes_NT_})
            check(table.ndim() == 2 && table.shape(0) == products_NP_.shape(0),
                  "expected tables (N, …) of all products");
        check(lifts_GG_.ndim() == 2 && lifts_GG_.shape(0) == lifts_GG_.shape(1), "expected lifts (G, G)");
        check(carried_L_.size() == popular_L_.size() && carried_L_.size() == month_L_.size(),
              "expected figures for each entry of the assortments");
        check(offsets_.size() >= 1 && offsets_.data()[offsets_.size() - 1] == carried_L_.size(),
              "expected offsets that end with the entries of the assortments");
        check(gap_ < products_NP_.shape(1) && wide_ < rhythms_NQ_.shape(1), "expected columns of the tables");
        const std::int32_t* codes = rhythms_NQ_.data();
        for (py::ssize_t n = wide_; n < rhythms_NQ_.size(); n += rhythms_NQ_.shape(1))
            check(codes[n] >= 0 && codes[n] < lifts_GG_.shape(0), "expected lifts for every wide group");
    }

    // How many columns `read` writes, besides those that are the same for all candidates.
    py::ssize_t columns() const {
        return OWN + 1 + GROUP * groups() + products_NP_.shape(1) + 3 + 2 + 3 + groups() + 1;
    }

    void read(const Array<std::int64_t>& rows_K, const Array<float>& customer_D, const Array<float>& taste_T,
              const Array<std::int64_t>& bought_R, const Array<float>& own_RC, const Array<float>& here_R,
              const std::vector<std::pair<Array<std::int32_t>, Array<float>>>& grouped,
              const std::pair<Array<std::int64_t>, Array<float>>& alike, std::int32_t location,
              const Array<std::int32_t>& promoted, const std::pair<Array<std::int64_t>, Array<float>>& together,
              const Array<std::int64_t>& meant, const Array<std::int64_t>& looked, const Array<float>& context,
              Array<float>& facts_KF) const {
        const py::ssize_t count = rows_K.size(), products = products_NP_.shape(0), width = columns() + context.size();
        check(facts_KF.ndim() == 2 && facts_KF.shape(0) == count && facts_KF.shape(1) == width,
              "expected room for all facts (K, F)");
        check(own_RC.ndim() == 2 && own_RC.shape(1) == OWN && own_RC.shape(0) == bought_R.size() + 1 &&
                  here_R.size() == own_RC.shape(0),
              "expected figures for each product bought, and one row more");
        check(customer_D.size() == vectors_ND_.shape(1) && taste_T.size() == tastes_NT_.shape(1),
              "expected a customer's vectors of the products' lengths");
        check(static_cast<py::ssize_t>(grouped.size()) == groups(), "expected figures for each kind of group");
        for (const auto& [codes_G, figures_GC] : grouped)
            check(figures_GC.ndim() == 2 && figures_GC.shape(0) == codes_G.size() + 1 && figures_GC.shape(1) == GROUP,
                  "expected figures for each group, and one row more");
        for (const auto* scored : {&alike, &together})
            check(scored->first.size() == scored->second.size(), "expected a score for each row");
        check(location >= -1 && location < offsets_.size() - 1, "expected a location of the catalogue, or -1");
        for (const Array<std::int64_t>* rows : {&rows_K, &meant})
            for (py::ssize_t k = 0; k < rows->size(); ++k)
                check(rows->data()[k] >= 0 && rows->data()[k] < products, "expected rows of the catalogue");

        const py::ssize_t begin = location < 0 ? 0 : offsets_.data()[location];
        const auto carried = static_cast<std::size_t>(location < 0 ? 0 : offsets_.data()[location + 1] - begin);
        const Keys<std::int64_t> bought = keys_of(bought_R), near = keys_of(alike.first),
                                 beside = keys_of(together.first), seen = keys_of(looked);
        const Keys<std::int32_t> local{carried_L_.data() + begin, carried}, shown = keys_of(promoted);
        std::vector<Keys<std::int32_t>> among;
        for (const auto& [codes_G, figures_GC] : grouped) among.push_back(keys_of(codes_G));
        const auto never = static_cast<std::size_t>(bought_R.size());
        const py::ssize_t dimensions = vectors_ND_.shape(1), tastes = tastes_NT_.shape(1),
                          figures = products_NP_.shape(1);

        for (py::ssize_t k = 0; k < count; ++k) {
            if (k + AHEAD < count) ask_for(rows_K.data()[k + AHEAD]);
            const std::int64_t row = rows_K.data()[k];
            float* out = facts_KF.mutable_data() + k * width;
            const std::size_t place = bought.find(row);
            out = std::copy_n(own_RC.data() + place * OWN, OWN, out);
            float* gap = out - OWN + GAP;
            *out++ = here_R.data()[place];
            const std::int32_t* codes = rhythms_NQ_.data() + row * groups();
            for (py::ssize_t g = 0; g < groups(); ++g)
                out = std::copy_n(grouped[g].second.data() + among[g].find(codes[g]) * GROUP, GROUP, out);
            const float* product = products_NP_.data() + row * figures;
            out = std::copy_n(product, figures, out);
            if (place == never) *gap += product[gap_];  // what was never bought is taken to have everybody's gap
            const std::size_t entry = local.find(row);
            *out++ = entry == carried ? 0 : popular_L_.data()[begin + entry];
            *out++ = entry == carried ? 0 : month_L_.data()[begin + entry];
            *out++ = value_of(near, alike, row);
            out = std::copy_n(context.data(), context.size(), out);
            *out++ = dot(vectors_ND_.data() + row * dimensions, customer_D.data(), dimensions);
            *out++ = dot(tastes_NT_.data() + row * tastes, taste_T.data(), tastes);
            *out++ = shown.find(row) != shown.size;
            *out++ = value_of(beside, together, row);
            out = of_session(out, codes, meant);
            *out++ = seen.find(row) != seen.size;
        }
    }

  private:
    py::ssize_t groups() const { return rhythms_NQ_.shape(1); }

    void ask_for(std::int64_t row) const {
        for (const Array<float>* table : {&vectors_ND_, &tastes_NT_, &products_NP_})
            prefetch(table->data() + row * table->shape(1), table->shape(1));
        __builtin_prefetch(rhythms_NQ_.data() + row * groups());
    }

    static float value_of(const Keys<std::int64_t>& places, const std::pair<Array<std::int64_t>, Array<float>>& scored,
                          std::int64_t row) {
        const std::size_t place = places.find(row);
        return place == places.size ? 0 : scored.second.data()[place];
    }

    // How much it goes with what the session is about, and whether it shares a group with any of that.
    float* of_session(float* out, const std::int32_t* codes, const Array<std::int64_t>& meant) const {
        double lift = 0;
        float* goes_with = out++;
        std::fill_n(out, groups(), 0.0f);
        for (py::ssize_t m = 0; m < meant.size(); ++m) {
            const std::int32_t* theirs = rhythms_NQ_.data() + meant.data()[m] * groups();
            lift += lifts_GG_.data()[theirs[wide_] * lifts_GG_.shape(0) + codes[wide_]];
            for (py::ssize_t g = 0; g < groups(); ++g)
                if (codes[g] > 0 && codes[g] == theirs[g]) out[g] = 1;
        }
        *goes_with = meant.size() ? static_cast<float>(lift / static_cast<double>(meant.size())) : 0;
        return out + groups();
    }

    Array<float> products_NP_;
    Array<std::int32_t> rhythms_NQ_;
    Array<float> lifts_GG_, vectors_ND_, tastes_NT_;
    Array<std::int64_t> offsets_;
    Array<std::int32_t> carried_L_;
    Array<float> popular_L_, month_L_;
    py::ssize_t gap_, wide_;
};

}  // namespace
