// profile.py: what a history says.

#pragma once

#include "arrays.hpp"

namespace {

// Visits among purchases, oldest first: a visit is what has one moment.
struct Visits {
    std::vector<std::int64_t> at_V, day_V, lines_V;
    std::vector<py::ssize_t> visit_E;

    explicit Visits(const Array<std::int64_t>& at_E) : visit_E(at_E.size()) {
        for (py::ssize_t e = 0; e < at_E.size(); ++e) {
            if (e == 0 || at_E.data()[e] != at_E.data()[e - 1]) {
                at_V.push_back(at_E.data()[e]);
                day_V.push_back(day_of(at_E.data()[e]));
                lines_V.push_back(0);
            }
            ++lines_V.back();
            visit_E[e] = static_cast<py::ssize_t>(at_V.size()) - 1;
        }
    }

    // What remains of each visit's weight as of a moment.
    std::vector<double> weights(double decay, std::int64_t newest) const {
        std::vector<double> weights_V(at_V.size());
        const double rate = std::log(decay);
        std::transform(at_V.begin(), at_V.end(), weights_V.begin(),
                       [&](std::int64_t at) { return std::exp(rate * static_cast<double>(newest - at) / DAY); });
        return weights_V;
    }
};

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

// The products bought, as in OWN, (R + 1, 9), the last row of one never bought.
Array<float> figures_of_products(const Visits& visits, const Array<std::int64_t>& places_E,
                                 const Array<std::int64_t>& at_E, std::int64_t newest, const std::vector<float>& gaps_R,
                                 const std::array<std::vector<double>, 3>& weights, float never_days) {
    const auto count = static_cast<py::ssize_t>(gaps_R.size());
    std::vector<Span> spans(count);
    std::vector<py::ssize_t> last_visit(count, -1);
    std::vector<std::array<double, 3>> sums(count, {0, 0, 0});
    std::vector<std::int64_t> times(count, 0), lines(count, 0);
    for (py::ssize_t e = 0; e < at_E.size(); ++e) {
        const std::int64_t place = places_E.data()[e];
        const py::ssize_t visit = visits.visit_E[e];
        for (std::size_t c = 0; c < 3; ++c) sums[place][c] += weights[c][visit];
        spans[place].meet(at_E.data()[e], visits.day_V[visit]);
        last_visit[place] = visit;
        ++times[place];
        lines[place] += visits.lines_V[visit];
    }
    Array<float> own_RC({count + 1, py::ssize_t{OWN}});
    std::fill_n(own_RC.mutable_data(), own_RC.size(), 0.0f);
    for (py::ssize_t r = 0; r < count; ++r) {
        float* out = own_RC.mutable_data(r, 0);
        out[TIMES] = static_cast<float>(times[r]);
        for (std::size_t c = 0; c < 3; ++c) out[SLOW + c] = static_cast<float>(sums[r][c]);
        out[DAYS] = static_cast<float>(spans[r].days);
        out[SINCE] = static_cast<float>(static_cast<double>(newest - spans[r].last) / DAY);
        out[GAP] = static_cast<float>(spans[r].gap(gaps_R[r]));
        out[VISITS_SINCE] = static_cast<float>(static_cast<py::ssize_t>(visits.at_V.size()) - 1 - last_visit[r]);
        out[LINES] = static_cast<float>(static_cast<double>(lines[r]) / static_cast<double>(times[r]));
    }
    own_RC.mutable_data(count, 0)[SINCE] = never_days;
    return own_RC;
}

// The groups of products bought: their codes, ascending, and their figures (G + 1, 4), the last row that of a group
// never bought, which the unknown group 0 has too.
py::tuple figures_of_groups(const Visits& visits, const std::vector<std::int32_t>& codes_R,
                            const Array<std::int64_t>& places_E, const Array<std::int64_t>& at_E, std::int64_t newest,
                            const std::vector<double>& lately, const std::vector<double>& slow, double prior_days,
                            const std::array<float, 4>& never) {
    std::vector<std::int32_t> place_of;
    for (const std::int32_t code : codes_R) {
        check(code >= 0, "expected codes of groups, or 0");
        if (static_cast<std::size_t>(code) >= place_of.size()) place_of.resize(code + 1, -1);
        place_of[code] = 0;
    }
    std::vector<std::int32_t> codes;
    for (std::size_t code = 0; code < place_of.size(); ++code) {
        if (place_of[code] < 0) continue;
        place_of[code] = static_cast<std::int32_t>(codes.size());
        codes.push_back(static_cast<std::int32_t>(code));
    }
    std::vector<Span> spans(codes.size());
    std::vector<std::array<double, 2>> sums(codes.size(), {0, 0});
    for (py::ssize_t e = 0; e < at_E.size(); ++e) {
        const std::int32_t g = place_of[codes_R[places_E.data()[e]]];
        const py::ssize_t visit = visits.visit_E[e];
        sums[g][0] += lately[visit];
        sums[g][1] += slow[visit];
        spans[g].meet(at_E.data()[e], visits.day_V[visit]);
    }
    Array<float> figures_GC({static_cast<py::ssize_t>(codes.size()) + 1, GROUP});
    for (std::size_t g = 0; g <= codes.size(); ++g) {
        float* out = figures_GC.mutable_data(static_cast<py::ssize_t>(g), 0);
        if (g == codes.size() || codes[g] == 0) {
            std::copy(never.begin(), never.end(), out);
            continue;
        }
        out[0] = static_cast<float>(sums[g][0]);
        out[1] = static_cast<float>(sums[g][1]);
        out[2] = static_cast<float>(static_cast<double>(newest - spans[g].last) / DAY);
        out[3] = static_cast<float>(spans[g].gap(prior_days));
    }
    return py::make_tuple(array_of(codes), figures_GC);
}

// What purchases, oldest first, say as of the newest: figures of products, of each kind of groups, decayed visits,
// purchases per visit, and the median of the days between visits.
py::tuple profile(const Array<std::int64_t>& rows_R, const Array<std::int64_t>& places_E,
                  const Array<std::int64_t>& at_E, std::int64_t newest, const Array<float>& products_NP,
                  py::ssize_t gap, const Array<std::int32_t>& codes_NQ, const std::array<double, 3>& decays,
                  double group_decay, float never_days, double prior_days, const std::array<float, 4>& never,
                  double usual_gap) {
    check(places_E.size() == at_E.size(), "expected a place for each purchase");
    check(codes_NQ.ndim() == 2 && products_NP.ndim() == 2 && codes_NQ.shape(0) == products_NP.shape(0) && gap >= 0 &&
              gap < products_NP.shape(1),
          "expected codes (N, Q), and figures (N, P) with a column of gaps");
    for (py::ssize_t e = 0; e < places_E.size(); ++e)
        check(places_E.data()[e] >= 0 && places_E.data()[e] < rows_R.size(),
              "expected places among the products bought");
    for (py::ssize_t r = 0; r < rows_R.size(); ++r)
        check(rows_R.data()[r] >= 0 && rows_R.data()[r] < codes_NQ.shape(0), "expected rows of the catalogue");
    // What is known of the products, from all over memory: asked for ahead.
    const py::ssize_t bought = rows_R.size(), kinds = codes_NQ.shape(1);
    std::vector<float> gaps_R(bought);
    std::vector<std::vector<std::int32_t>> codes_QR(kinds, std::vector<std::int32_t>(bought));
    const auto figure = [&](py::ssize_t r) {
        return products_NP.data() + rows_R.data()[r] * products_NP.shape(1) + gap;
    };
    const auto codes = [&](py::ssize_t r) { return codes_NQ.data() + rows_R.data()[r] * kinds; };
    for (py::ssize_t r = 0; r < bought; ++r) {
        if (r + AHEAD < bought) {
            __builtin_prefetch(figure(r + AHEAD));
            __builtin_prefetch(codes(r + AHEAD));
        }
        gaps_R[r] = *figure(r);
        for (py::ssize_t q = 0; q < kinds; ++q) codes_QR[q][r] = codes(r)[q];
    }
    const Visits visits(at_E);
    std::array<std::vector<double>, 3> weights;
    for (std::size_t c = 0; c < 3; ++c) weights[c] = visits.weights(decays[c], newest);
    const std::vector<double> lately = visits.weights(group_decay, newest);
    py::list groups;
    for (const std::vector<std::int32_t>& codes_R : codes_QR)
        groups.append(
            figures_of_groups(visits, codes_R, places_E, at_E, newest, lately, weights[0], prior_days, never));
    const std::size_t met = visits.at_V.size();
    std::vector<double> gaps_V;
    for (std::size_t v = 1; v < met; ++v)
        gaps_V.push_back(static_cast<double>(visits.at_V[v] - visits.at_V[v - 1]) / DAY);
    if (gaps_V.size() > 1) {
        const std::size_t half = gaps_V.size() / 2;
        std::sort(gaps_V.begin(), gaps_V.end());
        usual_gap = gaps_V.size() % 2 ? gaps_V[half] : (gaps_V[half - 1] + gaps_V[half]) / 2;
    }
    return py::make_tuple(figures_of_products(visits, places_E, at_E, newest, gaps_R, weights, never_days), groups,
                          std::accumulate(weights[0].begin(), weights[0].end(), 0.0),
                          static_cast<double>(at_E.size()) / static_cast<double>(std::max<std::size_t>(met, 1)),
                          usual_gap);
}

Array<float> narrowed(const std::vector<double>& sums) {
    Array<float> slow_R(static_cast<py::ssize_t>(sums.size()));
    std::transform(sums.begin(), sums.end(), slow_R.mutable_data(), [](double sum) { return static_cast<float>(sum); });
    return slow_R;
}

// What was bought at one location, decayed: of each product, with one more of zero, and the visits that began there.
std::pair<Array<float>, double> here(const Array<std::int64_t>& places_E, const Array<std::int64_t>& at_E,
                                     const Array<std::int32_t>& locations_E, std::int64_t newest, py::ssize_t count,
                                     std::int32_t location, double decay) {
    check(places_E.size() == at_E.size(), "expected a place for each purchase");
    check(locations_E.size() == at_E.size(), "expected a location for each purchase");
    std::vector<double> sums(count + 1, 0.0);
    double visits = 0, remains = 0;
    const double rate = std::log(decay);
    for (py::ssize_t e = 0; e < at_E.size(); ++e) {
        const bool begins = e == 0 || at_E.data()[e] != at_E.data()[e - 1];
        if (begins) remains = -1;
        if (location < 0 || locations_E.data()[e] != location) continue;
        if (remains < 0) remains = std::exp(rate * static_cast<double>(newest - at_E.data()[e]) / DAY);
        const std::int64_t place = places_E.data()[e];
        check(place >= 0 && place < count, "expected places among the products bought");
        sums[place] += remains;
        if (begins) visits += remains;
    }
    return {narrowed(sums), visits};
}

// Purchases by visit, each with what remains of its weight as of the newest: what is asked by the hour at every
// request.
class ByVisit {
  public:
    ByVisit(const Array<std::int64_t>& places_E, const Array<std::int64_t>& at_E, std::int64_t newest,
            py::ssize_t count, double decay)
        : count_(count) {
        check(places_E.size() == at_E.size(), "expected a place for each purchase");
        const Visits visits(at_E);
        const std::vector<double> weights_V = visits.weights(decay, newest);
        for (py::ssize_t e = 0; e < places_E.size(); ++e) {
            check(places_E.data()[e] >= 0 && places_E.data()[e] < count, "expected places among the products bought");
            places_.push_back(static_cast<std::int32_t>(places_E.data()[e]));
        }
        for (std::size_t v = 0; v < visits.at_V.size(); ++v)
            visits_.push_back({visits.at_V[v], visits.lines_V[v], weights_V[v]});
    }

