// Operators that MindSpore composes from many small ones on CPU, each as one pass over memory with all cores.
//
// Called by `ops.Custom(func_type="aot")`: inputs, then outputs, float32 unless said otherwise. What an operator must know
// is in the shapes of its tensors. Portable: vectors are as wide as the level that this file is compiled for
// (`device/compiler.py`). Sums are divided by work item, never by thread: one thread and several give the same bits.

// GCC would give each side of a bound (`exponential`) a copy of what follows, compute both for all lanes, and take a
// hundred cycles for each product that is too small to be a normal number.
#pragma GCC optimize("no-thread-jumps")

#include <cmath>
#include <numeric>
#include <vector>

#include "operators/group_norm.h"
#include "operators/temporal.h"
#include "operators/transformer.h"

#define EXPORTED extern "C" [[gnu::visibility("default")]] int
#define OPERATOR(name)                                                                                       \
    EXPORTED name([[maybe_unused]] int count, void **data, [[maybe_unused]] int *ranks,                       \
                  [[maybe_unused]] int64_t **shapes, const char **, void *, void *)
#define INPUT(i) static_cast<const float *>(data[i])
#define OUTPUT(i) static_cast<float *>(data[i])
#define MATRIX(i) as_matrix(data[i], ranks[i], shapes[i])

// Whether this library computes on this processor: 14.
EXPORTED moviegen_check() {
    const float left[] = {1, 2, 3}, right[] = {1, 2, 3};
    float result = 0;
    product({left, 1, 3, 3}, {right, 3, 1, 1}, &result);
    return static_cast<int>(result);
}

// Whether this process may use the `_bfloat16` operators; asks for it.
EXPORTED moviegen_bfloat16() { return may_use_tiles(); }

// x (..., in), w (out, in) -> x w^T (..., out);  x, w, dy -> dx, dw
#define LINEAR(name, rounds)                                                  \
    OPERATOR(name) {                                                          \
        product(MATRIX(0), MATRIX(1).transposed(), OUTPUT(2), rounds);        \
        return 0;                                                             \
    }                                                                         \
    OPERATOR(name##_gradient) {                                               \
        const Matrix x = MATRIX(0), w = MATRIX(1), dy = MATRIX(2);            \
        product(dy, w, OUTPUT(3), rounds);                                    \
        product(dy.transposed(), x, OUTPUT(4), rounds);                       \
        return 0;                                                             \
    }

LINEAR(linear, false)
LINEAR(linear_bfloat16, true)

// x (B, N, D), weight (D,), eps (1,) -> x / sqrt(mean(x^2) + eps) * weight
OPERATOR(rms_norm) {
    Matrix x = MATRIX(0);
    Norm{1, x.rows, x.columns, x.data, INPUT(1), INPUT(2), nullptr, nullptr}.forward(OUTPUT(3));
    return 0;
}

// x, weight, eps, dy -> dx, dweight
OPERATOR(rms_norm_gradient) {
    Matrix x = MATRIX(0);
    Norm norm{1, x.rows, x.columns, x.data, INPUT(1), INPUT(2), nullptr, nullptr};
    norm.backward(INPUT(3), OUTPUT(4), OUTPUT(5), nullptr, nullptr);
    return 0;
}

// x (B, N, D), weight (D,), eps (1,), shift and scale (B, 1, D) -> rms_norm(x) * (1 + scale) + shift
OPERATOR(modulated_norm) {
    const int64_t *of = shapes[0];
    Norm{of[0], of[1], of[2], INPUT(0), INPUT(1), INPUT(2), INPUT(3), INPUT(4)}.forward(OUTPUT(5));
    return 0;
}

// x, weight, eps, shift, scale, dy -> dx, dweight, dshift, dscale
OPERATOR(modulated_norm_gradient) {
    const int64_t *of = shapes[0];
    Norm norm{of[0], of[1], of[2], INPUT(0), INPUT(1), INPUT(2), INPUT(3), INPUT(4)};
    norm.backward(INPUT(5), OUTPUT(6), OUTPUT(7), OUTPUT(8), OUTPUT(9));
    return 0;
}

