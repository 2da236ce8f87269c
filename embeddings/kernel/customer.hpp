// profile.py: one customer, as sources and features read them.

#pragma once

#include "arrays.hpp"

namespace {

// What is bought over and over.
struct Rhythm {
    std::int32_t row;
    float since, gap, slow;
};

// The arrays of a profile.Profile, their sizes checked once for all requests; and what sources read of all products
// bought, side by side, as it comes from memory that no other request has touched for a while.
struct Customer {
    Array<std::int64_t> rows_R;
    Array<float> own_RC;
    std::vector<std::pair<Array<std::int32_t>, Array<float>>> groups;
    Scored also_bought;
    Array<float> als_D;
    std::vector<Rhythm> rhythms;
    std::vector<float> slow_R;

    Customer(Array<std::int64_t> rows, Array<float> own, std::vector<std::pair<Array<std::int32_t>, Array<float>>> by,
             Scored near, Array<float> factors)
        : rows_R(std::move(rows)),
          own_RC(std::move(own)),
          groups(std::move(by)),
          also_bought(std::move(near)),
          als_D(std::move(factors)) {
        check(own_RC.ndim() == 2 && own_RC.shape(1) == OWN && own_RC.shape(0) == rows_R.size() + 1,
              "expected figures for each product bought, and one row more");
        for (const auto& [codes_G, statistics_GC] : groups)
            check(statistics_GC.ndim() == 2 && statistics_GC.shape(0) == codes_G.size() + 1 && statistics_GC.shape(1) == GROUP,
                  "expected figures for each group, and one row more");
        check(also_bought.first.size() == also_bought.second.size(), "expected a score for each row");
        for (py::ssize_t r = 0; r < rows_R.size(); ++r) {
            const float* own = own_RC.data() + r * OWN;
            slow_R.push_back(own[SLOW]);
            if (own[DAYS] > 1)
                rhythms.push_back({static_cast<std::int32_t>(rows_R.data()[r]), own[SINCE], own[GAP], own[SLOW]});
        }
    }
};

}  // namespace
