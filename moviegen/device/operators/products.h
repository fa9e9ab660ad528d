// Products of matrices.

#pragma once

#include <algorithm>
#include <cstring>
#include <utility>

#include "bfloat16.h"

namespace {

// DEPTH rows from `row` on of panel `panel` of a matrix whose rows or columns are contiguous.
void pack(Matrix matrix, const Panels &panels, Index row, Index panel) {
    const Index column = panel * COLUMNS, width = std::min(COLUMNS, matrix.columns - column);
    const Index depth = std::min(DEPTH, matrix.rows - row);
    const Matrix columns{matrix.at(row, column), width, depth, matrix.column_stride, matrix.row_stride};
    float *to = panels.at(row, panel);
    if (panels.rounds) return round_tiles(columns, false, to);
    if (width < COLUMNS) std::memset(to, 0, depth * COLUMNS * sizeof(float));
    if (matrix.column_stride == 1)
        for (Index k = 0; k < depth; k++) std::copy_n(columns.at(0, k), width, to + k * COLUMNS);
    else
        transpose(columns, to, COLUMNS);
}

Panels pack_all(Matrix matrix, float *to, bool rounds = false) {
    Panels panels{to, matrix.rows, matrix.columns, rounds};
    for (Index row = 0; row < matrix.rows; row += DEPTH)
        for (Index panel = 0; panel < panels.count(); panel++) pack(matrix, panels, row, panel);
    return panels;
}

// A tile of R rows and `columns` columns of the product; added to what is there if `adds`.
template <int R>
void micro_kernel(Index depth, const float *a, Index row_stride, const float *b, float *c, Index stride, Index columns,
                  bool adds) {
    Vector sum[R][2] = {};
    for (Index k = 0; k < depth; k++, a++, b += COLUMNS) {
        Vector left = load(b), right = load(b + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            float factor = a[i * row_stride];
            sum[i][0] += factor * left;
            sum[i][1] += factor * right;
        }
    }
    if (columns < COLUMNS) {
        for (int i = 0; i < R; i++) {
            float row[COLUMNS];
            store(row, sum[i][0]);
            store(row + LANES, sum[i][1]);
            for (Index j = 0; j < columns; j++) c[i * stride + j] = adds ? c[i * stride + j] + row[j] : row[j];
        }
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
        float *row = c + i * stride;
        store(row, adds ? load(row) + sum[i][0] : sum[i][0]);
        store(row + LANES, adds ? load(row + LANES) + sum[i][1] : sum[i][1]);
    }
}

using MicroKernel = void (*)(Index, const float *, Index, const float *, float *, Index, Index, bool);

template <int... R>
constexpr MicroKernel kernel_of(int rows, std::integer_sequence<int, R...>) {
    constexpr MicroKernel kernels[] = {micro_kernel<R + 1>...};
    return kernels[rows - 1];
}

// c = a b, or c += a b, where b is its panels [first, last). Rows of a are contiguous, those of c `stride` apart. One thread.
void multiply(Matrix a, const Panels &b, Index first, Index last, float *c, Index stride, bool adds = false) {
    if (b.rounds) return multiply_rounded(a, b, first, last, c, stride, adds);
    for (Index top = 0; top < a.rows; top += BLOCK)
        for (Index k = 0; k < a.columns; k += DEPTH)
            for (Index panel = first; panel < last; panel++)
                for (Index row = top; row < std::min(top + BLOCK, a.rows); row += ROWS) {
                    const Index rows = std::min<Index>(ROWS, a.rows - row);
                    const auto kernel = kernel_of(rows, std::make_integer_sequence<int, ROWS>());
                    kernel(std::min(DEPTH, a.columns - k), a.at(row, k), a.row_stride, b.at(k, panel),
                           c + row * stride + (panel - first) * COLUMNS, stride,
                           std::min(COLUMNS, b.columns - panel * COLUMNS), adds || k);
                }
}

void multiply(Matrix a, const Panels &b, float *c, Index stride, bool adds = false) {
    multiply(a, b, 0, b.count(), c, stride, adds);
}

// Some rows of a matrix: as they are if they are contiguous or will be rounded, else a copy.
Matrix contiguous_rows(Matrix all, Index top, Index rows, bool rounds = false) {
    if (rounds || all.column_stride == 1) return {all.at(top, 0), rows, all.columns, all.row_stride, all.column_stride};
    float *copy = scratch<0>(rows * all.columns);
    transpose({all.at(top, 0), all.columns, rows, all.column_stride, all.row_stride}, copy, all.columns);
    return {copy, rows, all.columns, all.columns};
}

// c = a b with all threads; c is row-major and contiguous.
void product(Matrix a, Matrix b, float *c, bool rounds = false) {
    const Index threads = pool().threads, width = ceil_div(b.columns, COLUMNS);
    constexpr Index ONE_THREAD = 1 << 16;  // multiplications that are done before another thread has woken
    constexpr Index CACHED = 1 << 17;      // numbers of a that stay in the L2 cache of a core
    constexpr Index FEW = 4 * ROWS;        // rows for which a thread does not pack all of b
    const Index together = rounds ? 8 : 1;           // panels: rows are rounded once for all of these
    const Index unit = rounds ? COLUMNS : ROWS;      // rows of a tile
    const bool is_tiny = a.rows * a.columns * b.columns < ONE_THREAD;
    if (is_tiny || a.rows * a.columns <= CACHED * threads) {
        // Rows are shared where there are enough, as they come from the core that has them; else columns.
        const bool by_rows = is_tiny || a.rows >= FEW * threads;
        const Index share = is_tiny || !by_rows ? a.rows : ceil_div(ceil_div(a.rows, threads), unit) * unit;
        const Index groups = by_rows ? 1 : std::min(width, threads);
        parallel(ceil_div(a.rows, share) * groups, 1, [&](Index item, Index) {
            const Index top = item / groups * share, group = item % groups;
            const Matrix rows = contiguous_rows(a, top, std::min(share, a.rows - top), rounds);
            float *packed = scratch<1>(Panels::size(b.rows, together * COLUMNS));
            const Index end = std::min(width * (group + 1) / groups * COLUMNS, b.columns);
            for (Index column = width * group / groups * COLUMNS; column < end; column += together * COLUMNS) {
                const Matrix some{b.at(0, column), b.rows, std::min(together * COLUMNS, end - column), b.row_stride,
                                  b.column_stride};
                multiply(rows, pack_all(some, packed, rounds), c + top * b.columns + column, b.columns);
            }
        });
        return;
    }
    const Panels panels{scratch<1>(Panels::size(b.rows, b.columns)), b.rows, b.columns, rounds};
    parallel(ceil_div(b.rows, DEPTH) * width, 1,
             [&](Index item, Index) { pack(b, panels, item / width * DEPTH, item % width); });
    const Index blocks = ceil_div(a.rows, BLOCK), groups = std::min(width, ceil_div(4 * threads, blocks));
    parallel(blocks * groups, 1, [&](Index item, Index) {
        const Index top = item / groups * BLOCK, group = item % groups;
        const Index first = width * group / groups, last = width * (group + 1) / groups;
        multiply(contiguous_rows(a, top, std::min(BLOCK, a.rows - top), rounds), panels, first, last,
                 c + top * b.columns + first * COLUMNS, b.columns);
    });
}

Matrix as_matrix(const void *data, int rank, const int64_t *shape) {
    Index columns = shape[rank - 1];
    return {static_cast<const float *>(data), elements(rank, shape) / columns, columns, columns};
}

}  // namespace
