// Sums over tokens, norms and attention.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "products.h"

namespace {

constexpr Index PART = 32;  // rows whose sums are one work item

// Sums over the rows of (B, N, D) that belong to a sample: `add(row, sums)` adds a row to `count` sums of D numbers;
// `finish(sample, sums)` gets a sample's, in one thread after the other.
template <class Add, class Finish>
void sum_rows(Index samples, Index rows, Index width, Index count, Add add, Finish finish) {
    const Index parts = ceil_div(rows, PART), size = count * width;
    float *all = scratch<1>(samples * parts * size);
    parallel(samples * parts, 1, [&](Index begin, Index end) {
        for (Index item = begin; item < end; item++) {
            float *sums = all + item * size;
            std::fill_n(sums, size, 0.0f);
            Index first = item % parts * PART, sample = item / parts;
            for (Index row = first; row < std::min(first + PART, rows); row++) add(sample * rows + row, sums);
        }
    });
    for (Index sample = 0; sample < samples; sample++) {
        float *sums = all + sample * parts * size;
        for (Index part = 1; part < parts; part++)
            for (Index i = 0; i < size; i++) sums[i] += sums[part * size + i];
        finish(sample, sums);
    }
}

// RMS norm of rows (B, N, D) times a weight, then shifted and scaled by sample (paper 3.1.3), where there is a shift.
struct Norm {
    Index samples, rows, width;
    const float *x, *weight, *eps, *shift, *scale;

    float factor(Index row) const {
        const float *from = x + row * width;
        return 1 / std::sqrt(dot(from, from, width) / width + *eps);
    }

    void forward(float *y) const {
        parallel(samples * rows, PART, [&](Index begin, Index end) {
            for (Index row = begin; row < end; row++) {
                const float r = factor(row), *from = x + row * width, *w = weight;
                const float *a = shift + row / rows * width, *c = scale + row / rows * width;
                float *to = y + row * width;
                if (shift)
#pragma omp simd
                    for (Index i = 0; i < width; i++) to[i] = from[i] * r * w[i] * (1 + c[i]) + a[i];
                else
#pragma omp simd
                    for (Index i = 0; i < width; i++) to[i] = from[i] * r * w[i];
            }
        });
    }

    void backward(const float *dy, float *dx, float *dweight, float *dshift, float *dscale) const {
        std::fill_n(dweight, width, 0.0f);
        const std::vector<float> zeros(scale ? 0 : width);
        auto add = [&](Index row, float *sums) {
            const float r = factor(row), *from = x + row * width, *d = dy + row * width, *w = weight;
            const float *c = scale ? scale + row / rows * width : zeros.data();
            float *to = dx + row * width, *of_shift = sums, *of_scale = sums + width, inner = 0;
#pragma omp simd reduction(+ : inner)
            for (Index i = 0; i < width; i++) {
                float normed = from[i] * r, slope = d[i] * w[i] * (1 + c[i]);
                of_shift[i] += d[i];
                of_scale[i] += d[i] * normed;
                inner += slope * normed;
                to[i] = slope;
            }
            inner /= width;
#pragma omp simd
            for (Index i = 0; i < width; i++) to[i] = r * (to[i] - from[i] * r * inner);
        };
        sum_rows(samples, rows, width, 2, add, [&](Index sample, const float *sums) {
            const float *of_scale = sums + width, *c = scale ? scale + sample * width : zeros.data();
            for (Index i = 0; i < width; i++) dweight[i] += of_scale[i] * (1 + c[i]);
            if (!scale) return;
            std::copy_n(sums, width, dshift + sample * width);
            for (Index i = 0; i < width; i++) dscale[sample * width + i] = of_scale[i] * weight[i];
        });
    }
};

// Attention of all heads; tokens (B, N, heads, W). Probabilities live in the cache and nowhere else: those of some queries
// with all keys, and in the gradient, which computes them again from the logarithms of their sums, with some keys.
struct Attention {
    Index samples, queries, keys, heads, width;
    const float *q, *k, *v, *mask;  // (B, M): 1 where a key may be attended to; or none
    bool rounds;                    // factors to bfloat16

    static constexpr float NEVER = -1e4f;  // as in attention.py

    Index stride() const { return heads * width; }
    float scale() const { return 1 / std::sqrt(static_cast<float>(width)); }

    Matrix of(const float *tokens, Index count, Index head) const {
        return {tokens + (head / heads * count * heads + head % heads) * width, count, width, stride()};
    }

    void forward(float *out, float *log_sums) const {
        const Index all = samples * heads, size_k = Panels::size(width, keys), size_v = Panels::size(keys, width);
        float *panels = scratch<1>(all * (size_k + size_v));
        parallel(all, 1, [&](Index head, Index) {
            float *to = panels + head * (size_k + size_v);
            pack_all(of(k, keys, head).transposed(), to, rounds);
            pack_all(of(v, keys, head), to + size_k, rounds);
        });
        const Index blocks = ceil_div(queries, BLOCK);
        parallel(all * blocks, 1, [&](Index item, Index) {
            const Index head = item / blocks, first = item % blocks * BLOCK;
            const Matrix some = part(of(q, queries, head), first, BLOCK);
            const Panels k_panels{panels + head * (size_k + size_v), width, keys, rounds};
            const Panels v_panels{k_panels.data + size_k, keys, width, rounds};
            float *s = scratch<2>(BLOCK * DEPTH), tops[BLOCK], sums[BLOCK];
            float *to = out + (of(q, queries, head).at(first, 0) - q);
            for (Index key = 0; key < keys; key += DEPTH) {
                const Index count = std::min(DEPTH, keys - key);
                multiply(some, k_panels, key / COLUMNS, ceil_div(key + count, COLUMNS), s, DEPTH);
                const float *keep = mask ? mask + head / heads * keys + key : nullptr;
                for (Index row = 0; row < some.rows; row++)
                    add_scores(s + row * DEPTH, keep, count, !key, tops[row], sums[row], to + row * stride());
                multiply({s, some.rows, count, DEPTH}, v_panels.block(key), to, stride(), key);
            }
            for (Index row = 0; row < some.rows; row++) {
                log_sums[head * queries + first + row] = tops[row] + std::log(sums[row]);
                const float factor = 1 / sums[row];
#pragma omp simd
                for (Index i = 0; i < width; i++) to[row * stride() + i] *= factor;
            }
        });
    }