// x (B, N, D), gate (B, 1, D), y (B, N, D) -> x + gate * y
OPERATOR(gated_sum) {
    const Index rows = shapes[0][1], width = shapes[0][2];
    const float *x = INPUT(0), *gate = INPUT(1), *y = INPUT(2);
    float *out = OUTPUT(3);
    parallel(shapes[0][0] * rows, PART, [&](Index begin, Index end) {
        for (Index row = begin; row < end; row++) {
            const float *a = x + row * width, *b = y + row * width, *g = gate + row / rows * width;
            float *to = out + row * width;
#pragma omp simd
            for (Index i = 0; i < width; i++) to[i] = a[i] + g[i] * b[i];
        }
    });
    return 0;
}

// gate, y, dout -> dgate, dy
OPERATOR(gated_sum_gradient) {
    const Index samples = shapes[1][0], rows = shapes[1][1], width = shapes[1][2];
    const float *gate = INPUT(0), *y = INPUT(1), *dout = INPUT(2);
    float *dgate = OUTPUT(3), *dy = OUTPUT(4);
    auto add = [&](Index row, float *sums) {
        const float *b = y + row * width, *d = dout + row * width, *g = gate + row / rows * width;
        float *to = dy + row * width;
#pragma omp simd
        for (Index i = 0; i < width; i++) {
            sums[i] += d[i] * b[i];
            to[i] = d[i] * g[i];
        }
    };
    sum_rows(samples, rows, width, 1, add,
             [&](Index sample, const float *sums) { std::copy_n(sums, width, dgate + sample * width); });
    return 0;
}

constexpr Index GRAIN = 1 << 13;  // numbers that a thread takes at once

// gate, up -> silu(gate) * up
OPERATOR(swiglu) {
    const float *gate = INPUT(0), *up = INPUT(1);
    float *out = OUTPUT(2);
    parallel(elements(ranks[0], shapes[0]), GRAIN, [&](Index begin, Index end) {
#pragma omp simd
        for (Index i = begin; i < end; i++) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
    });
    return 0;
}

// gate, up, dout -> dgate, dup
OPERATOR(swiglu_gradient) {
    const float *gate = INPUT(0), *up = INPUT(1), *dout = INPUT(2);
    float *dgate = OUTPUT(3), *dup = OUTPUT(4);
    parallel(elements(ranks[0], shapes[0]), GRAIN, [&](Index begin, Index end) {
#pragma omp simd
        for (Index i = begin; i < end; i++) {
            float s = sigmoid(gate[i]), silu = gate[i] * s;
            dup[i] = dout[i] * silu;
            dgate[i] = dout[i] * up[i] * (s + silu * (1 - s));
        }
    });
    return 0;
}

#define ATTENTION(mask, rounds)                                                                               \
    Attention {                                                                                               \
        shapes[0][0], shapes[0][1], shapes[1][1], shapes[0][2], shapes[0][3], INPUT(0), INPUT(1), INPUT(2),   \
            mask, rounds                                                                                      \
    }

// q (B, N, heads, W), k and v (B, M, heads, W) -> softmax(q k^T / sqrt(W)) v, and (B, heads, N) for the gradient;
// q, k, v, out, its second result, dout -> dq, dk, dv.
#define UNMASKED(name, rounds)                                                                                   \
    OPERATOR(name) {                                                                                             \
        ATTENTION(nullptr, rounds).forward(OUTPUT(3), OUTPUT(4));                                                \
        return 0;                                                                                                \
    }                                                                                                            \
    OPERATOR(name##_gradient) {                                                                                  \
        ATTENTION(nullptr, rounds).backward(INPUT(3), INPUT(4), INPUT(5), OUTPUT(6), OUTPUT(7), OUTPUT(8));      \
        return 0;                                                                                                \
    }

// The same with a mask (B, M) after v: 1 where a key may be attended to.
#define MASKED(name, rounds)                                                                                     \
    OPERATOR(name) {                                                                                             \
        ATTENTION(INPUT(3), rounds).forward(OUTPUT(4), OUTPUT(5));                                               \
        return 0;                                                                                                \
    }                                                                                                            \
    OPERATOR(name##_gradient) {                                                                                  \
        ATTENTION(INPUT(3), rounds).backward(INPUT(4), INPUT(5), INPUT(6), OUTPUT(7), OUTPUT(8), OUTPUT(9));     \
        return 0;                                                                                                \
    }

UNMASKED(attention, false)
UNMASKED(attention_bfloat16, true)
MASKED(masked_attention, false)
MASKED(masked_attention_bfloat16, true)

