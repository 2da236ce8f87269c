// profile.py: what purchases say.

#pragma once

#include <unordered_map>

#include "arrays.hpp"

namespace {

// A table of so many groups still fits memory.
constexpr std::int32_t MOST_GROUPS = 1 << 24;

// First and last moment and distinct days of what is bought over and over, met oldest first.
struct Span {
    std::int64_t first = 0, last = 0, day = 0, days = 0;

    void meet(std::int64_t at, std::int64_t today) {
        if (days == 0) first = at;
        if (days == 0 || today != day) ++days;
        last = at, day = today;
    }

    // The usual days between two, as if one more gap had been seen.
    double gap(double prior_days) const {
        const double length = static_cast<double>(last - first) / DAY;
        return (length + prior_days) / static_cast<double>(std::max<std::int64_t>(days, 1));
    }
};

// What some pieces cost; both are 0 where nobody said.
struct Paid {
    double pieces = 0, cost = 0;

    static Paid of(const Event& event) {
        return event.value > 0 && event.quantity > 0 ? Paid{event.quantity, event.value} : Paid{};
    }

    void add(const Paid& other) { pieces += other.pieces, cost += other.cost; }
};

Array<float> narrowed(const std::vector<double>& sums) {
    Array<float> slow_R(static_cast<py::ssize_t>(sums.size()));
    std::transform(sums.begin(), sums.end(), slow_R.mutable_data(), [](double sum) { return static_cast<float>(sum); });
    return slow_R;
}

// A customer's purchases, visit by visit, oldest first; a visit is what has one moment. Weights are as of the newest.
class ByVisit {
  public:
    // Of each purchase its product's place among the `count` bought, its moment, its location and what was paid. `decay` is
    // what remains of a visit's weight after a day, where no other is given.
    ByVisit(const std::vector<std::int32_t>& places_E, const std::vector<std::int64_t>& at_E,
            const std::vector<std::int32_t>& numbers_E, const std::vector<std::int32_t>& locations_E,
            const std::vector<Paid>& paid_E, py::ssize_t count, double decay)
        : count_(count) {
        purchases_.reserve(at_E.size());
        for (std::size_t e = 0; e < at_E.size(); ++e) {
            check(is_moment(at_E[e]), MOMENTS);
            check(visits_.empty() || at_E[e] >= visits_.back().at, "expected purchases, oldest first");
            if (e == 0 || numbers_E[e] != numbers_E[e - 1]) visits_.push_back({at_E[e], 0, 0});
            ++visits_.back().size;
            purchases_.push_back({places_E[e], locations_E[e], paid_E[e]});
        }
        visits_.shrink_to_fit();
        const std::vector<double> slow_V = weights(decay);
        for (std::size_t v = 0; v < slow_V.size(); ++v) visits_[v].slow = slow_V[v];
    }

    // Statistics of products, of each kind of groups, decayed visits, purchases per visit, and the median of the days
    // between visits. `decays` are those of products' weights besides the slow one.
    py::tuple statistics(const Array<std::int64_t>& rows_R, const Table<float>& products_NP, py::ssize_t gap,
                      py::ssize_t price, const Table<std::int32_t>& codes_NQ, const std::array<double, 2>& decays, double group_decay,
                      float never_days, double prior_days, const std::array<float, GROUP>& never, double usual_gap) const {
        check(rows_R.size() == count_, "expected a row for each product bought");
        check(codes_NQ.size == products_NP.size && gap >= 0 && gap < products_NP.columns,
              "expected codes (N, Q), and figures (N, P) with a column of gaps");
        check(price >= 0 && price < products_NP.columns, "expected figures with a column of prices");
        for (py::ssize_t r = 0; r < rows_R.size(); ++r)
            check(codes_NQ.holds(rows_R.data()[r]), "expected rows of the catalogue");
        // What is known of the products, from all over memory: asked for ahead.
        const py::ssize_t kinds = codes_NQ.columns;
        std::vector<float> gaps_R(count_), prices_R(count_);
        std::vector<std::vector<std::int32_t>> codes_QR(kinds, std::vector<std::int32_t>(count_));
        const auto figures = [&](py::ssize_t r) { return products_NP.row(rows_R.data()[r]); };
        const auto codes = [&](py::ssize_t r) { return codes_NQ.row(rows_R.data()[r]); };
        for (py::ssize_t r = 0; r < count_; ++r) {
            if (r + AHEAD < count_) {
                __builtin_prefetch(figures(r + AHEAD) + gap);
                __builtin_prefetch(codes(r + AHEAD));
            }
            gaps_R[r] = figures(r)[gap];
            prices_R[r] = figures(r)[price];
            for (py::ssize_t q = 0; q < kinds; ++q) codes_QR[q][r] = codes(r)[q];
        }
        const std::vector<double> lately_V = weights(group_decay);
        py::list groups;
        for (const std::vector<std::int32_t>& codes_R : codes_QR)
            groups.append(of_groups(codes_R, lately_V, prior_days, never));
        double slow = 0;
        for (const Visit& visit : visits_) slow += visit.slow;
        const double basket_size =
            static_cast<double>(purchases_.size()) / static_cast<double>(std::max<std::size_t>(visits_.size(), 1));
        return py::make_tuple(of_products(gaps_R, prices_R, {weights(decays[0]), weights(decays[1])}, never_days), groups, slow,
                              basket_size, gap_of_visits(usual_gap));
    }