    // Products of a query with some keys to e^(score - top), where top is the largest score so far: what was summed with a
    // smaller one, `sum` and the values in `out`, is scaled (Milakov and Gimelshein 2018).
    void add_scores(float *row, const float *keep, Index count, bool is_first, float &top, float &sum, float *out) const {
        const float factor = scale();
        float largest = -INFINITY, total = 0;
        if (keep)
#pragma omp simd reduction(max : largest)
            for (Index i = 0; i < count; i++) {
                row[i] += (1 - keep[i]) * (NEVER / factor);
                largest = row[i] > largest ? row[i] : largest;
            }
        else
#pragma omp simd reduction(max : largest)
            for (Index i = 0; i < count; i++) largest = row[i] > largest ? row[i] : largest;
        largest *= factor;
        if (is_first) {
            top = largest;
            sum = 0;
        } else if (largest > top) {
            const float less = exponential(top - largest);
            top = largest;
            sum *= less;
#pragma omp simd
            for (Index i = 0; i < width; i++) out[i] *= less;
        }
        const float most = top;
#pragma omp simd reduction(+ : total)
        for (Index i = 0; i < count; i++) total += row[i] = exponential(row[i] * factor - most);
        sum += total;
    }

    void backward(const float *out, const float *log_sums, const float *dout, float *dq, float *dk, float *dv) const {
        parallel(samples * heads, 1, [&](Index head, Index) { backward(head, out, log_sums, dout, dq, dk, dv); });
    }

    void backward(Index head, const float *out, const float *log_sums, const float *dout, float *dq, float *dk,
                  float *dv) const {
        const Matrix q_rows = of(q, queries, head), k_rows = of(k, keys, head), o_rows = of(out, queries, head);
        const Matrix d_rows = of(dout, queries, head);
        const Index size_q = Panels::size(queries, width), size_k = Panels::size(keys, width);
        const Panels q_panels = pack_all(q_rows, scratch<3>(2 * size_q), rounds);
        const Panels d_panels = pack_all(d_rows, q_panels.data + size_q, rounds);
        const Panels k_panels = pack_all(k_rows, scratch<4>(size_k), rounds);
        const Panels k_columns = pack_all(k_rows.transposed(), scratch<5>(2 * Panels::size(width, keys)), rounds);
        const Panels v_columns = pack_all(of(v, keys, head).transposed(), k_columns.data + Panels::size(width, keys), rounds);
        float *p = scratch<6>(2 * DEPTH * DEPTH + queries), *ds = p + DEPTH * DEPTH, *inner = ds + DEPTH * DEPTH;
        for (Index row = 0; row < queries; row++) inner[row] = dot(o_rows.at(row, 0), d_rows.at(row, 0), width);
        for (Index key = 0; key < keys; key += DEPTH)
            for (Index query = 0; query < queries; query += DEPTH) {
                const Matrix some = part(q_rows, query, DEPTH), some_d = part(d_rows, query, DEPTH);
                const Index count = std::min(DEPTH, keys - key), first = key / COLUMNS, last = ceil_div(key + count, COLUMNS);
                multiply(some, k_columns, first, last, p, DEPTH);
                multiply(some_d, v_columns, first, last, ds, DEPTH);
                for (Index row = 0; row < some.rows; row++)
                    slopes(p + row * DEPTH, ds + row * DEPTH, mask ? mask + head / heads * keys + key : nullptr, count,
                           log_sums[head * queries + query + row], inner[query + row]);
                const Matrix p_block{p, some.rows, count, DEPTH}, s_block{ds, some.rows, count, DEPTH};
                float *to_k = dk + (k_rows.at(key, 0) - k), *to_q = dq + (q_rows.at(query, 0) - q);
                float *to_v = dv + (k_rows.at(key, 0) - k);
                multiply(p_block.transposed(), d_panels.block(query), to_v, stride(), query);
                multiply(s_block.transposed(), q_panels.block(query), to_k, stride(), query);
                multiply(s_block, k_panels.block(key), to_q, stride(), key);
            }
    }

    // Products of a query with keys to probabilities, and the probabilities' gradients to the products'.
    void slopes(float *p, float *ds, const float *keep, Index count, float log_sum, float inner) const {
        const float factor = scale();
        if (keep)
#pragma omp simd
            for (Index i = 0; i < count; i++) p[i] = exponential(p[i] * factor + (1 - keep[i]) * NEVER - log_sum);
        else
#pragma omp simd
            for (Index i = 0; i < count; i++) p[i] = exponential(p[i] * factor - log_sum);
#pragma omp simd
        for (Index i = 0; i < count; i++) ds[i] = p[i] * (ds[i] - inner) * factor;
    }
};

}  // namespace
