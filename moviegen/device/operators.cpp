// Operators that MindSpore composes from many small ones on CPU, each as one pass over memory with all cores.
//
// Called by `ops.Custom(func_type="aot")`: inputs, then outputs, float32 unless said otherwise. What an operator must know
// is in the shapes of its tensors. Portable: vectors are as wide as the level that this file is compiled for
// (`device/compiled.py`). Sums are divided by work item, never by thread: one thread and several give the same bits.

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <sched.h>

#define EXPORTED extern "C" [[gnu::visibility("default")]] int
#define OPERATOR(name)                                                                                       \
    EXPORTED name([[maybe_unused]] int count, void **data, [[maybe_unused]] int *ranks,                       \
                  [[maybe_unused]] int64_t **shapes, const char **, void *, void *)
#define INPUT(i) static_cast<const float *>(data[i])
#define OUTPUT(i) static_cast<float *>(data[i])
#define MATRIX(i) as_matrix(data[i], ranks[i], shapes[i])

namespace {

using Index = int64_t;

// ------------------------------------------------------------------------------------------------------- threads

// Keeps its threads for the life of the process. They spin for some microseconds, as the next operator comes soon, then
// sleep. OpenMP keeps a team for every thread that calls it, and MindSpore calls from several.
class Pool {
  public:
    Pool() {
        const char *asked = std::getenv("MOVIEGEN_THREADS");
        threads = asked ? std::max(1, std::atoi(asked)) : available();
        for (int i = 1; i < threads; i++) std::thread([this] { work(); }).detach();
    }

    // Calls job(argument) once in every thread; at once, in this thread alone, where another caller has the others.
    void run(void (*job)(void *), void *argument) {
        std::unique_lock<std::mutex> lock(busy, std::try_to_lock);
        if (threads == 1 || !lock) return job(argument);
        this->job = job;
        this->argument = argument;
        left.store(threads - 1, std::memory_order_relaxed);
        generation.fetch_add(1, std::memory_order_release);
        generation.notify_all();
        job(argument);
        for (int spins = 0; left.load(std::memory_order_acquire); spins++) spins < SPINS ? pause() : void(sched_yield());
    }

    int threads;

  private:
    static constexpr int SPINS = 4000;

