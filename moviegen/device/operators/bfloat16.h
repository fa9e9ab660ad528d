// Factors are rounded to the nearest, ties to even; AMX sums their products in float32. Its tiles hold pairs of
// neighbours in depth: the left one 16 rows of 16 pairs, the right one 16 pairs of rows, of 16 columns.

#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>

#include "panels.h"

#if defined(__AVX512BW__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__AVX512BW__)
#define WITH_TILES __attribute__((target("amx-tile,amx-bf16,avx512bf16")))

// 16 x 32 numbers to a tile of 16 rows if `is_left`, else of 16 columns. Contiguous in depth, or across it.
template <bool IN_DEPTH>
WITH_TILES void round_tile(const float *from, Index stride, bool is_left, float *to) {
    alignas(64) static constexpr auto pairs = [] {
        std::array<int16_t, STEP> order{};
        for (int i = 0; i < STEP; i++) order[i] = i / 2 + i % 2 * TILE;
        return order;
    }();
    Vector line[TILE];
#pragma GCC unroll 16
    for (Index i = 0; i < TILE; i++) {
        const float *first = from + (IN_DEPTH ? i : 2 * i) * stride, *second = first + (IN_DEPTH ? TILE : stride);
        const auto both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(second), _mm512_loadu_ps(first));
        line[i] = (Vector)(IN_DEPTH ? both : _mm512_permutexvar_epi16(_mm512_load_si512(pairs.data()), both));
    }
    if (IN_DEPTH != is_left) exchange<TILE / 2>(line);
#pragma GCC unroll 16
    for (Index i = 0; i < TILE; i++) store(to + i * TILE, line[i]);
}

// All of a matrix (outer, depth), zeros beyond its end, in pairs of rows of tiles.
WITH_TILES void round_tiles(Matrix matrix, bool is_left, float *to) {
    const bool in_depth = matrix.column_stride == 1;
    const auto round = in_depth ? round_tile<true> : round_tile<false>;
    const Index steps = ceil_div(matrix.columns, STEP), tiles = ceil_div(matrix.rows, 2 * TILE) * 2;
    for (Index step = 0; step < steps; step++)
        for (Index t = 0; t < tiles; t++) {
            const Index row = t * TILE, k = step * STEP;
            float *tile = to + (t * steps + step) * TILE * TILE;
            const Index rows = std::clamp<Index>(matrix.rows - row, 0, TILE), depth = std::min(STEP, matrix.columns - k);
            if (rows == TILE && depth == STEP) {
                round(matrix.at(row, k), in_depth ? matrix.row_stride : matrix.column_stride, is_left, tile);
                continue;
            }
            float part[TILE * STEP] = {};
            for (Index i = 0; i < rows; i++)
                for (Index j = 0; j < depth; j++) part[i * STEP + j] = *matrix.at(row + i, k + j);
            round_tile<true>(part, STEP, is_left, tile);
        }
}

// 32 x 32 numbers of a product, of two rows of tiles of either side.
WITH_TILES void multiply_tiles(Index steps, const float *a, const float *b, float *c, Index stride, bool adds) {
    constexpr Index SIZE = TILE * TILE, ROW = TILE * sizeof(float);
    const Index row = stride * sizeof(float);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // GCC does not know that a tile reads memory
    if (adds) {
        _tile_loadd(0, c, row);
        _tile_loadd(1, c + TILE, row);
        _tile_loadd(2, c + TILE * stride, row);
        _tile_loadd(3, c + TILE * stride + TILE, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (Index step = 0; step < steps; step++, a += SIZE, b += SIZE) {
        _tile_loadd(4, a, ROW);
        _tile_loadd(6, b, ROW);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + steps * SIZE, ROW);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + steps * SIZE, ROW);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, row);
    _tile_stored(1, c + TILE, row);
    _tile_stored(2, c + TILE * stride, row);
    _tile_stored(3, c + TILE * stride + TILE, row);
}

// `multiply` with rounded factors; a may be contiguous either way.
WITH_TILES void multiply_rounded(Matrix a, const Panels &b, Index first, Index last, float *c, Index stride, bool adds) {
    static_assert(COLUMNS == 2 * TILE && BLOCK % COLUMNS == 0 && DEPTH % STEP == 0);
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    _tile_loadconfig(&shape);
    float *left = scratch<8>(BLOCK * DEPTH / 2);
    for (Index top = 0; top < a.rows; top += BLOCK)
        for (Index k = 0; k < a.columns; k += DEPTH) {
            const Index block = std::min(BLOCK, a.rows - top), depth = std::min(DEPTH, a.columns - k);
            const Index steps = ceil_div(depth, STEP);
            round_tiles({a.at(top, k), block, depth, a.row_stride, a.column_stride}, true, left);
            for (Index panel = first; panel < last; panel++)
                for (Index row = 0; row < block; row += COLUMNS) {
                    const Index rows = std::min(COLUMNS, block - row);
                    const Index columns = std::min(COLUMNS, b.columns - panel * COLUMNS);
                    const float *from = left + row * steps * TILE, *right = b.at(k, panel);
                    float *to = c + (top + row) * stride + (panel - first) * COLUMNS;
                    if (rows == COLUMNS && columns == COLUMNS) {
                        multiply_tiles(steps, from, right, to, stride, adds || k);
                        continue;
                    }
                    float part[COLUMNS * COLUMNS] = {};
                    for (Index i = 0; i < rows && (adds || k); i++) std::copy_n(to + i * stride, columns, part + i * COLUMNS);
                    multiply_tiles(steps, from, right, part, COLUMNS, true);
                    for (Index i = 0; i < rows; i++) std::copy_n(part + i * COLUMNS, columns, to + i * stride);
                }
        }
    _tile_release();
}

// Asks the kernel, which keeps tiles only for who has asked.
bool may_use_tiles() {
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}
#else
void round_tiles(Matrix, bool, float *) { std::abort(); }
void multiply_rounded(Matrix, const Panels &, Index, Index, float *, Index, bool) { std::abort(); }
bool may_use_tiles() { return false; }
#endif

}  // namespace
