// Vectors as wide as the level that this is compiled for, and functions of numbers that become vectors.

#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "threads.h"

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 12;  // of 32 registers 24 hold a tile of the product
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6;  // 12 of 16
#elif defined(__aarch64__)
constexpr int LANES = 4, ROWS = 12;
#else
constexpr int LANES = 4, ROWS = 6;
#endif
constexpr Index COLUMNS = 2 * LANES;  // of a tile
constexpr Index DEPTH = 256;          // of a panel: with a tile's rows it stays in the L1 cache
constexpr Index BLOCK = 8 * ROWS;     // rows that stay in the L2 cache

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float Unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));

inline Vector load(const float *from) { return *reinterpret_cast<const Unaligned *>(from); }
inline void store(float *to, Vector value) { *reinterpret_cast<Unaligned *>(to) = value; }

constexpr Index ceil_div(Index value, Index by) { return (value + by - 1) / by; }

Index elements(int rank, const int64_t *shape) {
    Index product = 1;
    for (int axis = 0; axis < rank; axis++) product *= shape[axis];
    return product;
}

// e^x to 1 ulp, for loops that the compiler turns into vectors: a polynomial on [-ln 2 / 2, ln 2 / 2] times a power of 2.
// 0 where that would be no normal number: processors take a hundred cycles for each product with such a one, and a masked
// key's gradients are sums of them.
inline float exponential(float x) {
    x = x < -87.3f ? -88.0f : x;  // whose power of 2 has no bits
    x = x > 88.0f ? 88.0f : x;
    float power = x * 1.44269504f + 12582912.0f;  // rounds to an integer in the lowest bits
    power -= 12582912.0f;
    float rest = x - power * 0.693145752f - power * 1.42860677e-6f;
    float sum = 1.0f / 720;
    sum = sum * rest + 1.0f / 120;
    sum = sum * rest + 1.0f / 24;
    sum = sum * rest + 1.0f / 6;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    sum = sum * rest + 1.0f;
    return sum * std::bit_cast<float>((static_cast<int32_t>(power) + 127) << 23);
}

inline float dot(const float *x, const float *y, Index count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < count; i++) sum += x[i] * y[i];
    return sum;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace
