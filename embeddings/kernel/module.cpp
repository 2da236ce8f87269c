// The inner loops of candidates, profiles, features and scores, where NumPy would spend more on each call than on its
// numbers.
//
// Every function takes and gives NumPy arrays; what is kept from call to call is a class: the tables of `Features`, the
// rows of `Members`, a `QuantisedSet` of vectors, the arrays of a `Customer`, purchases `ByVisit`, the constants of `FeatureTransform`.
// What is computed, and why, is said where it is called, in the Python module that each header names. Arrays of another
// dtype than declared, or not contiguous, are refused with TypeError and never copied in silence; sizes that do not fit
// raise ValueError. Sums run over a fixed order, in double precision but for inner products.
//
// Letters: B queries or customers, C columns, D dimensions, E events or purchases, F features, G groups, K candidates or
// results, L events that a tower reads or entries of assortments, N products or rows of a set, P rows proposed, Q kinds
// of groups, R products bought, S rows with a score, T neighbours, V visits.

#include "features.hpp"
#include "history.hpp"
#include "profile.hpp"
#include "scan.hpp"
#include "scores.hpp"
#include "sources.hpp"

PYBIND11_MODULE(kernel, module) {
    PYBIND11_NUMPY_DTYPE(Event, at, product, offer, location, quantity, value, type, channel, visit);
    module.doc() = "The inner loops of candidates, profiles and features.";
    const auto exact = [](const char* name) { return py::arg(name).noconvert(); };
    module.def("inner_products", &inner_products, exact("queries_BD"), exact("vectors_BKD"));
    module.def("best", &best, exact("queries_BD"), exact("vectors_ND"), exact("rows_BP"), py::arg("kept"));
    py::class_<Members>(module, "Members")
        .def(py::init(&Members::of<std::int32_t>), exact("rows_N"))
        .def(py::init(&Members::of<std::int64_t>), exact("rows_N"))
        .def("contains", &Members::contains, exact("rows_R"))
        .def_property_readonly("size", &Members::size)
        .def("bytes", &Members::bytes)
        .def("without", &Members::without, exact("rows_R"))
        .def("with_rows", &Members::with, exact("rows_R"));
    py::class_<QuantisedSet>(module, "QuantisedSet")
        .def(py::init(&QuantisedSet::of<std::int32_t>), exact("rotated_ND"), exact("rows_N"), py::arg("catalogue"))
        .def(py::init(&QuantisedSet::of<std::int64_t>), exact("rotated_ND"), exact("rows_N"), py::arg("catalogue"))
        .def("among", &QuantisedSet::among, py::arg("members"))
        .def_property_readonly("nbytes", &QuantisedSet::nbytes)
        .def_static("bytes_of", &QuantisedSet::bytes_of, py::arg("rows"), py::arg("dimensions"));
    module.def("max_norm", &max_norm, exact("vectors_ND"));
    module.def("nearest", &nearest, exact("queries_BD"), exact("rotation_DD"), exact("vectors_ND"), py::arg("sets"),
               py::arg("wanted"), py::arg("isa") = py::none());
    module.def("isas", [] {
        std::vector<std::string> names;
        for (const auto& [name, next] : instruction_sets()) names.push_back(name);
        return names;
    });
    module.def("leading", &leading, exact("scores_K"), exact("rows_K"), exact("sources_K"), exact("demoted_K"),
               py::arg("most"));
    module.def("log_sum_exp", &log_sum_exp, exact("values_K"));
    py::class_<Customer>(module, "Customer")
        .def(py::init<Array<std::int64_t>, Array<float>, std::vector<std::pair<Array<std::int32_t>, Array<float>>>,
                      Scored, Array<float>>(),
             exact("rows_R"), exact("own_RC"), exact("groups"), exact("also_bought"), exact("als_D"));
    module.def("largest", &largest, exact("scored"), py::arg("eligible"), py::arg("most"));
    module.def("again", &again, py::arg("customer"), exact("here_R"), py::arg("more"), py::arg("eligible"),
               py::arg("most"));
    module.def("due", &due, py::arg("customer"), py::arg("aged"), py::arg("eligible"), py::arg("most"));
    module.def("usual_gaps", &usual_gaps, py::arg("customer"), exact("products_NP"), py::arg("usual"), py::arg("rows"));
    module.def("sold_at", &sold_at, exact("offsets"), exact("sold_L"), exact("times_L"), py::arg("lists"),
               py::arg("rows"));
    module.def("foremost", &foremost, exact("weights_R"), py::arg("most"));
    module.def("merged", &merged, exact("lists"));
    module.def("around", &around, exact("rows_R"), exact("weights_R"), exact("near_NT"), exact("cosines_NT"));
    module.def("inserted", &inserted, exact("events_E"), exact("added_E"));
    module.def("bought", &bought, exact("events_E"), exact("offsets"), py::arg("pause"));
    module.def("purchases", &purchases, exact("events_E"), py::arg("decay"), py::arg("pause"));
    module.def("repurchases", &repurchases, exact("customers_E"), exact("visits_E"), exact("products_E"), exact("at_E"),
               py::arg("products"), py::arg("ends"));
    module.def("times_bought", &times_bought, exact("rows_R"), exact("times_R"), py::arg("asked"));
    module.def("newest_of", &newest_of, exact("events_E"), py::arg("types"));
    module.def("products_since", &rows_since<&Event::product>, exact("events_E"), py::arg("after"), py::arg("types"));
    module.def("offers_since", &rows_since<&Event::offer>, exact("events_E"), py::arg("after"), py::arg("types"));
    module.def("visit", &visit, exact("events_E"), py::arg("after"), py::arg("looking"));
    module.def("any_interaction", &any_interaction, exact("events_E"), py::arg("types"));
    module.def("latest", &latest, exact("events_BE"), py::arg("types"), py::arg("moments_B"), py::arg("most"));
    module.def("known", &known, exact("codes_BC"), exact("sizes_C"));
    module.def("gather", &gather, exact("vectors_ND"), exact("rows_BL"));
    py::class_<ByVisit>(module, "ByVisit")
        .def("statistics", &ByVisit::statistics, exact("rows_R"), exact("products_NP"), py::arg("gap"), py::arg("price"),
             exact("codes_NQ"),
             py::arg("decays"), py::arg("group_decay"), py::arg("never_days"), py::arg("prior_days"), py::arg("never"),
             py::arg("usual_gap"))
        .def("at", &ByVisit::at, py::arg("location"))
        .def("usual_location", &ByVisit::usual_location, py::arg("decay"), py::arg("among").noconvert() = py::none())
        .def("at_hour", &ByVisit::at_hour, py::arg("moment"), py::arg("seconds"), py::arg("other_days"));
    py::class_<FeatureReader>(module, "FeatureReader")
        .def(py::init<Table<float>, Table<std::int32_t>, Array<float>, Table<float>, Table<float>, Array<std::int64_t>,
                      Array<std::int32_t>, Array<float>, Array<float>, Table<float>, Array<float>, std::vector<float>, py::ssize_t,
                      py::ssize_t, py::ssize_t, py::ssize_t>(),
             exact("products_NP"), exact("groups_NQ"), exact("lifts_GG"), exact("vectors_ND"), exact("als_NT"),
             exact("offsets"), exact("sold_L"), exact("popular_L"), exact("month_L"), exact("hazards_NH"),
             exact("hazards_GH"), py::arg("hazard_ends"), py::arg("gap"), py::arg("price"), py::arg("narrow"),
             py::arg("wide"))
        .def("read", &FeatureReader::read, py::arg("customer"), exact("here_R"), exact("hour_R"), exact("rows_K"),
             exact("customer_D"), py::arg("sold_list"), exact("promoted"), exact("bought_together"), exact("meant"),
             exact("looked"), py::arg("shown"), py::arg("away"), py::arg("context"), exact("features_KF"));
}
