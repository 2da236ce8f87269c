// history.py and tower_input.py: what a history holds, and what of it the customer tower reads.

#pragma once

#include <unordered_map>
#include <unordered_set>

#include "arrays.hpp"
#include "profile.hpp"

namespace {

// Codes of history.EVENT_CODES.
constexpr std::uint16_t ADD_TO_CART = 4, PURCHASE = 5, REMOVE_FROM_CART = 8, RETURN = 9;

// Which purchases were taken back: a return takes the newest of the purchases of its product that are older, wholly or
// in part. Events are met newest first.
class TakenBack {
  public:
    // Whether this event is a purchase that was taken back wholly.
    bool meets(const Event& event) {
        if (event.type == RETURN && event.product >= 0) left_[event.product] += event.quantity;
        if (event.type != PURCHASE || left_.empty()) return false;
        const auto found = left_.find(event.product);
        if (found == left_.end() || found->second <= 0) return false;
        const bool whole = found->second >= event.quantity * (1 - ROUNDING);
        found->second = std::max(found->second - event.quantity, 0.0);
        return whole;
    }

  private:
    static constexpr double ROUNDING = 1e-6;  // thirds that add up to one
    std::unordered_map<std::int32_t, double> left_;  // how much is still to be taken, by product
};

constexpr const char* PAUSES = "expected a number of seconds as the longest pause in a visit";

// What an event says of its visit, as in history.py; nothing is 0.
constexpr std::uint8_t BEGINS = 1, GOES_ON = 2;

// Tells where visits begin, one customer's purchases after each other, oldest first: as they say themselves, after a
// longer pause than there is in a visit, or after a day.
class Visits {
  public:
    explicit Visits(std::int64_t pause) : pause_(pause) {}

    bool begins(const Event& purchase) {
        const bool near = purchase.visit == GOES_ON || (purchase.visit != BEGINS && after(last_, purchase.at) <= pause_);
        // Numbers of receipts are used again on other days.
        const bool goes_on = any_ && near && after(first_, purchase.at) < LONGEST;
        if (!goes_on) first_ = purchase.at;
        any_ = true;
        last_ = purchase.at;
        return !goes_on;
    }

    // The moment of the visit's first purchase.
    std::int64_t first() const { return first_; }

  private:
    static constexpr std::uint64_t LONGEST = 86'400;

    // Moments may be any number.
    static std::uint64_t after(std::int64_t earlier, std::int64_t later) {
        return static_cast<std::uint64_t>(later) - static_cast<std::uint64_t>(earlier);
    }

