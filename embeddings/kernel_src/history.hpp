// history.py and features.py: what a history holds, and what of it the customer tower reads.

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

constexpr const char* GAPS = "expected a number of seconds between purchases of one visit";

// Whether one moment comes so many seconds after an earlier one at most; moments may be any number.
bool is_near(std::int64_t later, std::int64_t earlier, std::int64_t gap) {
    return static_cast<std::uint64_t>(later) - static_cast<std::uint64_t>(earlier) <= static_cast<std::uint64_t>(gap);
}

// The purchases of known products that were not taken back wholly, of several of one product in a visit the first:
// their places among the events, and when the visit of each began. Several lines of a receipt are one purchase. One at
// most `gap` seconds after the one before is of its visit. Customer c's events, oldest first, lie from offsets[c] to
// offsets[c + 1].
py::tuple bought(const Array<Event>& events_E, const Array<std::int64_t>& offsets, std::int64_t gap) {
    const std::int64_t* ends = offsets.data() + offsets.size();
    check(offsets.size() > 0 && offsets.data()[0] == 0 && ends[-1] == events_E.size() &&
              std::is_sorted(offsets.data(), ends),
          "expected offsets that ascend from 0 to the number of events");
    check(gap >= 0, GAPS);
    std::vector<bool> left(static_cast<std::size_t>(events_E.size()));
    std::vector<std::int64_t> places, begun;
    for (py::ssize_t c = 0; c + 1 < offsets.size(); ++c) {
        TakenBack taken;
        for (std::int64_t e = offsets.data()[c + 1]; e-- > offsets.data()[c];) {
            const Event& event = events_E.data()[e];
            left[e] = !taken.meets(event) && event.type == PURCHASE && event.product >= 0;
        }
        std::unordered_set<std::int32_t> met;  // in one visit
        std::int64_t first = 0, last = 0;
        bool any = false;
        for (std::int64_t e = offsets.data()[c]; e < offsets.data()[c + 1]; ++e) {
            if (!left[e]) continue;
            const Event& event = events_E.data()[e];
            if (!any || !is_near(event.at, last, gap)) {
                met.clear();
                first = event.at;
            }
            any = true;
            last = event.at;
            if (!met.insert(event.product).second) continue;
            places.push_back(e);
            begun.push_back(first);
        }
    }
    return py::make_tuple(array_of(places), array_of(begun));
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

// The purchases of known products, several of one product in one visit as one: rows_R, times_R, by_visit and the newest
// moment, as in Purchases. All of a visit have the moment of its first.
py::tuple purchases(const Array<Event>& events_E, double decay, std::int64_t gap) {
    check(gap >= 0, GAPS);
    std::vector<bool> gone;
    if (std::any_of(events_E.data(), events_E.data() + events_E.size(),
                    [](const Event& event) { return event.type == RETURN; })) {
        TakenBack taken;
        gone.resize(events_E.size());
        for (py::ssize_t e = events_E.size(); e-- > 0;) gone[e] = taken.meets(events_E.data()[e]);
    }
    std::vector<Keyed<std::uint32_t>> bought;
    std::vector<std::int64_t> at, rows, times;
    std::vector<std::int32_t> locations;
    constexpr std::int32_t AGAIN = -1;
    std::int64_t before = 0;
    for (py::ssize_t e = 0; e < events_E.size(); ++e) {
        const Event& event = events_E.data()[e];
        if (event.type != PURCHASE || event.product < 0 || (!gone.empty() && gone[e])) continue;
        bought.push_back({static_cast<std::uint32_t>(event.product), static_cast<std::uint32_t>(at.size())});
        at.push_back(!at.empty() && is_near(event.at, before, gap) ? at.back() : event.at);
        before = event.at;
        locations.push_back(event.location);
    }
    sort_by_key(bought);
    std::vector<std::int32_t> places(at.size());
    std::int64_t last = 0;  // of this product
    for (const auto& [row, purchase_E] : bought) {
        const bool other = rows.empty() || rows.back() != row;
        if (other) {
            rows.push_back(row);
            times.push_back(0);
        }
        const bool again = !other && at[purchase_E] == last;
        places[purchase_E] = again ? AGAIN : static_cast<std::int32_t>(rows.size()) - 1;
        times.back() += !again;
        last = at[purchase_E];
    }
    std::size_t kept = 0;
    for (std::size_t e = 0; e < places.size(); ++e) {
        if (places[e] == AGAIN) continue;
        places[kept] = places[e];
        at[kept] = at[e];
        locations[kept++] = locations[e];
    }
    places.resize(kept);
    at.resize(kept);
    locations.resize(kept);
    ByVisit by_visit(places, at, locations, static_cast<py::ssize_t>(rows.size()), decay);
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
bool tells(const Event& event, const std::vector<bool>& types) {
    return event.product >= 0 && event.type < types.size() && types[event.type];
}

// Whether any of the events tells.
bool any_tells(const Array<Event>& events_E, const std::vector<bool>& types) {
    // From the newest on: those who do anything at all have mostly done something lately.
    TakenBack taken;
    for (py::ssize_t e = events_E.size(); e-- > 0;)
        if (const Event& event = events_E.data()[e]; !taken.meets(event) && tells(event, types)) return true;
    return false;
}

// The newest telling events of some customers side by side, at most so many, the newest first and padded: products (-1)
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
            if (const Event& event = events_E.data()[e]; !taken.meets(event) && tells(event, types))
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

// The vectors of some rows, zeros where a row is -1; (B, L, D).
Array<float> gather(const Array<float>& vectors_ND, const Array<std::int64_t>& rows_BL) {
    check(vectors_ND.ndim() == 2 && rows_BL.ndim() == 2, "expected vectors (N, D) and rows (B, L)");
    const py::ssize_t dimensions = vectors_ND.shape(1), count = rows_BL.size();
    Array<float> vectors_BLD({rows_BL.shape(0), rows_BL.shape(1), dimensions});
    float* out = vectors_BLD.mutable_data();
    for (py::ssize_t at = 0; at < count; ++at) {
        if (at + AHEAD < count && rows_BL.data()[at + AHEAD] >= 0 && rows_BL.data()[at + AHEAD] < vectors_ND.shape(0))
            prefetch(vectors_ND.data() + rows_BL.data()[at + AHEAD] * dimensions, dimensions);
        const std::int64_t row = rows_BL.data()[at];
        check(row >= -1 && row < vectors_ND.shape(0), "expected rows of the catalogue, or -1");
        out = row < 0 ? std::fill_n(out, dimensions, 0.0f)
                      : std::copy_n(vectors_ND.data() + row * dimensions, dimensions, out);
    }
    return vectors_BLD;
}

}  // namespace