    // What was bought at one location: of each product, with one more of zero; and the visits that began there.
    std::pair<Array<float>, double> at(std::int32_t location) const {
        std::vector<double> sums(count_ + 1, 0.0);
        double visits = 0;
        const auto here = [&](const Purchase& one) { return location >= 0 && one.location == location; };
        const Purchase* line = purchases_.data();
        for (const Visit& visit : visits_) {
            if (here(*line)) visits += visit.slow;
            for (const Purchase* end = line + visit.size; line < end; ++line)
                if (here(*line)) sums[line->place] += visit.slow;
        }
        return {narrowed(sums), visits};
    }

    // What was bought at about the same time of the day: the less the further from it, nothing from so many seconds on,
    // and of other days of the week a share. Of each product, with one more of zero; of visits; and of all purchases.
    std::tuple<Array<float>, double, double> at_hour(std::int64_t moment, double seconds, double other_days) const {
        check(seconds > 0, "expected a length of time");
        check(is_moment(moment), MOMENTS);
        std::vector<double> sums(count_ + 1, 0.0);
        double visits = 0, purchases = 0;
        const Purchase* line = purchases_.data();
        for (const Visit& visit : visits_) {
            const Purchase* end = line + visit.size;
            double share = 1 - beside<1>(moment - visit.at) / seconds;
            if (share > 0) {
                if (beside<7>(moment - visit.at) > DAY / 2) share *= other_days;
                const double counts = visit.slow * share;
                visits += counts;
                for (; line < end; ++line) {
                    sums[line->place] += counts;
                    purchases += counts;
                }
            }
            line = end;
        }
        return {narrowed(sums), visits, purchases};
    }

    // The location with the largest decayed number of visits, of the newest of them where several have as many; of some
    // locations, ascending, if these are given. -1 if there was no visit at any.
    std::int32_t usual_location(double decay, const std::optional<Array<std::int64_t>>& among) const {
        const std::vector<double> weights_V = weights(decay);
        std::unordered_map<std::int32_t, double> visits;
        const Purchase* line = purchases_.data();
        for (std::size_t v = 0; v < visits_.size(); ++v) {
            const std::int32_t location = line->location;
            line += visits_[v].size;
            if (location >= 0 && (!among || std::binary_search(among->data(), among->data() + among->size(), location)))
                visits[location] += weights_V[v];
        }
        std::int32_t usual = -1;
        double most = 0;
        line = purchases_.data() + purchases_.size();
        for (std::size_t v = visits_.size(); v-- > 0;) {
            line -= visits_[v].size;
            const auto found = visits.find(line->location);
            if (found != visits.end() && found->second > most) usual = found->first, most = found->second;
        }
        return usual;
    }

    // The moment of the newest purchase; 0 if there is none.
    std::int64_t newest() const { return visits_.empty() ? 0 : visits_.back().at; }

  private:
    struct Visit {
        std::int64_t at, size;
        double slow;
    };

    struct Purchase {
        std::int32_t place, location;
        Paid paid;
    };

    // What remains of each visit's weight.
    std::vector<double> weights(double decay) const {
        std::vector<double> weights_V;
        const double rate = std::log(decay);
        for (const Visit& visit : visits_)
            weights_V.push_back(std::exp(rate * static_cast<double>(newest() - visit.at) / DAY));
        return weights_V;
    }

