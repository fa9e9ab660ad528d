// Operators that MindSpore composes from many small ones on CPU, each as one pass over memory with all cores.
//
// Called by `ops.Custom(func_type="aot")`: inputs, then outputs, float32 unless said otherwise. What an operator must know
// is in the shapes of its tensors. Portable: vectors are as wide as the level that this file is compiled for
// (`device/compiler.py`). Sums are divided by work item, never by thread: one thread and several give the same bits.

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

// --------------------------------------------------------------------------------------------------- transformer

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
        float squares = 0;
        const float *from = x + row * width;
#pragma omp simd reduction(+ : squares)
        for (Index i = 0; i < width; i++) squares += from[i] * from[i];
        return 1 / std::sqrt(squares / width + *eps);
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

// Attention of all heads; tokens (B, N, heads, W). A block of queries sees all keys at once, so that its probabilities
// live in the cache and nowhere else; the gradient computes them again from their logarithms' sums.
struct Attention {
    Index samples, queries, keys, heads, width;
    const float *q, *k, *v, *mask;  // (B, M): 1 where a key may be attended to; or none

    static constexpr float NEVER = -1e4f;  // as in attention.py
    Index stride() const { return heads * width; }
    Index padded() const { return ceil_div(keys, COLUMNS) * COLUMNS; }
    float scale() const { return 1 / std::sqrt(static_cast<float>(width)); }
    Matrix of(const float *tokens, Index count, Index head) const {
        return {tokens + (head / heads * count * heads + head % heads) * width, count, width, stride()};
    }
    Matrix of(const float *tokens, Index count, Index head, Index first, Index rows) const {
        Matrix all = of(tokens, count, head);
        return {all.at(first, 0), rows, width, stride()};
    }

    // Scores of some queries with all keys, scaled and masked.
    void scores(Matrix some, const Panels &k_panels, Index sample, float *s) const {
        multiply(some, k_panels, s, padded());
        const float factor = scale(), *keep = mask ? mask + sample * keys : nullptr;
        for (Index row = 0; row < some.rows; row++) {
            float *to = s + row * padded();
            if (mask)
#pragma omp simd
                for (Index i = 0; i < keys; i++) to[i] = to[i] * factor + (1 - keep[i]) * NEVER;
            else
#pragma omp simd
                for (Index i = 0; i < keys; i++) to[i] *= factor;
        }
    }

    void forward(float *out, float *log_sums) const {
        const Index all = samples * heads, size_k = Panels::size(width, keys), size_v = Panels::size(keys, width);
        float *panels = scratch<1>(all * (size_k + size_v));
        parallel(all, 1, [&](Index begin, Index end) {
            for (Index head = begin; head < end; head++) {
                pack_all(of(k, keys, head).transposed(), panels + head * (size_k + size_v));
                pack_all(of(v, keys, head), panels + head * (size_k + size_v) + size_k);
            }
        });
        const Index blocks = ceil_div(queries, BLOCK);
        parallel(all * blocks, 1, [&](Index begin, Index end) {
            float *s = scratch<2>(BLOCK * padded());
            for (Index item = begin; item < end; item++) {
                Index head = item / blocks, first = item % blocks * BLOCK, rows = std::min(BLOCK, queries - first);
                Panels k_panels{panels + head * (size_k + size_v), width, keys};
                scores(of(q, queries, head, first, rows), k_panels, head / heads, s);
                for (Index row = 0; row < rows; row++) log_sums[head * queries + first + row] = softmax(s + row * padded());
                Panels v_panels{k_panels.data + size_k, keys, width};
                float *to = const_cast<float *>(of(out, queries, head, first, rows).data);
                multiply({s, rows, keys, padded()}, v_panels, to, stride());
            }
        });
    }

    // Scores to probabilities; returns the logarithm of the sum of their exponentials.
    float softmax(float *row) const {
        float top = row[0], sum = 0;
#pragma omp simd reduction(max : top)
        for (Index i = 0; i < keys; i++) top = row[i] > top ? row[i] : top;
#pragma omp simd reduction(+ : sum)
        for (Index i = 0; i < keys; i++) sum += row[i] = exponential(row[i] - top);
        const float factor = 1 / sum;
#pragma omp simd
        for (Index i = 0; i < keys; i++) row[i] *= factor;
        return top + std::log(sum);
    }