    // What was bought at about the same time of the day: the less the further from it, nothing from so many seconds on,
    // and of other days of the week a share. Of each product, with one more of zero; of visits; and of all purchases.
    std::tuple<Array<float>, double, double> at_hour(std::int64_t moment, double seconds, double other_days) const {
        check(seconds > 0, "expected a length of time");
        std::vector<double> sums(count_ + 1, 0.0);
        double visits = 0, lines = 0;
        const std::int32_t* place = places_.data();
        for (const Visit& visit : visits_) {
            const std::int32_t* end = place + visit.lines;
            double share = 1 - beside<1>(moment - visit.at) / seconds;
            if (share > 0) {
                if (beside<7>(moment - visit.at) > DAY / 2) share *= other_days;
                const double counts = visit.weight * share;
                visits += counts;
                for (const std::int32_t* line = place; line < end; ++line) {
                    sums[*line] += counts;
                    lines += counts;
                }
            }
            place = end;
        }
        return {narrowed(sums), visits, lines};
    }

  private:
    struct Visit {
        std::int64_t at, lines;
        double weight;
    };

    // How many seconds are missing to, or left over from, so many whole days.
    template <std::int64_t days>
    static double beside(std::int64_t seconds) {
        constexpr std::int64_t period = days * static_cast<std::int64_t>(DAY);
        const std::int64_t over = std::abs(seconds) % period;
        return static_cast<double>(std::min(over, period - over));
    }

    py::ssize_t count_;
    std::vector<Visit> visits_;
    std::vector<std::int32_t> places_;  // of one visit after the other
};

}  // namespace