    // The products bought, as in OWN, (R + 1, OWN), the last row of one never bought.
    Array<float> of_products(const std::vector<float>& gaps_R, const std::vector<float>& prices_R,
                             const std::array<std::vector<double>, 2>& decayed_V,
                             float never_days) const {
        struct Sums {
            Span span;
            std::size_t last = 0;
            std::int64_t times = 0, in_visits = 0;
            double slow = 0, middling = 0, fast = 0;
            Paid paid;
        };
        std::vector<Sums> sums_R(count_);
        const Purchase* line = purchases_.data();
        for (std::size_t v = 0; v < visits_.size(); ++v) {
            const Visit& visit = visits_[v];
            const std::int64_t day = day_of(visit.at);
            for (const Purchase* end = line + visit.size; line < end; ++line) {
                Sums& sums = sums_R[line->place];
                sums.span.meet(visit.at, day);
                sums.last = v;
                ++sums.times;
                sums.in_visits += visit.size;
                sums.slow += visit.slow;
                sums.paid.add(line->paid);
                sums.middling += decayed_V[0][v];
                sums.fast += decayed_V[1][v];
            }
        }
        Array<float> own_RC({count_ + 1, py::ssize_t{OWN}});
        std::fill_n(own_RC.mutable_data(), own_RC.size(), 0.0f);
        for (py::ssize_t r = 0; r < count_; ++r) {
            const Sums& sums = sums_R[r];
            float* out = own_RC.mutable_data(r, 0);
            out[TIMES] = static_cast<float>(sums.times);
            out[SLOW] = static_cast<float>(sums.slow);
            out[MIDDLING] = static_cast<float>(sums.middling);
            out[FAST] = static_cast<float>(sums.fast);
            out[DAYS] = static_cast<float>(sums.span.days);
            out[SINCE] = static_cast<float>(static_cast<double>(newest() - sums.span.last) / DAY);
            out[GAP] = static_cast<float>(sums.span.gap(gaps_R[r]));
            out[VISITS_SINCE] = static_cast<float>(visits_.size() - 1 - sums.last);
            out[PRICE] = sums.paid.pieces > 0 ? static_cast<float>(sums.paid.cost / sums.paid.pieces) : prices_R[r];
            out[BASKET_SIZE] = static_cast<float>(static_cast<double>(sums.in_visits) / static_cast<double>(sums.times));
        }
        own_RC.mutable_data(count_, 0)[SINCE] = never_days;
        return own_RC;
    }

    // The groups of products bought: their codes, ascending, and their figures (G + 1, GROUP), the last row that of a group
    // never bought, which the unknown group 0 has too.
    py::tuple of_groups(const std::vector<std::int32_t>& codes_R, const std::vector<double>& lately_V,
                        double prior_days, const std::array<float, GROUP>& never) const {
        std::vector<std::int32_t> place_of;
        for (const std::int32_t code : codes_R) {
            check(code >= 0 && code < MOST_GROUPS, "expected codes of groups, below 2**24, or 0");
            if (static_cast<std::size_t>(code) >= place_of.size()) place_of.resize(code + 1, -1);
            place_of[code] = 0;
        }
        std::vector<std::int32_t> codes;
        for (std::size_t code = 0; code < place_of.size(); ++code) {
            if (place_of[code] < 0) continue;
            place_of[code] = static_cast<std::int32_t>(codes.size());
            codes.push_back(static_cast<std::int32_t>(code));
        }
        struct Sums {
            Span span;
            double lately = 0, slow = 0;
        };
        std::vector<Sums> sums_G(codes.size());
        const Purchase* line = purchases_.data();
        for (std::size_t v = 0; v < visits_.size(); ++v) {
            const Visit& visit = visits_[v];
            const std::int64_t day = day_of(visit.at);
            for (const Purchase* end = line + visit.size; line < end; ++line) {
                Sums& sums = sums_G[place_of[codes_R[line->place]]];
                sums.span.meet(visit.at, day);
                sums.lately += lately_V[v];
                sums.slow += visit.slow;
            }
        }
        Array<float> statistics_GC({static_cast<py::ssize_t>(codes.size()) + 1, GROUP});
        for (std::size_t g = 0; g <= codes.size(); ++g) {
            float* out = statistics_GC.mutable_data(static_cast<py::ssize_t>(g), 0);
            if (g == codes.size() || codes[g] == 0) {
                std::copy(never.begin(), never.end(), out);
                continue;
            }
            const Sums& sums = sums_G[g];
            out[0] = static_cast<float>(sums.lately);
            out[1] = static_cast<float>(sums.slow);
            out[2] = static_cast<float>(static_cast<double>(newest() - sums.span.last) / DAY);
            out[3] = static_cast<float>(sums.span.gap(prior_days));
        }
        return py::make_tuple(array_of(codes), statistics_GC);
    }

    // The median of the days between visits, or what is usual where there are fewer than three.
    double gap_of_visits(double usual_gap) const {
        std::vector<double> gaps_V;
        for (std::size_t v = 1; v < visits_.size(); ++v)
            gaps_V.push_back(static_cast<double>(visits_[v].at - visits_[v - 1].at) / DAY);
        if (gaps_V.size() < 2) return usual_gap;
        const std::size_t half = gaps_V.size() / 2;
        std::sort(gaps_V.begin(), gaps_V.end());
        return gaps_V.size() % 2 ? gaps_V[half] : (gaps_V[half - 1] + gaps_V[half]) / 2;
    }

    // How many seconds are missing to, or left over from, so many whole days.
    template <std::int64_t days>
    static double beside(std::int64_t seconds) {
        constexpr std::int64_t period = days * static_cast<std::int64_t>(DAY);
        const std::int64_t over = std::abs(seconds) % period;
        return static_cast<double>(std::min(over, period - over));
    }

    py::ssize_t count_;
    std::vector<Visit> visits_;
    std::vector<Purchase> purchases_;  // of one visit after the other
};

}  // namespace
