// transform.py: what the ranker's network reads, but for the logarithms.

#pragma once

#include "arrays.hpp"

namespace {

// The columns of features that have a part of their own.
struct Columns {
    py::ssize_t away, popular_here, sold_here, product_share, inner, retrieved;
};

// A feature over another one, which is at least so much.
using Ratio = std::tuple<py::ssize_t, py::ssize_t, float>;

// What is done to the features of a candidate before logarithms are taken.
class FeatureTransform {
  public:
    // Of each feature: the logarithm of what remains of it after a day, and whether it grows by the days; of the first
    // ones, the counts: what they are multiplied with; the ratios, which are at most `most`, and what is added to them;
    // purchases' worth of the shares of all locations in those of one, and what is added to these.
    FeatureTransform(std::vector<float> decays_F, std::vector<float> ages_F, std::vector<float> scales_C,
           std::vector<Ratio> ratios, float most, float above_ratios, float prior, float above_shares,
           const std::array<py::ssize_t, 6>& columns)
        : decays_F_(std::move(decays_F)),
          ages_F_(std::move(ages_F)),
          scales_C_(std::move(scales_C)),
          ratios_(std::move(ratios)),
          most_(most),
          above_ratios_(above_ratios),
          prior_(prior),
          above_shares_(above_shares),
          at_{columns[0], columns[1], columns[2], columns[3], columns[4], columns[5]} {
        check(ages_F_.size() == decays_F_.size() && scales_C_.size() <= decays_F_.size(), "expected one for each feature");
        const auto is_feature = [this](py::ssize_t column) { return column >= 0 && column < features(); };
        check(std::all_of(columns.begin(), columns.end(), is_feature), "expected columns of features");
        for (const auto& [above, below, least] : ratios_)
            check(is_feature(above) && is_feature(below) && least > 0, "expected features, and something to divide by");
    }

    // The arguments of all logarithms first: counts, ratios and the share at the location; then the features that are no
    // counts, and how far the inner product lies above what was retrieved; (M, X).
    Array<float> transform(const Array<float>& features_MF) const {
        check(features_MF.ndim() == 2 && features_MF.shape(1) == features(), "expected features (M, F)");
        const std::size_t counts = scales_C_.size();
        const py::ssize_t width = features() + static_cast<py::ssize_t>(ratios_.size()) + 2;
        Array<float> transformed_MX({features_MF.shape(0), width});
        std::vector<float> remains_F(decays_F_.size()), grown_F(decays_F_.size()), aged_F(decays_F_.size());
        float away = std::numeric_limits<float>::quiet_NaN();
        for (py::ssize_t m = 0; m < features_MF.shape(0); ++m) {
            const float* features_F = features_MF.data() + m * features();
            float* out = transformed_MX.mutable_data() + m * width;
            if (features_F[at_.away] != away) {  // mostly the same as of the candidate before
                away = features_F[at_.away];
                for (std::size_t f = 0; f < aged_F.size(); ++f) {
                    remains_F[f] = decays_F_[f] == 0 ? 1 : std::exp(away * decays_F_[f]);
                    grown_F[f] = away * ages_F_[f];
                }
            }
            for (std::size_t f = 0; f < aged_F.size(); ++f) aged_F[f] = features_F[f] * remains_F[f] + grown_F[f];
            for (std::size_t c = 0; c < counts; ++c) *out++ = 1 + std::max(aged_F[c] * scales_C_[c], 0.0f);
            for (const auto& [above, below, least] : ratios_)
                *out++ = std::min(aged_F[above] / std::max(aged_F[below], least), most_) + above_ratios_;
            const float bought_here = features_F[at_.popular_here] + prior_ * features_F[at_.product_share];
            *out++ = bought_here / (features_F[at_.sold_here] + prior_) + above_shares_;
            out = std::copy(aged_F.begin() + static_cast<std::ptrdiff_t>(counts), aged_F.end(), out);
            *out = features_F[at_.inner] - features_F[at_.retrieved];
        }
        return transformed_MX;
    }

  private:
    py::ssize_t features() const { return static_cast<py::ssize_t>(decays_F_.size()); }

    std::vector<float> decays_F_, ages_F_, scales_C_;
    std::vector<Ratio> ratios_;
    float most_, above_ratios_, prior_, above_shares_;
    Columns at_;
};

}  // namespace
