// Group normalisation of videos (B*T, C, H, W); the statistics are (B, groups, 2).

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "convolution.h"

namespace {

// ---- group normalisation of (B*T, C, H, W) over the channels of a group, time and space, and SiLU after it

struct Groups {
    Index batch, frames, channels, size, count;

    Groups(const int64_t *x, const int64_t *statistics)
        : batch(statistics[0]), frames(x[0] / batch), channels(x[1]), size(x[2] * x[3]), count(statistics[1]) {}

    Index width() const { return channels / count; }
    float elements() const { return static_cast<float>(frames * width() * size); }
    Index at(Index video, Index frame, Index channel) const {
        return ((video * frames + frame) * channels + channel) * size;
    }

    // f(item, video, first channel, last channel) for each group of each video
    template <class F>
    void each(F f) const {
        parallel(batch * count, 1, [&](Index begin, Index end) {
            for (Index item = begin; item < end; item++) {
                const Index first = item % count * width();
                f(item, item / count, first, first + width());
            }
        });
    }
};

template <bool HAS_SILU>
void normalise_row(const float *x, Index count, float mean, float slope, float shift, float *y) {
#pragma omp simd
    for (Index i = 0; i < count; i++) {
        float value = (x[i] - mean) * slope + shift;
        y[i] = HAS_SILU ? value * sigmoid(value) : value;
    }
}

// The gradient of what is scaled and shifted last, and its sums: of itself, and times the normalised x.
template <bool HAS_SILU>
std::pair<float, float> slope_row(const float *x, const float *dy, Index count, float mean, float scale, float weight,
                                  float bias, float *slopes) {
    float sum = 0, products = 0;
#pragma omp simd reduction(+ : sum, products)
    for (Index i = 0; i < count; i++) {
        float normed = (x[i] - mean) * scale, slope = dy[i];
        if (HAS_SILU) {
            float value = normed * weight + bias, gate = sigmoid(value);
            slope *= gate + value * gate * (1 - gate);
        }
        slopes[i] = slope;
        sum += slope;
        products += slope * normed;
    }
    return {sum, products};
}

// Statistics are (B, groups, 2): a mean and one over a standard deviation.
template <bool HAS_SILU>
void normalise(const Groups &groups, const float *x, const float *gamma, const float *beta, float eps, float *y,
               float *statistics) {
    groups.each([&](Index item, Index video, Index first, Index last) {
        const Index count = (last - first) * groups.size;
        double sum = 0, squares = 0;
        for (Index t = 0; t < groups.frames; t++) sum += row_sum(x + groups.at(video, t, first), count);
        const float mean = sum / groups.elements();
        for (Index t = 0; t < groups.frames; t++) {
            const float *from = x + groups.at(video, t, first);
            float part = 0;
#pragma omp simd reduction(+ : part)
            for (Index i = 0; i < count; i++) part += (from[i] - mean) * (from[i] - mean);
            squares += part;
        }
        const float scale = 1 / std::sqrt(squares / groups.elements() + eps);
        statistics[2 * item] = mean;
        statistics[2 * item + 1] = scale;
        for (Index t = 0; t < groups.frames; t++)
            for (Index c = first; c < last; c++) {
                const Index at = groups.at(video, t, c);
                normalise_row<HAS_SILU>(x + at, groups.size, mean, gamma[c] * scale, beta[c], y + at);
            }
    });
}

// `addend`, if any: the gradient of x from its other uses.
template <bool HAS_SILU>
void normalise_gradient(const Groups &groups, const float *x, const float *gamma, const float *beta,
                        const float *statistics, const float *dy, const float *addend, float *dx, float *dgamma,
                        float *dbeta) {
    std::vector<float> sums(groups.batch * groups.channels * 2);  // by video, of dbeta and dgamma
    groups.each([&](Index item, Index video, Index first, Index last) {
        const float mean = statistics[2 * item], scale = statistics[2 * item + 1];
        double slopes = 0, products = 0;
        for (Index c = first; c < last; c++) {
            const float weight = gamma[c], shift = beta[c];
            double channel_slopes = 0, channel_products = 0;
            for (Index t = 0; t < groups.frames; t++) {
                const Index at = groups.at(video, t, c);
                const auto [slope, product] =
                    slope_row<HAS_SILU>(x + at, dy + at, groups.size, mean, scale, weight, shift, dx + at);
                channel_slopes += slope;
                channel_products += product;
            }
            sums[(video * groups.channels + c) * 2] = channel_slopes;
            sums[(video * groups.channels + c) * 2 + 1] = channel_products;
            slopes += channel_slopes * weight;
            products += channel_products * weight;
        }
        const float by_x = -scale * scale * products / groups.elements(), shift = -scale * slopes / groups.elements();
        for (Index t = 0; t < groups.frames; t++)
            for (Index c = first; c < last; c++) {
                const float *from = x + groups.at(video, t, c), slope = gamma[c] * scale;
                float *to = dx + groups.at(video, t, c);
#pragma omp simd
                for (Index i = 0; i < groups.size; i++) to[i] = to[i] * slope + (from[i] - mean) * by_x + shift;
                if (addend) add_row(addend + groups.at(video, t, c), groups.size, to);
            }
    });
    for (Index c = 0; c < groups.channels; c++) {
        dgamma[c] = dbeta[c] = 0;
        for (Index video = 0; video < groups.batch; video++) {
            dbeta[c] += sums[(video * groups.channels + c) * 2];
            dgamma[c] += sums[(video * groups.channels + c) * 2 + 1];
        }
    }
}

}  // namespace
