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

// A tile of R rows and `columns` columns of the product; added to what is there if `adds`. Rows of a are contiguous, or
// columns are (IS_TRANSPOSED); the others are `a_stride` apart.
template <int R, bool IS_TRANSPOSED>
void micro_kernel(Index depth, const float *a, Index a_stride, const float *b, float *c, Index stride, Index columns,
                  bool adds) {
    Vector sum[R][2] = {};
    for (Index k = 0; k < depth; k++, a += IS_TRANSPOSED ? a_stride : 1, b += COLUMNS) {
        Vector left = load(b), right = load(b + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            float factor = a[IS_TRANSPOSED ? i : i * a_stride];
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

template <bool IS_TRANSPOSED, int... R>
constexpr MicroKernel kernel_of(int rows, std::integer_sequence<int, R...>) {
    constexpr MicroKernel kernels[] = {micro_kernel<R + 1, IS_TRANSPOSED>...};
    return kernels[rows - 1];
}

// c = a b, or c += a b, where b is its panels [first, last). Rows or columns of a are contiguous; rows of c are `stride`
// apart. One thread.
void multiply(Matrix a, const Panels &b, Index first, Index last, float *c, Index stride, bool adds = false) {
    if (b.rounds) return multiply_rounded(a, b, first, last, c, stride, adds);
    constexpr auto all = std::make_integer_sequence<int, ROWS>();
    const bool is_transposed = a.column_stride != 1;
    const Index a_stride = is_transposed ? a.column_stride : a.row_stride;
    for (Index top = 0; top < a.rows; top += BLOCK)
        for (Index k = 0; k < a.columns; k += DEPTH)
            for (Index panel = first; panel < last; panel++)
                for (Index row = top; row < std::min(top + BLOCK, a.rows); row += ROWS) {
                    const Index rows = std::min<Index>(ROWS, a.rows - row);
                    const auto kernel = is_transposed ? kernel_of<true>(rows, all) : kernel_of<false>(rows, all);
                    kernel(std::min(DEPTH, a.columns - k), a.at(row, k), a_stride, b.at(k, panel),
                           c + row * stride + (panel - first) * COLUMNS, stride,
                           std::min(COLUMNS, b.columns - panel * COLUMNS), adds || k);
                }
}

void multiply(Matrix a, const Panels &b, float *c, Index stride, bool adds = false) {
    multiply(a, b, 0, b.count(), c, stride, adds);
}

// At most `rows` rows from `row` on, and `columns` columns from `column` on, or all of those.
Matrix part(Matrix all, Index row, Index rows, Index column, Index columns) {
    return {all.at(row, column), std::min(rows, all.rows - row), std::min(columns, all.columns - column), all.row_stride,
            all.column_stride};
}

Matrix part(Matrix all, Index row, Index rows) { return part(all, row, rows, 0, all.columns); }

// c = a^T b with all threads; both have many rows. A work item packs some rows of its columns of either side at a time
// into its L2 cache, where its part of c stays.
void product_of_columns(Matrix a, Matrix b, float *c) {
    Index tall = 8, wide = 16;  // panels of either side, at most
    const Index left_panels = ceil_div(a.columns, COLUMNS), right_panels = ceil_div(b.columns, COLUMNS);
    auto items = [&] { return ceil_div(left_panels, tall) * ceil_div(right_panels, wide); };
    while (items() < pool().threads && tall * wide > 4) (tall > wide / 2 ? tall : wide) /= 2;
    const Index rows = ceil_div(left_panels, tall), columns = items() / rows;
    parallel(items(), 1, [&](Index item, Index) {
        const Index top = left_panels * (item / columns) / rows, bottom = left_panels * (item / columns + 1) / rows;
        const Index left = right_panels * (item % columns) / columns, right = right_panels * (item % columns + 1) / columns;
        float *packed = scratch<1>(DEPTH * (bottom - top + right - left) * COLUMNS);
        for (Index k = 0; k < a.rows; k += DEPTH) {
            const Panels of_a = pack_all(part(a, k, DEPTH, top * COLUMNS, (bottom - top) * COLUMNS), packed);
            const Panels of_b = pack_all(part(b, k, DEPTH, left * COLUMNS, (right - left) * COLUMNS),
                                         packed + DEPTH * (bottom - top) * COLUMNS);
            for (Index panel = top; panel < bottom; panel++) {
                const Index height = std::min(COLUMNS, a.columns - panel * COLUMNS);
                multiply({of_a.at(0, panel - top), height, of_a.depth, 1, COLUMNS}, of_b,
                         c + panel * COLUMNS * b.columns + left * COLUMNS, b.columns, k);
            }
        }
    });
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
            const Matrix rows = part(a, top, share);
            float *packed = scratch<1>(Panels::size(b.rows, together * COLUMNS));
            const Index end = std::min(width * (group + 1) / groups * COLUMNS, b.columns);
            for (Index column = width * group / groups * COLUMNS; column < end; column += together * COLUMNS) {
                const Matrix some = part(b, 0, b.rows, column, std::min(together * COLUMNS, end - column));
                multiply(rows, pack_all(some, packed, rounds), c + top * b.columns + column, b.columns);
            }
        });
        return;
    }
    if (a.column_stride != 1 && !rounds) return product_of_columns(a.transposed(), b, c);
    const Panels panels{scratch<1>(Panels::size(b.rows, b.columns)), b.rows, b.columns, rounds};
    parallel(ceil_div(b.rows, DEPTH) * width, 1,
             [&](Index item, Index) { pack(b, panels, item / width * DEPTH, item % width); });
    const Index blocks = ceil_div(a.rows, BLOCK), groups = std::min(width, ceil_div(4 * threads, blocks));
    parallel(blocks * groups, 1, [&](Index item, Index) {
        const Index top = item / groups * BLOCK, group = item % groups;
        const Index first = width * group / groups, last = width * (group + 1) / groups;
        multiply(part(a, top, BLOCK), panels, first, last, c + top * b.columns + first * COLUMNS, b.columns);
    });
}

Matrix as_matrix(const void *data, int rank, const int64_t *shape) {
    Index columns = shape[rank - 1];
    return {static_cast<const float *>(data), elements(rank, shape) / columns, columns, columns};
}

}  // namespace
