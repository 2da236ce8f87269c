// history.py and features.py: what a history holds, and what of it the customer tower reads.

#pragma once

#include "arrays.hpp"

namespace {

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

// The purchases of known products: rows_R, times_R, places_E, at_E, locations_E and the newest moment, as in Purchases.
py::tuple purchases(const Array<Event>& events_E, std::uint16_t purchase) {
    std::vector<Keyed<std::uint32_t>> bought;
    std::vector<std::int64_t> at, rows, times;
    std::vector<std::int32_t> locations;
    std::int64_t newest = 0;
    for (py::ssize_t e = 0; e < events_E.size(); ++e) {
        const Event& event = events_E.data()[e];
        if (event.type != purchase || event.product < 0) continue;
        bought.push_back({static_cast<std::uint32_t>(event.product), static_cast<std::uint32_t>(at.size())});
        at.push_back(event.at);
        locations.push_back(event.location);
        newest = std::max(newest, event.at);
    }
    sort_by_key(bought);
    std::vector<std::int64_t> places(at.size());
    for (const auto& [row, purchase_E] : bought) {
        if (rows.empty() || rows.back() != row) {
            rows.push_back(row);
            times.push_back(0);
        }
        places[purchase_E] = static_cast<std::int64_t>(rows.size()) - 1;
        ++times.back();
    }
    return py::make_tuple(array_of(rows), array_of(times), array_of(places), array_of(at), array_of(locations), newest);
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

// The products, ascending, of events of some types that are newer than a moment; events lie oldest first.
Array<std::int64_t> products_since(const Array<Event>& events_E, std::int64_t after, const std::vector<bool>& types) {
    std::vector<std::int64_t> products;
    for (py::ssize_t e = events_E.size(); e-- > 0 && events_E.data()[e].at > after;) {
        const Event& event = events_E.data()[e];
        if (event.product >= 0 && event.type < types.size() && types[event.type]) products.push_back(event.product);
    }
    std::sort(products.begin(), products.end());
    products.erase(std::unique(products.begin(), products.end()), products.end());
    return array_of(products);
}

// What the customer tower reads of events whose type is told: products, types and moments (3, E), the newest first.
Array<std::int64_t> told(const Array<Event>& events_E, const std::vector<bool>& types) {
    std::vector<const Event*> kept;
    for (py::ssize_t e = events_E.size(); e-- > 0;) {
        const Event& event = events_E.data()[e];
        if (event.product >= 0 && event.type < types.size() && types[event.type]) kept.push_back(&event);
    }
    const auto count = static_cast<py::ssize_t>(kept.size());
    Array<std::int64_t> told_3E({py::ssize_t{3}, count});
    std::int64_t* out = told_3E.mutable_data();
    for (py::ssize_t e = 0; e < count; ++e) {
        out[e] = kept[e]->product;
        out[count + e] = kept[e]->type;
        out[2 * count + e] = kept[e]->at;
    }
    return told_3E;
}

// The newest events of some customers side by side, padded: products (-1) and types (0), both (B, L), and ages (B, L),
// the logarithm of one and the days since each (0).
py::tuple side_by_side(const std::vector<Array<std::int64_t>>& told, const std::vector<std::int64_t>& moments_B,
                       py::ssize_t width) {
    check(told.size() == moments_B.size(), "expected a moment for each customer");
    const auto count = static_cast<py::ssize_t>(told.size());
    Array<std::int64_t> products_BL({count, width}), types_BL({count, width});
    Array<float> ages_BL({count, width});
    for (py::ssize_t b = 0; b < count; ++b) {
        check(told[b].ndim() == 2 && told[b].shape(0) == 3, "expected products, types and moments (3, E)");
        const py::ssize_t events = told[b].shape(1), there = std::min(events, width);
        const std::int64_t* products = told[b].data();
        std::int64_t *product = products_BL.mutable_data() + b * width, *type = types_BL.mutable_data() + b * width;
        float* age = ages_BL.mutable_data() + b * width;
        std::fill(std::copy_n(products, there, product), product + width, -1);
        std::fill(std::copy_n(products + events, there, type), type + width, 0);
        for (py::ssize_t l = 0; l < there; ++l) {
            const std::int64_t seconds = moments_B[b] - products[2 * events + l];
            age[l] =
                std::log2(1.0f + static_cast<float>(static_cast<double>(std::max<std::int64_t>(seconds, 0)) / DAY));
        }
        std::fill(age + there, age + width, 0.0f);
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
        if (at + AHEAD < count && rows_BL.data()[at + AHEAD] >= 0)
            prefetch(vectors_ND.data() + rows_BL.data()[at + AHEAD] * dimensions, dimensions);
        const std::int64_t row = rows_BL.data()[at];
        check(row >= -1 && row < vectors_ND.shape(0), "expected rows of the catalogue, or -1");
        out = row < 0 ? std::fill_n(out, dimensions, 0.0f)
                      : std::copy_n(vectors_ND.data() + row * dimensions, dimensions, out);
    }
    return vectors_BLD;
}

}  // namespace