    std::uint64_t pause_;
    std::int64_t first_ = 0, last_ = 0;
    bool any_ = false;
};

// The purchases of known products that were not taken back wholly, of several of one product in a visit the first: their
// places among the events, and the numbers of their visits, ascending. Customer c's events, oldest first, lie from
// offsets[c] to offsets[c + 1].
py::tuple bought(const Array<Event>& events_E, const Array<std::int64_t>& offsets, std::int64_t pause) {
    const std::int64_t* ends = offsets.data() + offsets.size();
    check(offsets.size() > 0 && offsets.data()[0] == 0 && ends[-1] == events_E.size() &&
              std::is_sorted(offsets.data(), ends),
          "expected offsets that ascend from 0 to the number of events");
    check(pause >= 0, PAUSES);
    std::vector<bool> left(static_cast<std::size_t>(events_E.size()));
    std::vector<std::int64_t> places, numbers;
    std::int64_t number = -1;
    for (py::ssize_t c = 0; c + 1 < offsets.size(); ++c) {
        TakenBack taken;
        for (std::int64_t e = offsets.data()[c + 1]; e-- > offsets.data()[c];) {
            const Event& event = events_E.data()[e];
            left[e] = !taken.meets(event) && event.type == PURCHASE && event.product >= 0;
        }
        Visits visits(pause);
        std::unordered_set<std::int32_t> met;  // in one visit
        for (std::int64_t e = offsets.data()[c]; e < offsets.data()[c + 1]; ++e) {
            const Event& event = events_E.data()[e];
            if (event.type != PURCHASE) continue;
            if (visits.begins(event)) {
                met.clear();
                ++number;
            }
            if (!left[e] || !met.insert(event.product).second) continue;
            places.push_back(e);
            numbers.push_back(number);
        }
    }
    return py::make_tuple(array_of(places), array_of(numbers));
}

// By product and span of days (N, H): how often a customer who had bought it, so many days ago for the last time, came
// again, and how often the customer bought it then. `ends` are those of the spans but the last, in days. Purchases lie
// customer after customer, visit after visit, each product once in a visit.
py::tuple repurchases(const Array<std::int64_t>& customers_E, const Array<std::int64_t>& visits_E,
                      const Array<std::int64_t>& products_E, const Array<std::int64_t>& at_E, py::ssize_t products,
                      const std::vector<double>& ends) {
    const py::ssize_t count = products_E.size(), spans = static_cast<py::ssize_t>(ends.size()) + 1;
    check(customers_E.size() == count && visits_E.size() == count && at_E.size() == count,
          "expected a customer, a visit and a moment of each purchase");
    check(products >= 0 && std::is_sorted(ends.begin(), ends.end()), "expected products, and days that ascend");
    Array<float> came_NH({products, spans}), bought_NH({products, spans});
    std::fill_n(came_NH.mutable_data(), came_NH.size(), 0.0f);
    std::fill_n(bought_NH.mutable_data(), bought_NH.size(), 0.0f);
    struct Held {
        std::int64_t product, last;
    };
    std::vector<Held> held;                           // what the customer bought before
    std::unordered_map<std::int64_t, std::size_t> places;  // where in it
    for (py::ssize_t e = 0; e < count;) {
        const std::int64_t customer = customers_E.data()[e], visit = visits_E.data()[e], now = at_E.data()[e];
        if (e == 0 || customer != customers_E.data()[e - 1]) {
            held.clear();
            places.clear();
        }
        const auto cell = [&](const Held& one) {
            const double days = static_cast<double>(now - one.last) / DAY;
            return one.product * spans + (std::lower_bound(ends.begin(), ends.end(), days) - ends.begin());
        };
        for (const Held& one : held) ++came_NH.mutable_data()[cell(one)];
        for (; e < count && customers_E.data()[e] == customer && visits_E.data()[e] == visit; ++e) {
            const std::int64_t product = products_E.data()[e];
            check(product >= 0 && product < products, "expected rows of the catalogue");
            const auto [found, fresh] = places.try_emplace(product, held.size());
            if (fresh) {
                held.push_back({product, now});
                continue;
            }
            Held& again = held[found->second];
            if (again.last == now) continue;  // bought once more in this visit
            ++bought_NH.mutable_data()[cell(again)];
            again.last = now;
        }
    }
    return py::make_tuple(came_NH, bought_NH);
}

// Events, oldest first, with others in any order, each at its place in time: after older events of the same second.
Array<Event> inserted(const Array<Event>& events_E, const Array<Event>& added_E) {
    const auto before = [](const Event& one, const Event& other) { return one.at < other.at; };
    std::vector<Event> added(added_E.data(), added_E.data() + added_E.size());
    std::stable_sort(added.begin(), added.end(), before);
    Array<Event> all_E(events_E.size() + added_E.size());
    std::merge(events_E.data(), events_E.data() + events_E.size(), added.begin(), added.end(), all_E.mutable_data(),
               before);
    return all_E;
}

// The purchases of known products, several of one product in one visit as one: rows_R, times_R, by_visit and the moment
// of the newest visit, as in Purchases.
py::tuple purchases(const Array<Event>& events_E, double decay, std::int64_t pause) {
    check(pause >= 0, PAUSES);
    std::vector<bool> gone;
    if (std::any_of(events_E.data(), events_E.data() + events_E.size(),
                    [](const Event& event) { return event.type == RETURN; })) {
        TakenBack taken;
        gone.resize(events_E.size());
        for (py::ssize_t e = events_E.size(); e-- > 0;) gone[e] = taken.meets(events_E.data()[e]);
    }
    std::vector<Keyed<std::uint32_t>> bought;
    std::vector<std::int64_t> at, rows, times;
    std::vector<std::int32_t> locations, numbers;
    std::vector<Paid> paid;
    constexpr std::int32_t AGAIN = -1;
    Visits visits(pause);
    std::int32_t number = -1;
    for (py::ssize_t e = 0; e < events_E.size(); ++e) {
        const Event& event = events_E.data()[e];
        if (event.type != PURCHASE) continue;
        number += visits.begins(event);
        if (event.product < 0 || (!gone.empty() && gone[e])) continue;
        bought.push_back({static_cast<std::uint32_t>(event.product), static_cast<std::uint32_t>(at.size())});
        at.push_back(visits.first());
        numbers.push_back(number);
        locations.push_back(event.location);
        paid.push_back(Paid::of(event));
    }
    sort_by_key(bought);
    std::vector<std::int32_t> places(at.size());
    std::int32_t last = 0;  // the visit in which this product was bought before
    std::uint32_t first = 0;  // the purchase that stands for all of it in that visit
    for (const auto& [row, purchase_E] : bought) {
        const bool other = rows.empty() || rows.back() != row;
        if (other) {
            rows.push_back(row);
            times.push_back(0);
        }
        const bool again = !other && numbers[purchase_E] == last;
        places[purchase_E] = again ? AGAIN : static_cast<std::int32_t>(rows.size()) - 1;
        times.back() += !again;
        if (again)
            paid[first].add(paid[purchase_E]);
        else
            first = purchase_E;
        last = numbers[purchase_E];
    }
    std::size_t kept = 0;
    for (std::size_t e = 0; e < places.size(); ++e) {
        if (places[e] == AGAIN) continue;
        places[kept] = places[e];
        at[kept] = at[e];
        numbers[kept] = numbers[e];
        paid[kept] = paid[e];
        locations[kept++] = locations[e];
    }
    places.resize(kept);
    at.resize(kept);
    numbers.resize(kept);
    locations.resize(kept);
    paid.resize(kept);
    ByVisit by_visit(places, at, numbers, locations, paid, static_cast<py::ssize_t>(rows.size()), decay);
    const std::int64_t newest = by_visit.newest();
    return py::make_tuple(array_of(rows), array_of(times), std::move(by_visit), newest);
}

// How often some rows were bought, as `purchases` counted it; 0 where never.
std::vector<std::int64_t> times_bought(const Array<std::int64_t>& rows_R, const Array<std::int64_t>& times_R,
                                       const std::vector<std::int64_t>& asked) {
    check(rows_R.size() == times_R.size(), "expected a number for each row");
    std::vector<std::int64_t> times;
    for (const std::int64_t row : asked) {
        const std::size_t place = keys_of(rows_R).find(row);
        times.push_back(place == static_cast<std::size_t>(rows_R.size()) ? 0 : times_R.data()[place]);
    }
    return times;
}

// The moment of the newest event of some types; 0 if there is none.
std::int64_t newest_of(const Array<Event>& events_E, const std::vector<bool>& types) {
    std::int64_t newest = 0;
    for (py::ssize_t e = 0; e < events_E.size(); ++e) {
        const Event& event = events_E.data()[e];
        if (event.type < types.size() && types[event.type]) newest = std::max(newest, event.at);
    }
    return newest;
}

// The products or the offers, ascending, of events of some types that are newer than a moment; events lie oldest first.
template <std::int32_t Event::*ROW>
Array<std::int64_t> rows_since(const Array<Event>& events_E, std::int64_t after, const std::vector<bool>& types) {
    std::vector<std::int64_t> rows;
    for (py::ssize_t e = events_E.size(); e-- > 0 && events_E.data()[e].at > after;) {
        const Event& event = events_E.data()[e];
        if (event.*ROW >= 0 && event.type < types.size() && types[event.type]) rows.push_back(event.*ROW);
    }
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    return array_of(rows);
}

// What happened since the last purchase and after a moment: the products, ascending, that were put into the basket and
// not taken out of it again, and those of events of the types of looking. Events lie oldest first.
std::pair<Array<std::int64_t>, Array<std::int64_t>> visit(const Array<Event>& events_E, std::int64_t after,
                                                         const std::vector<bool>& looking) {
    std::vector<std::int64_t> cart, looked;
    std::unordered_map<std::int32_t, bool> inside;  // as the newest event of a product's says
    for (py::ssize_t e = events_E.size(); e-- > 0 && events_E.data()[e].at > after;) {
        const Event& event = events_E.data()[e];
        if (event.type == PURCHASE) break;
        if (event.product < 0) continue;
        if (event.type == ADD_TO_CART || event.type == REMOVE_FROM_CART)
            inside.try_emplace(event.product, event.type == ADD_TO_CART);
        if (event.type < looking.size() && looking[event.type]) looked.push_back(event.product);
    }
    for (const auto& [product, is_inside] : inside)
        if (is_inside) cart.push_back(product);
    std::sort(cart.begin(), cart.end());
    std::sort(looked.begin(), looked.end());
    looked.erase(std::unique(looked.begin(), looked.end()), looked.end());
    return {array_of(cart), array_of(looked)};
}

// Whether a type is among some, and of a product.
bool is_interaction(const Event& event, const std::vector<bool>& types) {
    return event.product >= 0 && event.type < types.size() && types[event.type];
}

// Whether any of the events tells.
bool any_interaction(const Array<Event>& events_E, const std::vector<bool>& types) {
    // From the newest on: those who do anything at all have mostly done something lately.
    TakenBack taken;
    for (py::ssize_t e = events_E.size(); e-- > 0;)
        if (const Event& event = events_E.data()[e]; !taken.meets(event) && is_interaction(event, types)) return true;
    return false;
}

// The newest interactions of some customers side by side, at most so many, the newest first and padded: products (-1)
// and types (0), both (B, L), and ages (B, L), the logarithm of one and the days since each (0). Events lie oldest
// first.
py::tuple latest(const std::vector<Array<Event>>& events_BE, const std::vector<bool>& types,
                 const std::vector<std::int64_t>& moments_B, py::ssize_t most) {
    check(events_BE.size() == moments_B.size(), "expected a moment for each customer");
    check(most > 0, "expected at least one event wanted");
    std::vector<const Event*> told;
    std::vector<std::size_t> ends_B;
    py::ssize_t width = 1;
    for (const Array<Event>& events_E : events_BE) {
        const std::size_t start = told.size(), full = start + static_cast<std::size_t>(most);
        TakenBack taken;
        for (py::ssize_t e = events_E.size(); e-- > 0 && told.size() < full;)
            if (const Event& event = events_E.data()[e]; !taken.meets(event) && is_interaction(event, types))
                told.push_back(&event);
        ends_B.push_back(told.size());
        width = std::max(width, static_cast<py::ssize_t>(told.size() - start));
    }
    const auto count = static_cast<py::ssize_t>(events_BE.size());
    Array<std::int64_t> products_BL({count, width}), types_BL({count, width});
    Array<float> ages_BL({count, width});
    std::int64_t *product = products_BL.mutable_data(), *type = types_BL.mutable_data();
    float* age = ages_BL.mutable_data();
    std::fill_n(product, products_BL.size(), -1);
    std::fill_n(type, types_BL.size(), 0);
    std::fill_n(age, ages_BL.size(), 0.0f);
    std::size_t place = 0;
    for (py::ssize_t b = 0; b < count; ++b) {
        py::ssize_t out = b * width;
        for (; place < ends_B[b]; ++place, ++out) {
            const Event& event = *told[place];
            check(is_moment(event.at) && is_moment(moments_B[b]), MOMENTS);
            const double days = static_cast<double>(std::max<std::int64_t>(moments_B[b] - event.at, 0)) / DAY;
            product[out] = event.product;
            type[out] = event.type;
            age[out] = std::log2(1.0f + static_cast<float>(days));
        }
    }
    return py::make_tuple(products_BL, types_BL, ages_BL);
}

// Codes (B, C) of which each column has so many, those beyond as 0.
Array<std::int64_t> known(const Array<std::int64_t>& codes_BC, const Array<std::int64_t>& sizes_C) {
    check(codes_BC.ndim() == 2 && codes_BC.shape(1) == sizes_C.size(), "expected a size for each column of codes (B, C)");
    Array<std::int64_t> known_BC({codes_BC.shape(0), codes_BC.shape(1)});
    for (py::ssize_t b = 0; b < codes_BC.shape(0); ++b)
        for (py::ssize_t c = 0; c < codes_BC.shape(1); ++c) {
            const std::int64_t code = *codes_BC.data(b, c);
            *known_BC.mutable_data(b, c) = code >= 0 && code < sizes_C.data()[c] ? code : 0;
        }
    return known_BC;
}

// The vectors of some rows, zeros where a row is -1; (B, L, D).
Array<float> gather(const Table<float>& vectors_ND, const Array<std::int64_t>& rows_BL) {
    check(rows_BL.ndim() == 2, "expected rows (B, L)");
    const py::ssize_t dimensions = vectors_ND.columns, count = rows_BL.size();
    Array<float> vectors_BLD({rows_BL.shape(0), rows_BL.shape(1), dimensions});
    float* out = vectors_BLD.mutable_data();
    for (py::ssize_t at = 0; at < count; ++at) {
        if (at + AHEAD < count && vectors_ND.holds(rows_BL.data()[at + AHEAD]))
            prefetch(vectors_ND.row(rows_BL.data()[at + AHEAD]), dimensions);
        const std::int64_t row = rows_BL.data()[at];
        check(row == -1 || vectors_ND.holds(row), "expected rows of the catalogue, or -1");
        out = row < 0 ? std::fill_n(out, dimensions, 0.0f) : std::copy_n(vectors_ND.row(row), dimensions, out);
    }
    return vectors_BLD;
}

}  // namespace