    static int available() {
        cpu_set_t cores;
        return sched_getaffinity(0, sizeof cores, &cores) ? 1 : CPU_COUNT(&cores);
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    void work() {
        for (uint32_t seen = 0;;) {
            for (int spins = 0; generation.load(std::memory_order_acquire) == seen; spins++)
                spins < SPINS ? pause() : generation.wait(seen, std::memory_order_acquire);
            seen = generation.load(std::memory_order_acquire);
            job(argument);
            left.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex busy;
    std::atomic<uint32_t> generation{0};
    std::atomic<int> left{0};
    void (*job)(void *);
    void *argument;
};

Pool &pool() {
    static Pool *const one = new Pool;  // never destroyed: its threads may outlive what the process tears down
    return *one;
}

// f(begin, end) over [0, count), in pieces of `grain` that threads take as they get to them.
template <class F>
void parallel(Index count, Index grain, F f) {
    if (count <= grain || pool().threads == 1) {
        for (Index begin = 0; begin < count; begin += grain) f(begin, std::min(begin + grain, count));
        return;
    }
    std::atomic<Index> next{0};
    auto take = [&] {
        for (Index begin; (begin = next.fetch_add(grain)) < count;) f(begin, std::min(begin + grain, count));
    };
    pool().run([](void *argument) { (*static_cast<decltype(take) *>(argument))(); }, &take);
}

// Memory of this thread's own that stays for the next call.
template <int SLOT>
float *scratch(Index floats) {
    thread_local struct Buffer {
        float *data = nullptr;
        Index size = 0;
        ~Buffer() { std::free(data); }
    } buffer;
    if (buffer.size < floats) {
        std::free(buffer.data);
        buffer.size = (floats + 1023) / 1024 * 1024;
        buffer.data = static_cast<float *>(std::aligned_alloc(64, buffer.size * sizeof(float)));
        if (!buffer.data) std::abort();
    }
    return buffer.data;
}

// ------------------------------------------------------------------------------------------------------- vectors

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
inline float exponential(float x) {
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.0f ? 88.0f : x;
    float power = x * 1.44269504f + 12582912.0f;  // rounds to an integer in the lowest bits
    power -= 12582912.0f;
    float rest = x - power * 0.693145752f - power * 1.42860677e-6f;
    float sum = 1.0f / 5040;
    sum = sum * rest + 1.0f / 720;
    sum = sum * rest + 1.0f / 120;
    sum = sum * rest + 1.0f / 24;
    sum = sum * rest + 1.0f / 6;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    sum = sum * rest + 1.0f;
    return sum * std::bit_cast<float>((static_cast<int32_t>(power) + 127) << 23);
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

// ------------------------------------------------------------------------------------------------------- products

// A view of numbers that are anywhere.
struct Matrix {
    const float *data;
    Index rows, columns, row_stride, column_stride = 1;

    Matrix transposed() const { return {data, columns, rows, column_stride, row_stride}; }
    const float *at(Index row, Index column) const { return data + row * row_stride + column * column_stride; }
};

// One side of a product, COLUMNS columns beside each other and DEPTH rows at a time, zeros beyond its end: what the
// micro-kernel reads is contiguous.
struct Panels {
    float *data;
    Index depth, columns;

    static Index size(Index depth, Index columns) { return depth * ceil_div(columns, COLUMNS) * COLUMNS; }
    Index count() const { return ceil_div(columns, COLUMNS); }
    float *at(Index row, Index panel) const {  // `row` is a multiple of DEPTH
        return data + row * count() * COLUMNS + std::min(DEPTH, depth - row) * COLUMNS * panel;
    }
};

// LANES x LANES numbers, rows `from_stride` apart, to columns.
inline void transpose_square(const float *from, Index from_stride, float *to, Index to_stride) {
    Vector row[LANES];
    for (int i = 0; i < LANES; i++) row[i] = load(from + i * from_stride);
#if defined(__clang__)
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++) to[j * to_stride + i] = row[i][j];
#else
#pragma GCC unroll 4
    for (int half = LANES / 2; half; half /= 2) {  // swaps the off-diagonal quarters of squares, ever smaller ones
        Integers low, high;
        for (int j = 0; j < LANES; j++) {
            low[j] = j & half ? LANES + j - half : j;
            high[j] = j & half ? LANES + j : j + half;
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & half)) {
                Vector upper = row[i], lower = row[i + half];
                row[i] = __builtin_shuffle(upper, lower, low);
                row[i + half] = __builtin_shuffle(upper, lower, high);
            }
    }
    for (int i = 0; i < LANES; i++) store(to + i * to_stride, row[i]);
#endif
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

// Panel `panel` of a matrix whose rows or columns are contiguous.
void pack(Matrix matrix, const Panels &panels, Index panel) {
    Index column = panel * COLUMNS, width = std::min(COLUMNS, matrix.columns - column);
    for (Index row = 0; row < matrix.rows; row += DEPTH) {
        Index depth = std::min(DEPTH, matrix.rows - row);
        float *to = panels.at(row, panel);
        if (width < COLUMNS) std::memset(to, 0, depth * COLUMNS * sizeof(float));
        if (matrix.column_stride == 1)
            for (Index k = 0; k < depth; k++) std::copy_n(matrix.at(row + k, column), width, to + k * COLUMNS);
        else
            transpose({matrix.at(row, column), width, depth, matrix.column_stride, matrix.row_stride}, to, COLUMNS);
    }
}

Panels pack_all(Matrix matrix, float *to) {
    Panels panels{to, matrix.rows, matrix.columns};
    for (Index panel = 0; panel < panels.count(); panel++) pack(matrix, panels, panel);
    return panels;
}

// A tile of R rows and `columns` columns of the product; added to what is there if `adds`.
template <int R>
void micro_kernel(Index depth, const float *a, Index row_stride, Index step, const float *b, float *c, Index stride,
                  Index columns, bool adds) {
    Vector sum[R][2] = {};
    for (Index k = 0; k < depth; k++, a += step, b += COLUMNS) {
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

using MicroKernel = void (*)(Index, const float *, Index, Index, const float *, float *, Index, Index, bool);

template <int... R>
constexpr MicroKernel kernel_of(int rows, std::integer_sequence<int, R...>) {
    constexpr MicroKernel kernels[] = {micro_kernel<R + 1>...};
    return kernels[rows - 1];
}

// c = a b, or c += a b, for the panels [first, last) of b; c is row-major with rows `stride` apart. One thread.
void multiply(Matrix a, const Panels &b, Index first, Index last, float *c, Index stride, bool adds = false) {
    bool is_contiguous = a.column_stride == 1;
    float *packed = is_contiguous ? nullptr : scratch<0>(BLOCK * DEPTH);
    for (Index top = 0; top < a.rows; top += BLOCK)
        for (Index k = 0; k < a.columns; k += DEPTH) {
            Index rows = std::min(BLOCK, a.rows - top), depth = std::min(DEPTH, a.columns - k);
            if (!is_contiguous)  // ROWS rows beside each other
                for (Index i = 0; i < rows; i += ROWS)
                    for (Index d = 0; d < depth; d++) {
                        const float *from = a.at(top + i, k + d);
                        float *to = packed + i * depth + d * std::min<Index>(ROWS, rows - i);
                        for (Index r = 0; r < std::min<Index>(ROWS, rows - i); r++) to[r] = from[r * a.row_stride];
                    }
            for (Index panel = first; panel < last; panel++)
                for (Index i = 0; i < rows; i += ROWS) {
                    Index tile = std::min<Index>(ROWS, rows - i), column = panel * COLUMNS;
                    auto kernel = kernel_of(tile, std::make_integer_sequence<int, ROWS>());
                    const float *from = is_contiguous ? a.at(top + i, k) : packed + i * depth;
                    kernel(depth, from, is_contiguous ? a.row_stride : 1, is_contiguous ? 1 : tile, b.at(k, panel),
                           c + (top + i) * stride + column, stride, std::min(COLUMNS, b.columns - column), adds || k);
                }
        }
}

void multiply(Matrix a, const Panels &b, float *c, Index stride, bool adds = false) {
    multiply(a, b, 0, b.count(), c, stride, adds);
}

// c = a b with all threads; c is row-major and contiguous.
void product(Matrix a, Matrix b, float *c) {
    Panels panels{scratch<1>(Panels::size(b.rows, b.columns)), b.rows, b.columns};
    const Index threads = pool().threads, width = panels.count();
    constexpr Index ONE_THREAD = 1 << 17;  // multiplications that are done before another thread has woken
    constexpr Index CACHED = 1 << 18;      // numbers that stay in the L2 cache
    const bool is_tiny = a.rows * a.columns * b.columns < ONE_THREAD;
    if (is_tiny || (width >= 2 * threads && a.rows * a.columns < CACHED)) {  // each panel is used by who packed it
        parallel(width, is_tiny ? width : 1, [&](Index begin, Index end) {
            for (Index panel = begin; panel < end; panel++) pack(b, panels, panel);
            multiply(a, panels, begin, end, c, b.columns);
        });
        return;
    }
    parallel(width, 1, [&](Index begin, Index end) {
        for (Index panel = begin; panel < end; panel++) pack(b, panels, panel);
    });
    const Index blocks = ceil_div(a.rows, BLOCK), groups = std::min(width, ceil_div(4 * threads, blocks));
    parallel(blocks * groups, 1, [&](Index begin, Index end) {
        for (Index item = begin; item < end; item++) {
            Index top = item / groups * BLOCK, group = item % groups;
            Matrix rows{a.at(top, 0), std::min(BLOCK, a.rows - top), a.columns, a.row_stride, a.column_stride};
            multiply(rows, panels, width * group / groups, width * (group + 1) / groups, c + top * b.columns, b.columns);
        }
    });
}

Matrix as_matrix(const void *data, int rank, const int64_t *shape) {
    Index columns = shape[rank - 1];
    return {static_cast<const float *>(data), elements(rank, shape) / columns, columns, columns};
}

}  // namespace

// Whether this library computes on this processor: 14.
EXPORTED moviegen_check() {
    const float left[] = {1, 2, 3}, right[] = {1, 2, 3};
    float result = 0;
    product({left, 1, 3, 3}, {right, 3, 1, 1}, &result);
    return static_cast<int>(result);
}

// x (..., in), w (out, in) -> x w^T (..., out)
OPERATOR(linear) {
    product(MATRIX(0), MATRIX(1).transposed(), OUTPUT(2));
    return 0;
}

// x, w, dy -> dx, dw
OPERATOR(linear_gradient) {
    Matrix x = MATRIX(0), w = MATRIX(1), dy = MATRIX(2);
    product(dy, w, OUTPUT(3));
    product(dy.transposed(), x, OUTPUT(4));
    return 0;
}