// x, weight, bias -> y;  weight, dy, x -> dx;  x, dy, weight, bias -> dweight, dbias
#define CONVOLUTION(name, form)                                                               \
    OPERATOR(name) {                                                                          \
        auto [x, y] = stacks(form, shapes[0], shapes[3]);                                     \
        convolve(taps_of(form), x, y, INPUT(0), INPUT(1), INPUT(2), false, OUTPUT(3));        \
        return 0;                                                                             \
    }                                                                                         \
    OPERATOR(name##_input) {                                                                  \
        auto [x, y] = stacks(form, shapes[2], shapes[1]);                                     \
        convolve(adjoint(taps_of(form)), y, x, INPUT(1), INPUT(0), nullptr, true, OUTPUT(3)); \
        return 0;                                                                             \
    }                                                                                         \
    OPERATOR(name##_weights) {                                                                \
        auto [x, y] = stacks(form, shapes[0], shapes[1]);                                     \
        WeightGradient(taps_of(form), x, y).run(INPUT(0), INPUT(1), OUTPUT(4), OUTPUT(5));    \
        return 0;                                                                             \
    }

CONVOLUTION(convolution, KEEP)
CONVOLUTION(convolution_down, HALVE)
CONVOLUTION(convolution_up, DOUBLE)

// The same over time, with a last input of shape (T); `_onto`: with what y is added to before that. Taps, stride, repeat,
// whether the border is repeated.
#define MIXING(name, ...)                                                                         \
    OPERATOR(name) {                                                                              \
        Mixing mixing({__VA_ARGS__}, shapes[0], *shapes[3], shapes[1]);                           \
        mixing.mix(INPUT(0), INPUT(1), INPUT(2), nullptr, false, OUTPUT(4));                      \
        return 0;                                                                                 \
    }                                                                                             \
    OPERATOR(name##_onto) {                                                                       \
        Mixing mixing({__VA_ARGS__}, shapes[0], *shapes[4], shapes[1]);                           \
        mixing.mix(INPUT(0), INPUT(1), INPUT(2), INPUT(3), false, OUTPUT(5));                     \
        return 0;                                                                                 \
    }                                                                                             \
    OPERATOR(name##_input) {                                                                      \
        Mixing mixing({__VA_ARGS__}, shapes[2], *shapes[3], shapes[0]);                           \
        mixing.mix(INPUT(1), INPUT(0), nullptr, nullptr, true, OUTPUT(4));                        \
        return 0;                                                                                 \
    }                                                                                             \
    OPERATOR(name##_weights) {                                                                    \
        Mixing mixing({__VA_ARGS__}, shapes[0], *shapes[4], shapes[2]);                           \
        mixing.gradients(INPUT(0), INPUT(1), OUTPUT(5), OUTPUT(6));                               \
        return 0;                                                                                 \
    }

MIXING(channel_mix, 1, 1, 1, true)
MIXING(temporal, 3, 1, 1, true)
MIXING(temporal_zeros, 3, 1, 1, false)
MIXING(temporal_down, 3, 2, 1, true)
MIXING(temporal_down_zeros, 3, 2, 1, false)
MIXING(temporal_up, 3, 1, 2, true)
MIXING(temporal_up_zeros, 3, 1, 2, false)

// x, gamma, beta, eps (T, all alike) -> y, statistics;  x, gamma, beta, statistics, dy -> dx, dgamma, dbeta;
// `_onto`: after dy what dx is added to
#define GROUP_NORM(name, has_silu)                                                                            \
    OPERATOR(name) {                                                                                          \
        normalise<has_silu>({shapes[0], shapes[5]}, INPUT(0), INPUT(1), INPUT(2), *INPUT(3), OUTPUT(4), OUTPUT(5)); \
        return 0;                                                                                             \
    }                                                                                                         \
    OPERATOR(name##_gradient) {                                                                               \
        normalise_gradient<has_silu>({shapes[0], shapes[3]}, INPUT(0), INPUT(1), INPUT(2), INPUT(3), INPUT(4),  \
                                     nullptr, OUTPUT(5), OUTPUT(6), OUTPUT(7));                               \
        return 0;                                                                                             \
    }                                                                                                         \
    OPERATOR(name##_gradient_onto) {                                                                          \
        normalise_gradient<has_silu>({shapes[0], shapes[3]}, INPUT(0), INPUT(1), INPUT(2), INPUT(3), INPUT(4),  \
                                     INPUT(5), OUTPUT(6), OUTPUT(7), OUTPUT(8));                              \
        return 0;                                                                                             \
    }

GROUP_NORM(group_norm, false)
GROUP_NORM(group_norm_silu, true)

// --------------------------------------------------------------------------------------------------------- AdamW

// A stretch of one tensor of many: threads share all tensors evenly, and sums have one order.
struct Piece {
    int tensor;
    Index begin, end, place;  // the last: of the tensor, where all lie in one vector one after the other
};

std::vector<Piece> pieces(int tensors, const int *ranks, int64_t **shapes) {
    std::vector<Piece> all;
    Index place = 0;
    for (int tensor = 0; tensor < tensors; tensor++) {
        const Index size = elements(ranks[tensor], shapes[tensor]);
        for (Index begin = 0; begin < size; begin += 2 * GRAIN)
            all.push_back({tensor, begin, std::min(begin + 2 * GRAIN, size), place});
        place += size;
    }
    return all;
}

// any number of tensors -> the squared length of all of them as one vector (1,), summed in float64
OPERATOR(sum_of_squares) {
    const std::vector<Piece> all = pieces(count - 1, ranks, shapes);
    std::vector<double> sums(all.size());
    parallel(all.size(), 1, [&](Index item, Index) {
        const float *x = INPUT(all[item].tensor);
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (Index i = all[item].begin; i < all[item].end; i++) sum += static_cast<double>(x[i]) * x[i];
        sums[item] = sum;
    });
    OUTPUT(count - 1)[0] = static_cast<float>(std::accumulate(sums.begin(), sums.end(), 0.0));
    return 0;
}

// n weights, first and second moments (of all weights, one after the other), n gradients, decays (n,), (beta1, beta2, eps),
// rate, factor, updates -> updates (1,). In place: weights, moments and updates are inputs that change, unless the
// gradients' factor is 0.
OPERATOR(adamw) {
    const int tensors = (count - 8) / 2;
    const float *decays = INPUT(count - 6), *constants = INPUT(count - 5);
    const float rate = *INPUT(count - 4), factor = *INPUT(count - 3), beta1 = constants[0], beta2 = constants[1];
    float *updates = OUTPUT(count - 2);
    if (factor > 0) {
        *updates += 1;
        const double correction1 = 1 - std::pow(static_cast<double>(beta1), *updates);
        const double correction2 = std::sqrt(1 - std::pow(static_cast<double>(beta2), *updates));
        const float step = rate * correction2 / correction1, eps = constants[2] * correction2;
        const std::vector<Piece> all = pieces(tensors, ranks, shapes);
        parallel(all.size(), 1, [&](Index item, Index) {
            const auto [tensor, begin, end, place] = all[item];
            float *weight = OUTPUT(tensor), *moment1 = OUTPUT(tensors) + place, *moment2 = OUTPUT(tensors + 1) + place;
            const float *gradient = INPUT(tensors + 2 + tensor), kept = 1 - rate * decays[tensor];
#pragma omp simd
            for (Index i = begin; i < end; i++) {
                const float g = gradient[i] * factor;
                moment1[i] = beta1 * moment1[i] + (1 - beta1) * g;
                moment2[i] = beta2 * moment2[i] + (1 - beta2) * g * g;
                weight[i] = kept * weight[i] - step * moment1[i] / (std::sqrt(moment2[i]) + eps);
            }
        });
    }
    *OUTPUT(count - 1) = *updates;
    return 0;
}

// n weights, their averages (of all, one after the other), the weights' share (1,), factor -> (1,). In place: the averages
// move towards the weights, unless the factor of the update's gradients was 0.
OPERATOR(moving_average) {
    const float share = *INPUT(count - 3), factor = *INPUT(count - 2);
    *OUTPUT(count - 1) = factor;
    if (!(factor > 0)) return 0;
    const std::vector<Piece> all = pieces(count - 4, ranks, shapes);
    parallel(all.size(), 1, [&](Index item, Index) {
        const auto [tensor, begin, end, place] = all[item];
        const float *weight = INPUT(tensor);
        float *average = OUTPUT(count - 4) + place;
#pragma omp simd
        for (Index i = begin; i < end; i++) average[i] += share * (weight[i] - average[i]);
    });
    return 0;
}
