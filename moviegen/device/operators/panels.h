// Matrices that are anywhere, and what the micro-kernels of products read.

#pragma once

#include <algorithm>
#include <array>
#include <bit>

#include "vectors.h"

namespace {

// A view of numbers that are anywhere.
struct Matrix {
    const float *data;
    Index rows, columns, row_stride, column_stride = 1;

    Matrix transposed() const { return {data, columns, rows, column_stride, row_stride}; }
    const float *at(Index row, Index column) const { return data + row * row_stride + column * column_stride; }
};

constexpr Index TILE = 16, STEP = 32;  // AMX: rows or columns of a tile, products that it sums at once

// One side of a product, COLUMNS columns beside each other and DEPTH rows at a time, zeros beyond its end: what the
// micro-kernel reads is contiguous. Where the product rounds its factors, tiles of bfloat16, which are half as large.
struct Panels {
    float *data;
    Index depth, columns;
    bool rounds = false;

    static Index size(Index depth, Index columns) {
        return std::max(depth, STEP / 2) * ceil_div(columns, COLUMNS) * COLUMNS;
    }
    Index count() const { return ceil_div(columns, COLUMNS); }
    float *at(Index row, Index panel) const {  // `row` is a multiple of DEPTH
        const Index rest = rounds ? ceil_div(depth - row, STEP) * STEP : depth - row;
        return data + (row * count() + std::min(DEPTH, rest) * panel) * COLUMNS / (rounds ? 2 : 1);
    }
    Panels block(Index row) const { return {at(row, 0), std::min(DEPTH, depth - row), columns, rounds}; }  // DEPTH rows
};

// Which lanes of two vectors, one after the other, are in the upper or lower of the two that exchange their quarters.
template <int HALF, bool IS_UPPER>
Integers exchanged() {
    static constexpr auto lanes = [] {
        std::array<int32_t, LANES> of{};
        for (int j = 0; j < LANES; j++) of[j] = IS_UPPER ? (j & HALF ? LANES + j - HALF : j) : (j & HALF ? LANES + j : j + HALF);
        return of;
    }();
    return std::bit_cast<Integers>(lanes);
}

// Swaps the off-diagonal quarters of squares of 2 HALF rows, then of smaller ones.
template <int HALF>
[[gnu::always_inline]] inline void exchange(Vector *row) {
    if constexpr (HALF > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & HALF)) {
                const Vector upper = row[i], lower = row[i + HALF];
#if defined(__clang__)
                const Integers first = exchanged<HALF, true>(), second = exchanged<HALF, false>();
                for (int j = 0; j < LANES; j++) {
                    row[i][j] = first[j] < LANES ? upper[first[j]] : lower[first[j] - LANES];
                    row[i + HALF][j] = second[j] < LANES ? upper[second[j]] : lower[second[j] - LANES];
                }
#else
                row[i] = __builtin_shuffle(upper, lower, exchanged<HALF, true>());
                row[i + HALF] = __builtin_shuffle(upper, lower, exchanged<HALF, false>());
#endif
            }
        exchange<HALF / 2>(row);
    }
}

// LANES x LANES numbers, rows `from_stride` apart, to columns.
inline void transpose_square(const float *from, Index from_stride, float *to, Index to_stride) {
    Vector row[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) row[i] = load(from + i * from_stride);
    exchange<LANES / 2>(row);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) store(to + i * to_stride, row[i]);
}

// Rows of `from` as columns of `to`.
void transpose(Matrix from, float *to, Index to_stride) {
    Index i = 0;
    for (; i + LANES <= from.rows; i += LANES) {
        Index j = 0;
        for (; j + LANES <= from.columns; j += LANES)
            transpose_square(from.at(i, j), from.row_stride, to + j * to_stride + i, to_stride);
        for (; j < from.columns; j++)
            for (Index r = i; r < i + LANES; r++) to[j * to_stride + r] = *from.at(r, j);
    }
    for (; i < from.rows; i++)
        for (Index j = 0; j < from.columns; j++) to[j * to_stride + i] = *from.at(i, j);
}

}  // namespace