    void backward(const float *out, const float *log_sums, const float *dout, float *dq, float *dk, float *dv) const {
        parallel(samples * heads, 1, [&](Index begin, Index end) {
            for (Index head = begin; head < end; head++) backward(head, out, log_sums, dout, dq, dk, dv);
        });
    }

    void backward(Index head, const float *out, const float *log_sums, const float *dout, float *dq, float *dk, float *dv) const {
        Panels k_columns = pack_all(of(k, keys, head).transposed(), scratch<3>(Panels::size(width, keys)));
        Panels v_columns = pack_all(of(v, keys, head).transposed(), scratch<4>(Panels::size(width, keys)));
        Panels k_rows = pack_all(of(k, keys, head), scratch<5>(Panels::size(keys, width)));
        float *p = scratch<2>(BLOCK * padded()), *ds = scratch<6>(BLOCK * padded());
        float *block = scratch<7>(Panels::size(BLOCK, width));
        float *to_q = const_cast<float *>(of(dq, queries, head).data), *to_k = const_cast<float *>(of(dk, keys, head).data);
        float *to_v = const_cast<float *>(of(dv, keys, head).data);
        for (Index first = 0; first < queries; first += BLOCK) {
            const Index rows = std::min(BLOCK, queries - first);
            const Matrix q_rows = of(q, queries, head, first, rows), d_rows = of(dout, queries, head, first, rows);
            const Matrix o_rows = of(out, queries, head, first, rows);
            scores(q_rows, k_columns, head / heads, p);
            multiply(d_rows, v_columns, ds, padded());
            for (Index row = 0; row < rows; row++)
                slopes(p + row * padded(), ds + row * padded(), o_rows.at(row, 0), d_rows.at(row, 0),
                       log_sums[head * queries + first + row]);
            const Matrix p_block{p, rows, keys, padded()}, s_block{ds, rows, keys, padded()};
            multiply(p_block.transposed(), pack_all(d_rows, block), to_v, stride(), first);
            multiply(s_block.transposed(), pack_all(q_rows, block), to_k, stride(), first);
            multiply(s_block, k_rows, to_q + first * stride(), stride());
        }
    }

    // Scores to probabilities, and the probabilities' gradients to the scores'.
    void slopes(float *p, float *ds, const float *out, const float *dout, float log_sum) const {
        float inner = 0;
        const float factor = scale();
#pragma omp simd reduction(+ : inner)
        for (Index i = 0; i < width; i++) inner += out[i] * dout[i];
#pragma omp simd
        for (Index i = 0; i < keys; i++) {
            p[i] = exponential(p[i] - log_sum);
            ds[i] = p[i] * (ds[i] - inner) * factor;
        }
    }
};

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

#define ATTENTION(mask)                                                                                              \
    Attention {                                                                                                      \
        shapes[0][0], shapes[0][1], shapes[1][1], shapes[0][2], shapes[0][3], INPUT(0), INPUT(1), INPUT(2), mask     \
    }

// q (B, N, heads, W), k and v (B, M, heads, W) -> softmax(q k^T / sqrt(W)) v, and (B, heads, N) for the gradient
OPERATOR(attention) {
    ATTENTION(nullptr).forward(OUTPUT(3), OUTPUT(4));
    return 0;
}

// q, k, v, out, its second result, dout -> dq, dk, dv
OPERATOR(attention_gradient) {
    ATTENTION(nullptr).backward(INPUT(3), INPUT(4), INPUT(5), OUTPUT(6), OUTPUT(7), OUTPUT(8));
    return 0;
}

// The same with a mask (B, M) after v: 1 where a key may be attended to.
OPERATOR(masked_attention) {
    ATTENTION(INPUT(3)).forward(OUTPUT(4), OUTPUT(5));
    return 0;
}

OPERATOR(masked_attention_gradient) {
    ATTENTION(INPUT(3)).backward(INPUT(4), INPUT(5), INPUT(6), OUTPUT(7), OUTPUT(8), OUTPUT(9));
    return 0;
}
