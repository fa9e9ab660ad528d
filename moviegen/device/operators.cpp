// Operators that MindSpore composes from many small ones on CPU, each as one pass over memory with all cores.
//
// Called by `ops.Custom(func_type="aot")`: inputs, then outputs, float32 unless said otherwise. What an operator must know
// is in the shapes of its tensors. Portable: vectors are as wide as the level that this file is compiled for
// (`device/compiler.py`). Sums are divided by work item, never by thread: one thread and several give the same bits.

// GCC would give each side of a bound (`exponential`) a copy of what follows, compute both for all lanes, and take a
// hundred cycles for each product that is too small to be a normal number.
#pragma GCC optimize("no-thread-jumps")

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <sched.h>
#if defined(__AVX512BW__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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
        for (int i = 1; i < threads; i++) std::thread([this, i] { work(i); }).detach();
    }

    // Calls job(argument, i) in this thread, with i = 0, and in those others that are awake before this one is done: a job
    // must be able to do all alone. Where another caller has the others, it does.
    void run(void (*job)(void *, int), void *argument) {
        std::unique_lock<std::mutex> lock(busy, std::try_to_lock);
        if (threads == 1 || !lock) return job(argument, 0);
        this->job = job;
        this->argument = argument;
        state.store((++generation << 32) | OPEN, std::memory_order_release);
        state.notify_all();
        job(argument, 0);
        state.fetch_and(~OPEN, std::memory_order_acq_rel);
        for (int spins = 0; uint32_t(state.load(std::memory_order_acquire)); spins++)
            spins < SPINS ? pause() : void(sched_yield());
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

    void work(int index) {
        for (uint64_t seen = 0;;) {
            uint64_t now = state.load(std::memory_order_acquire);
            for (int spins = 0; now >> 32 == seen >> 32 || !(now & OPEN); now = state.load(std::memory_order_acquire))
                spins++ < SPINS ? pause() : state.wait(now, std::memory_order_acquire);
            if (!state.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
            job(argument, index);
            state.fetch_sub(1, std::memory_order_release);
            seen = now;
        }
    }

    static constexpr uint64_t OPEN = 1 << 16;  // beside the number of threads that are at the job; above: its number
    std::mutex busy;
    std::atomic<uint64_t> state{0};
    uint64_t generation = 0;
    void (*job)(void *, int);
    void *argument;
};

Pool &pool() {
    static Pool *const one = new Pool;  // never destroyed: its threads may outlive what the process tears down
    return *one;
}

// f(begin, end) over [0, count), in pieces of `grain`. Each thread has a share of neighbours, the same in every operator,
// so that rows stay in the cache of the core that made them; who is ready helps the others.
template <class F>
void parallel(Index count, Index grain, F f) {
    const Index pieces = (count + grain - 1) / grain;
    const int threads = pool().threads;
    auto piece = [&](Index i) { f(i * grain, std::min((i + 1) * grain, count)); };
    if (pieces <= 1 || threads == 1) {
        for (Index i = 0; i < pieces; i++) piece(i);
        return;
    }
    struct alignas(64) Share {
        std::atomic<Index> next;
        Index end;
    };
    std::vector<Share> shares(threads);
    for (int i = 0; i < threads; i++) {
        shares[i].next.store(pieces * i / threads, std::memory_order_relaxed);
        shares[i].end = pieces * (i + 1) / threads;
    }
    auto take = [&](int thread) {
        for (int turn = 0; turn < threads; turn++) {
            Share &share = shares[(thread + turn) % threads];
            for (Index i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) piece(i);
        }
    };
    pool().run([](void *argument, int thread) { (*static_cast<decltype(take) *>(argument))(thread); }, &take);
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

// ------------------------------------------------------------------------------------------------------- products

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

// ------------------------------------------------------------------------------------------------------ bfloat16
// Factors are rounded to the nearest, ties to even; AMX sums their products in float32. Its tiles hold pairs of
// neighbours in depth: the left one 16 rows of 16 pairs, the right one 16 pairs of rows, of 16 columns.

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

// ------------------------------------------------------------------------------------------- products of any matrices

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
    static Matrix block(Matrix tokens, Index first, Index rows) {
        return {tokens.at(first, 0), std::min(rows, tokens.rows - first), tokens.columns, tokens.row_stride};
    }

    void forward(float *out, float *log_sums) const {
        const Index all = samples * heads, size_k = Panels::size(width, keys), size_v = Panels::size(keys, width);
        float *panels = scratch<1>(all * (size_k + size_v));
        parallel(all, 1, [&](Index head, Index) {
            float *to = panels + head * (size_k + size_v);
            pack_all(of(k, keys, head).transposed(), to, rounds);
            pack_all(of(v, keys, head), to + size_k, rounds);
        });
        const Index blocks = ceil_div(queries, BLOCK), padded = ceil_div(keys, COLUMNS) * COLUMNS;
        parallel(all * blocks, 1, [&](Index item, Index) {
            const Index head = item / blocks, first = item % blocks * BLOCK;
            const Matrix some = block(of(q, queries, head), first, BLOCK);
            const Panels k_panels{panels + head * (size_k + size_v), width, keys, rounds};
            const Panels v_panels{k_panels.data + size_k, keys, width, rounds};
            float *s = scratch<2>(BLOCK * padded), sums[BLOCK];
            multiply(some, k_panels, s, padded);
            for (Index row = 0; row < some.rows; row++)
                log_sums[head * queries + first + row] = softmax(s + row * padded, head / heads, sums[row]);
            float *to = out + (of(q, queries, head).at(first, 0) - q);
            multiply({s, some.rows, keys, padded}, v_panels, to, stride());
            for (Index row = 0; row < some.rows; row++)
#pragma omp simd
                for (Index i = 0; i < width; i++) to[row * stride() + i] *= 1 / sums[row];
        });
    }

    // Products of a query with all keys to probabilities times their sum; returns the logarithm of what they are divided by.
    float softmax(float *row, Index sample, float &sum) const {
        const float factor = scale(), *keep = mask ? mask + sample * keys : nullptr;
        float top = -INFINITY, total = 0;
        if (keep)
#pragma omp simd reduction(max : top)
            for (Index i = 0; i < keys; i++) {
                row[i] = row[i] * factor + (1 - keep[i]) * NEVER;
                top = row[i] > top ? row[i] : top;
            }
        else
#pragma omp simd reduction(max : top)
            for (Index i = 0; i < keys; i++) {
                row[i] *= factor;
                top = row[i] > top ? row[i] : top;
            }
#pragma omp simd reduction(+ : total)
        for (Index i = 0; i < keys; i++) total += row[i] = exponential(row[i] - top);
        sum = total;
        return top + std::log(total);
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
                const Matrix some = block(q_rows, query, DEPTH), some_d = block(d_rows, query, DEPTH);
                const Index count = std::min(DEPTH, keys - key), first = key / COLUMNS, last = ceil_div(key + count, COLUMNS);
                multiply(some, k_columns, first, last, p, DEPTH);
                multiply(some_d, v_columns, first, last, ds, DEPTH);
                for (Index row = 0; row < some.rows; row++)
                    slopes(p + row * DEPTH, ds + row * DEPTH, mask ? mask + head / heads * keys + key : nullptr, count,
                           log_sums[head * queries + query + row], inner[query + row]);
                const Matrix p_block{p, some.rows, count, DEPTH}, s_block{ds, some.rows, count, DEPTH};
                float *to_k = dk + (k_rows.at(key, 0) - k), *to_q = dq + (q_rows.at(query, 0) - q);
                float *to_v = dv + (k_rows.at(key, 0) - k);
                multiply(contiguous_rows(p_block.transposed(), 0, count, rounds), d_panels.block(query), to_v, stride(), query);
                multiply(contiguous_rows(s_block.transposed(), 0, count, rounds), q_panels.block(query), to_k, stride(), query);
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

// --------------------------------------------------------------------------------------------------------- video
// Stacks of frames (N, C, H, W), of videos (B*T, C, H, W) where the shape of another input is (T). A convolution is a sum of products over taps,
//     y[o, p] = bias[o] + sum over taps and channels of weight[tap, o, c] * x[c, p + shift of the tap],
// none of which is ever written out as a matrix: `sum_taps` reads shifted rows of x where they lie.

namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int OUTPUTS = 8;  // channels of a tile: 16 of 32 registers hold its sums
#else
constexpr int OUTPUTS = 4;  // 8 of 16
#endif
constexpr int FEW_OUTPUTS = 4;  // for three colours
constexpr Index SLICES = 16;    // work items of a sum over frames, if its partial sums have room
constexpr Index NEAR = 1 << 16, WIDE = 1 << 17;  // numbers that leave room in the L2 cache, that fill it

struct Segment {
    Index weight, input;  // where a tap's matrix begins in a panel, and its rows of x beside `input`
};

// A tile of R channels at two vectors of positions, the second `second` after the first. Matrices are (channels, R).
template <int R>
void sum_taps(const Segment *segments, Index count, Index channels, const float *panel, const float *input, Index pitch,
              Index second, const float *bias, float *left, float *right, Index stride) {
    Vector sum[R][2];
    for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = Vector{} + bias[r];
    for (Index s = 0; s < count; s++) {
        const float *weight = panel + segments[s].weight, *x = input + segments[s].input;
        for (Index c = 0; c < channels; c++, weight += R, x += pitch) {
            Vector first = load(x), next = load(x + second);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) {
                sum[r][0] += weight[r] * first;
                sum[r][1] += weight[r] * next;
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        store(left + r * stride, sum[r][0]);
        store(right + r * stride, sum[r][1]);
    }
}

// sums[r, column] += sum over positions of dy[p, r] * x[p, column]: R rows, V vectors of columns.
template <int R, int V>
void add_outer_tile(Index positions, const float *dy, Index dy_pitch, const float *x, Index x_pitch, float *sums,
                    Index stride) {
    Vector sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = load(sums + r * stride + v * LANES);
    for (Index p = 0; p < positions; p++, dy += dy_pitch, x += x_pitch) {
        Vector columns[V];
        for (int v = 0; v < V; v++) columns[v] = load(x + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] += dy[r] * columns[v];
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(sums + r * stride + v * LANES, sum[r][v]);
}

// The same for panels of OUTPUTS rows and any number of columns; x is read up to a tile beyond those.
void add_outer(Index positions, Index first_panel, Index last_panel, Index columns, const float *dy, Index dy_pitch,
               const float *x, Index x_pitch, float *sums, Index stride) {
    for (Index j = 0; j < columns; j += COLUMNS)
        for (Index r = first_panel * OUTPUTS; r < last_panel * OUTPUTS; r += OUTPUTS) {
            const Index width = std::min(COLUMNS, columns - j);
            const auto tile = width > LANES ? add_outer_tile<OUTPUTS, 2> : add_outer_tile<OUTPUTS, 1>;
            float *out = sums + r * stride + j;
            if (width % LANES == 0) {
                tile(positions, dy + r, dy_pitch, x + j, x_pitch, out, stride);
                continue;
            }
            float part[OUTPUTS * COLUMNS] = {};
            tile(positions, dy + r, dy_pitch, x + j, x_pitch, part, COLUMNS);
            for (int i = 0; i < OUTPUTS; i++)
                for (Index c = 0; c < width; c++) out[i * stride + c] += part[i * COLUMNS + c];
        }
}

// A sum over `items` of `size` numbers, in slices that do not depend on threads: `add(sums, begin, end, part, parts)`
// adds to one part of the rows, of which there are `panels`. Slices of few positions would cost more than they divide.
template <class Add>
std::vector<float> sum_slices(Index items, Index positions, Index size, Index panels, Add add) {
    const Index slices = std::max<Index>(1, std::min({items, SLICES, (1 << 20) / size + 2, positions / 512}));
    const Index parts = std::clamp<Index>(panels / 4, 1, ceil_div(SLICES, slices));
    std::vector<float> all(slices * size);
    parallel(slices * parts, 1, [&](Index begin, Index end) {
        for (Index i = begin; i < end; i++) {
            const Index slice = i / parts;
            add(&all[slice * size], items * slice / slices, items * (slice + 1) / slices, i % parts, parts);
        }
    });
    parallel(size, 4096, [&](Index begin, Index end) {
        for (Index slice = 1; slice < slices; slice++)
            for (Index i = begin; i < end; i++) all[i] += all[slice * size + i];
    });
    return all;
}

// Rows are too short for a call of memcpy each.
void copy_row(const float *from, Index count, float *to) {
    Index i = 0;
    for (; i + LANES <= count; i += LANES) store(to + i, load(from + i));
    for (; i < count; i++) to[i] = from[i];
}

void add_row(const float *addend, Index count, float *to) {
#pragma omp simd
    for (Index i = 0; i < count; i++) to[i] += addend[i];
}

float row_sum(const float *x, Index count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < count; i++) sum += x[i];
    return sum;
}

// For each tap, which numbers of a kernel (O, C, size) its matrix sums.
struct Kernel {
    Index size;
    std::vector<std::vector<int>> taps;

    // Matrices as (panel of R outputs, tap, input, R), zeros beyond the outputs. The adjoint's outputs are C.
    template <int R>
    std::vector<float> pack(const float *weight, Index outputs, Index inputs, bool is_adjoint) const {
        const Index panels = ceil_div(outputs, R), panel = taps.size() * inputs * R;
        const Index out_stride = size * (is_adjoint ? 1 : inputs), in_stride = size * (is_adjoint ? outputs : 1);
        std::vector<float> packed(panels * panel);
        parallel(panels, 1, [&](Index begin, Index end) {
            float *to = &packed[begin * panel];
            for (Index o = begin * R; o < end * R; o += R)
                for (const std::vector<int> &tap : taps)
                    for (Index c = 0; c < inputs; c++, to += R)
                        for (Index r = 0; r < std::min<Index>(R, outputs - o); r++)
                            for (int k : tap) to[r] += weight[(o + r) * out_stride + c * in_stride + k];
        });
        return packed;
    }

    // Gradients of matrices, (output, tap, input), to those of the kernel.
    void unpack(const float *sums, Index outputs, Index inputs, float *weight) const {
        std::fill_n(weight, outputs * inputs * size, 0.0f);
        for (Index o = 0; o < outputs; o++)
            for (const std::vector<int> &tap : taps)
                for (Index c = 0; c < inputs; c++, sums++)
                    for (int k : tap) weight[(o * inputs + c) * size + k] += *sums;
    }
};

std::vector<float> padded_bias(const float *bias, Index channels, Index padded) {
    std::vector<float> values(padded);
    if (bias) std::copy_n(bias, channels, values.begin());
    return values;
}

// ---- in space: 3x3. KEEP: padded by one. HALVE: every other position, padded right and bottom. DOUBLE: of a picture
// whose pixels are repeated in both directions first. The finer of two pictures is made of four phases: its pixels
// (2i + a, 2j + b), a picture on the coarse grid. So every tap reads one phase of x at a shift on the coarse grid, and
// where the repeated picture shows the same pixel to several weights, one tap has their sum.

enum Form { KEEP, HALVE, DOUBLE };

struct Tap {
    int out, in;  // phases: 2 a + b
    int down, right;
    std::vector<int> weights;  // which of the nine it sums

    auto place() const { return std::make_tuple(out, in, down, right); }
};

void sort(std::vector<Tap> &taps) {
    std::sort(taps.begin(), taps.end(), [](const Tap &a, const Tap &b) { return a.place() < b.place(); });
}

std::vector<Tap> taps_of(Form form) {
    std::vector<Tap> taps;
    auto add = [&](Tap tap) {
        for (Tap &other : taps)
            if (other.place() == tap.place()) return other.weights.push_back(tap.weights[0]);
        taps.push_back(tap);
    };
    for (int u = 0; u < 3; u++)
        for (int v = 0; v < 3; v++) {
            if (form == KEEP) add({0, 0, u - 1, v - 1, {3 * u + v}});
            if (form == HALVE) add({0, u % 2 * 2 + v % 2, u / 2, v / 2, {3 * u + v}});
            for (int phase = 0; form == DOUBLE && phase < 4; phase++)  // row 2i + a sees row 2i + a + u - 1, a copy
                add({phase, 0, (phase / 2 + u + 1) / 2 - 1, (phase % 2 + v + 1) / 2 - 1, {3 * u + v}});
        }
    sort(taps);
    return taps;
}

Kernel kernel_of(const std::vector<Tap> &taps) {
    Kernel kernel{9, {}};
    for (const Tap &tap : taps) kernel.taps.push_back(tap.weights);
    return kernel;
}

// Those of the gradient of x, which convolves dy.
std::vector<Tap> adjoint(std::vector<Tap> taps) {
    for (Tap &tap : taps) tap = {tap.in, tap.out, -tap.down, -tap.right, tap.weights};
    sort(taps);
    return taps;
}

// A stack (N, C, H, W) as one tall picture for each phase: a column of zeros after each coarse row and a row of zeros
// after each frame, so that a shift by one meets no other row or frame. Bands of it are copied, not the whole.
struct Stack {
    Index count, channels, height, width;
    Index step;           // 2 for the finer of two pictures
    Index rows, columns;  // of a frame on the coarse grid

    Index pitch() const { return columns + 1; }
    Index tall() const { return count * (rows + 1); }
    Index phases() const { return step * step; }
    Index plane(Index band) const { return 1 + band * pitch() + 2 * COLUMNS; }  // numbers of a channel of a band

    // Tall rows [first, first + band) to (phases, channels, plane); a plane is a zero, the rows, zeros.
    void copy(const float *from, Index first, Index band, float *to) const {
        for (Index phase = 0; phase < phases(); phase++)
            for (Index c = 0; c < channels; c++, to += plane(band)) {
                to[0] = 0;
                for (Index r = 0; r < band; r++)
                    copy_tall_row(from, first + r, c, phase / 2, phase % 2, to + 1 + r * pitch());
                std::fill_n(to + 1 + band * pitch(), 2 * COLUMNS, 0.0f);
            }
    }

    void copy_tall_row(const float *from, Index tall_row, Index channel, Index a, Index b, float *to) const {
        const Index frame = tall_row / (rows + 1), row = tall_row % (rows + 1) * step + a;
        const bool is_there = tall_row >= 0 && frame < count && row < height;
        const Index filled = is_there ? (width - b + step - 1) / step : 0;
        from += ((frame * channels + channel) * height + row) * width + b;
        if (step == 1) copy_row(from, filled, to);
        else
            for (Index i = 0; i < filled; i++) to[i] = from[2 * i];
        for (Index i = filled; i < pitch(); i++) to[i] = 0;
    }
};

// Where the sums of a band go. If rows are whole vectors: each vector's place in a copied band, and in memory. If not:
// vectors run over the band's zeros too, and each position that counts has a place, by phase.
struct Places {
    struct One {
        Index lane, target;
    };
    std::vector<Index> source, target;
    std::vector<One> single[4];
    std::vector<Index> begins[4];  // of each vector in `single`
    bool is_whole;

    Places(const Stack &to, Index first, Index last) {
        is_whole = to.columns % LANES == 0 && to.height == to.step * to.rows && to.width == to.step * to.columns;
        const Index size = to.channels * to.height * to.width;
        for (Index r = first; r < last; r++)
            for (Index q = 0; q < to.pitch(); q += is_whole ? LANES : 1)
                add(to, (r - first) * to.pitch() + q, r % (to.rows + 1), q, r / (to.rows + 1) * size);
        for (std::vector<Index> &begin : begins) begin.resize(source.size() + 2);
        for (int phase = 0; phase < 4; phase++) {
            for (const One &one : single[phase]) begins[phase][one.lane / LANES + 1]++;
            for (Index v = 1; v < Index(begins[phase].size()); v++) begins[phase][v] += begins[phase][v - 1];
        }
    }

    void add(const Stack &to, Index at, Index row, Index column, Index frame) {
        if (is_whole && row < to.rows && column < to.columns) {
            source.push_back(at);
            target.push_back(frame + (row * to.width + column) * to.step);
        }
        if (is_whole) return;
        if (at % LANES == 0) source.push_back(at);
        for (int phase = 0; phase < to.phases(); phase++) {
            const Index y = row * to.step + phase / 2, x = column * to.step + phase % 2;
            if (row < to.rows && column < to.columns && y < to.height && x < to.width)
                single[phase].push_back({at, frame + y * to.width + x});
        }
    }

    // A phase's tile (rows, COLUMNS) of vectors v and v + 1, for rows that are not whole.
    void put(int phase, Index v, Index rows, const float *tile, float *to, Index plane) const {
        const One *one = single[phase].data();
        const Index begin = begins[phase][v], end = begins[phase][std::min<Index>(v + 2, source.size())];
        for (Index r = 0; r < rows; r++)
            for (Index i = begin; i < end; i++)
                to[r * plane + one[i].target] = tile[r * COLUMNS + one[i].lane - v * LANES];
    }
};

// y (to) = bias + sum over taps of x (from), R channels of y at a time.
template <int R>
class Convolution {
  public:
    Convolution(const std::vector<Tap> &taps, const Stack &from_, const Stack &to_, const float *weight,
                bool is_adjoint)
        : from(from_), to(to_), packed(kernel_of(taps).pack<R>(weight, to.channels, from.channels, is_adjoint)) {
        panels = ceil_div(to.channels, R);
        panel = packed.size() / panels;
        const bool is_small = panels * panel <= NEAR;  // weights that stay in the cache do not ask for large bands
        rows = std::max<Index>(1, WIDE / (from.phases() * from.channels * from.pitch()));
        rows = std::min(rows, ceil_div(from.tall(), is_small ? SLICES : 2));
        plane = from.plane(rows + 2);
        for (const Tap &tap : taps) {
            const Index input = tap.in * from.channels * plane + 1 + (1 + tap.down) * from.pitch() + tap.right;
            segments.push_back({Index(segments.size()) * from.channels * R, input});
            for (int phase = tap.out + 1; phase < 5; phase++) begins[phase]++;
        }
    }

    void run(const float *x, const float *bias, float *y) {
        biases = padded_bias(bias, to.channels, panels * R);
        const Index bands = ceil_div(from.tall(), rows);
        const Index parts = std::clamp<Index>(panels / 8, 1, ceil_div(SLICES, bands));
        parallel(bands * parts, 1, [&](Index begin, Index end) {
            float *band = scratch<0>(from.phases() * from.channels * plane);
            for (Index item = begin; item < end; item++) {
                const Index first = item / parts * rows, part = item % parts;
                from.copy(x, first - 1, rows + 2, band);
                const Places places(to, first, std::min(first + rows, to.tall()));
                fill(places, band, panels * part / parts, panels * (part + 1) / parts, y);
            }
        });
    }

  private:
    // A band of y, in panels [first, last).
    void fill(const Places &places, const float *band, Index first, Index last, float *y) const {
        const Index together = std::max<Index>(1, NEAR / panel);  // panels that stay in the cache while all tiles pass
        for (Index group = first; group < last; group += together)
            for (Index v = 0; v < Index(places.source.size()); v += 2)
                for (Index p = group; p < std::min(last, group + together); p++)
                    for (int phase = 0; phase < to.phases(); phase += to.step) fill_tile(places, band, v, p, phase, y);
    }

    // The channels of a panel at vectors v and v + 1, of a phase and, of the finer picture, of its neighbour.
    void fill_tile(const Places &places, const float *band, Index v, Index p, int phase, float *y) const {
        const Index last = std::min<Index>(v + 1, places.source.size() - 1), size = to.height * to.width;
        const Index outputs = std::min<Index>(R, to.channels - p * R);
        float tiles[2][R * COLUMNS], *out = y + p * R * size;
        auto sum = [&](int of, float *left, float *right, Index stride) {
            sum_taps<R>(&segments[begins[of]], begins[of + 1] - begins[of], from.channels, &packed[p * panel],
                        band + places.source[v], plane, places.source[last] - places.source[v], &biases[p * R], left,
                        right, stride);
        };
        if (places.is_whole && to.step == 1 && outputs == R)
            return sum(0, out + places.target[v], out + places.target[last], size);
        for (int i = 0; i < to.step; i++) {
            sum(phase + i, tiles[i], tiles[i] + LANES, COLUMNS);
            if (!places.is_whole) places.put(phase + i, v, outputs, tiles[i], out, size);
        }
        for (Index i = v; places.is_whole && i <= last; i++)
            for (Index r = 0; r < outputs; r++) {
                const float *left = tiles[0] + r * COLUMNS + (i - v) * LANES;
                float *row = out + r * size + phase / 2 * to.width + places.target[i];
                to.step == 1 ? store(row, load(left)) : interleave(left, left + R * COLUMNS, row);
            }
    }

    static void interleave(const float *left, const float *right, float *to) {
        for (int i = 0; i < LANES; i++) {
            to[2 * i] = left[i];
            to[2 * i + 1] = right[i];
        }
    }

    Stack from, to;
    std::vector<float> packed, biases;
    Index panels, panel, rows, plane;
    std::vector<Segment> segments;
    Index begins[5] = {};  // of each phase's segments
};

void convolve(const std::vector<Tap> &taps, const Stack &from, const Stack &to, const float *x, const float *weight,
              const float *bias, bool is_adjoint, float *y) {
    if (to.channels <= FEW_OUTPUTS) Convolution<FEW_OUTPUTS>(taps, from, to, weight, is_adjoint).run(x, bias, y);
    else Convolution<OUTPUTS>(taps, from, to, weight, is_adjoint).run(x, bias, y);
}

// The gradients of weights (O, C, 3, 3) and bias: outer products of what is at a position of dy and at its taps in x.
class WeightGradient {
  public:
    WeightGradient(const std::vector<Tap> &taps_, const Stack &x_, const Stack &dy_) : taps(taps_), x(x_), dy(dy_) {
        panels = ceil_div(dy.channels, OUTPUTS);
        padded = panels * OUTPUTS;
        columns = taps.size() * x.channels;
        const Index largest = std::max(x.phases() * x.channels, dy.phases() * dy.channels) * x.pitch();
        rows = std::clamp<Index>(NEAR / largest, 1, ceil_div(x.tall(), SLICES));
        x_plane = x.plane(rows + 2);
        dy_plane = dy.plane(rows);
    }

    void run(const float *from, const float *slopes, float *dweight, float *dbias) const {
        auto add = [&](float *sums, Index begin, Index end, Index part, Index parts) {
            for (Index band = begin; band < end; band++)
                add_band(from, slopes, band * rows, panels * part / parts, panels * (part + 1) / parts, sums);
        };
        const std::vector<float> sums =
            sum_slices(ceil_div(x.tall(), rows), x.tall() * x.pitch(), padded * (columns + 1), panels, add);
        kernel_of(taps).unpack(sums.data(), dy.channels, x.channels, dweight);
        std::copy_n(&sums[padded * columns], dy.channels, dbias);
    }

  private:
    void add_band(const float *from, const float *slopes, Index row, Index first, Index last, float *sums) const {
        const Index C = x.channels, O = dy.channels;
        const Index x_size = x.phases() * C * x_plane, dy_size = dy.phases() * dy_plane;
        float *planes = scratch<0>(std::max(x_size, dy_size * O));
        float *xs = scratch<1>(x_size + COLUMNS), *dys = scratch<2>(dy_size * padded);  // (phase, position, channel)
        x.copy(from, row - 1, rows + 2, planes);
        for (Index phase = 0; phase < x.phases(); phase++)
            transpose({planes + phase * C * x_plane, C, x_plane, x_plane}, xs + phase * C * x_plane, C);
        std::fill_n(xs + x_size, COLUMNS, 0.0f);
        if (padded > O) std::fill_n(dys, dy_size * padded, 0.0f);
        dy.copy(slopes, row, rows, planes);
        for (Index phase = 0; phase < dy.phases(); phase++, planes += O * dy_plane) {
            transpose({planes, O, dy_plane, dy_plane}, dys + phase * padded * dy_plane, padded);
            for (Index o = 0; o < O && !first; o++)
                sums[padded * columns + o] += row_sum(planes + o * dy_plane, dy_plane);
        }
        // positions at a time: they stay in the L1 cache, unless the sums are too large to be read again so often
        const Index near = std::max<Index>(32, 8192 / (C * x.phases() + padded * dy.phases()));
        const Index block = padded * columns > NEAR ? 256 : near;
        for (Index p = 0; p < rows * x.pitch(); p += block)
            add_block(xs, dys, p, std::min(p + block, rows * x.pitch()), first, last, sums);
    }

    // Positions [begin, end); taps side by side share their columns.
    void add_block(const float *xs, const float *dys, Index begin, Index end, Index first, Index last,
                   float *sums) const {
        const Index C = x.channels, count = taps.size();
        for (Index t = 0, beside = 1; t < count; t += beside, beside = 1) {
            const auto [out, in, down, right] = taps[t].place();
            for (int next = right + 1; t + beside < count; beside++, next++)
                if (taps[t + beside].place() != std::make_tuple(out, in, down, next)) break;
            const float *outputs = dys + (out * dy_plane + 1 + begin) * padded;
            const float *inputs = xs + (in * x_plane + 1 + (1 + down) * x.pitch() + right + begin) * C;
            add_outer(end - begin, first, last, beside * C, outputs, padded, inputs, C, sums + t * C, columns);
        }
    }

    std::vector<Tap> taps;
    Stack x, dy;
    Index panels, padded, columns, rows, x_plane, dy_plane;
};

// The stacks x and y of a form, on one grid.
std::pair<Stack, Stack> stacks(Form form, const int64_t *x, const int64_t *y) {
    const Index rows = form == HALVE ? ceil_div(x[2], 2) : x[2], columns = form == HALVE ? ceil_div(x[3], 2) : x[3];
    return {{x[0], x[1], x[2], x[3], form == HALVE ? 2 : 1, rows, columns},
            {y[0], y[1], y[2], y[3], form == DOUBLE ? 2 : 1, rows, columns}};
}

// ---- in time, three taps or one: frame t of y sees frames `stride` t + tap - 1 of x, each of which stands there
// `repeat` times

struct Clock {
    Index taps, stride, repeat;
    bool is_replicate;  // of the border frame; else black

    // The frame of x, of `frames`, that a tap of frame t of y sees; -1 for a black one.
    Index source(Index t, Index tap, Index frames) const {
        const Index at = t * stride + tap - taps / 2, last = frames * repeat - 1;
        if (is_replicate) return std::clamp<Index>(at, 0, last) / repeat;
        return at < 0 || at > last ? -1 : at / repeat;
    }
};

struct Video {
    Index batch, frames, channels, size;  // H * W

    Index numbers() const { return frames * channels * size; }

};

class Mixing {
  public:
    // x is (B*T, C, H, W), weights are (O, C, 1, taps).
    Mixing(const Clock &clock_, const int64_t *shape, Index frames, const int64_t *weight)
        : clock(clock_), x{shape[0] / frames, frames, shape[1], shape[2] * shape[3]},
          y{x.batch, ceil_div(frames * clock.repeat, clock.stride), weight[0], x.size}, kernel{clock.taps, {}} {
        for (int tap = 0; tap < clock.taps; tap++) kernel.taps.push_back({tap});
    }

    // y from x and weights (O, C, taps), or dx from dy; and `addend`, if any, which is like it.
    void mix(const float *from, const float *weight, const float *bias, const float *addend, bool is_adjoint,
             float *to) const {
        const Video &in = is_adjoint ? y : x, &out = is_adjoint ? x : y;
        const Index span = span_of(in), blocks = ceil_div(out.size, span), panels = ceil_div(out.channels, OUTPUTS);
        const std::vector<float> packed = kernel.pack<OUTPUTS>(weight, out.channels, in.channels, is_adjoint);
        const std::vector<float> biases = padded_bias(bias, out.channels, panels * OUTPUTS);
        parallel(out.batch * blocks, 1, [&](Index begin, Index end) {
            for (Index item = begin; item < end; item++) {
                const Index first = item % blocks * span, width = std::min(span, out.size - first);
                Copies copies(in, from + item / blocks * in.numbers() + first, width);
                for (Index frame = 0; frame < out.frames; frame++) {
                    const Index at = item / blocks * out.numbers() + frame * out.channels * out.size + first;
                    fill_block(terms(frame, is_adjoint), copies, out, packed.data(), biases.data(), width, to + at);
                    for (Index o = 0; o < out.channels && addend; o++)
                        add_row(addend + at + o * out.size, width, to + at + o * out.size);
                }
            }
        });
    }

    void gradients(const float *from, const float *dy, float *dweight, float *dbias) const {
        const Index span = span_of(x), blocks = ceil_div(y.size, span), panels = ceil_div(y.channels, OUTPUTS);
        const Index columns = clock.taps * x.channels, padded = panels * OUTPUTS;
        auto add = [&](float *sums, Index begin, Index end, Index part, Index parts) {
            for (Index item = begin; item < end; item++)
                add_block(from + item / blocks * x.numbers(), dy + item / blocks * y.numbers(), item % blocks * span,
                          panels * part / parts, panels * (part + 1) / parts, padded, sums);
        };
        const std::vector<float> sums =
            sum_slices(y.batch * blocks, y.batch * y.frames * y.size, padded * (columns + 1), panels, add);
        kernel.unpack(sums.data(), y.channels, x.channels, dweight);
        std::copy_n(&sums[padded * columns], y.channels, dbias);
    }

  private:
    struct Term {
        Index frame, tap;
    };

    // Positions of a frame that are computed together: enough to be read in long rows, and to stay in the L2 cache.
    static Index span_of(const Video &in) { return std::clamp<Index>(8192 / in.channels / COLUMNS, 2, 32) * COLUMNS; }

    // What a frame of y is the sum of, by frames of x; or of dx, by frames of dy. Terms of a frame follow each other.
    std::vector<Term> terms(Index frame, bool is_adjoint) const {
        std::vector<Term> found;
        Index first = frame, last = frame + 1;
        if (is_adjoint) {
            first = std::max<Index>(0, frame * clock.repeat / clock.stride - 2);
            last = std::min(y.frames, (frame + 1) * clock.repeat / clock.stride + 2);
        }
        for (Index t = first; t < last; t++)
            for (Index tap = 0; tap < clock.taps; tap++) {
                const Index source = clock.source(t, tap, x.frames);
                if (is_adjoint ? source == frame : source >= 0) found.push_back({is_adjoint ? t : source, tap});
            }
        return found;
    }

    // Of a video's frames, up to four in a row: (channel, pitch), zeros beyond the positions.
    struct Copies {
        const Video &in;
        const float *video;
        Index width;
        Index pitch = ceil_div(width, COLUMNS) * COLUMNS + LANES;  // rows that are not all in the same cache sets
        float *data = scratch<0>(4 * in.channels * pitch);
        Index held[4] = {-1, -1, -1, -1};

        Copies(const Video &in_, const float *video_, Index width_) : in(in_), video(video_), width(width_) {}

        // Where a frame is.
        Index at(Index frame) {
            const Index place = frame % 4 * in.channels * pitch;
            float *to = data + place;
            for (Index c = 0; c < in.channels && held[frame % 4] != frame; c++, to += pitch) {
                copy_row(video + (frame * in.channels + c) * in.size, width, to);
                for (Index i = width; i < pitch; i++) to[i] = 0;
            }
            held[frame % 4] = frame;
            return place;
        }
    };

    void fill_block(const std::vector<Term> &sum, Copies &copies, const Video &out, const float *packed,
                    const float *bias, Index width, float *to) const {
        const Index inputs = copies.in.channels;
        std::vector<Segment> segments;
        for (const Term &term : sum) segments.push_back({term.tap * inputs * OUTPUTS, copies.at(term.frame)});
        for (Index p = 0; p < width; p += COLUMNS)
            for (Index o = 0; o < out.channels; o += OUTPUTS) {
                const Index outputs = std::min<Index>(OUTPUTS, out.channels - o);
                const Index columns = std::min(COLUMNS, width - p);
                const bool is_direct = outputs == OUTPUTS && columns == COLUMNS;
                float tile[OUTPUTS * COLUMNS], *target = to + o * out.size + p, *sums = is_direct ? target : tile;
                sum_taps<OUTPUTS>(segments.data(), segments.size(), inputs, packed + o * clock.taps * inputs,
                                  copies.data + p, copies.pitch, LANES, bias + o, sums, sums + LANES,
                                  is_direct ? out.size : COLUMNS);
                for (Index r = 0; r < outputs && !is_direct; r++)
                    copy_row(tile + r * COLUMNS, columns, target + r * out.size);
            }
    }

    // `span_of` positions of all frames of a video.
    void add_block(const float *video, const float *dy, Index position, Index first, Index last, Index padded,
                   float *sums) const {
        const Index C = x.channels, O = y.channels, span = span_of(x), piece = span * C;
        const Index width = std::min(span, y.size - position);
        const Index columns = clock.taps * C;
        float *xs = scratch<0>(4 * piece + COLUMNS), *dys = scratch<1>(span * padded);  // (position, channel)
        std::fill_n(xs, 4 * piece + COLUMNS, 0.0f);
        std::fill_n(dys, span * padded, 0.0f);
        Index held[4] = {-1, -1, -1, -1};  // the frame in each quarter of xs: three in a row never share one
        for (Index t = 0; t < y.frames; t++) {
            const float *planes = dy + t * O * y.size + position;
            transpose({planes, O, width, y.size}, dys, padded);
            for (Index o = 0; o < O && !first; o++) sums[padded * columns + o] += row_sum(planes + o * y.size, width);
            for (Index tap = 0; tap < clock.taps; tap++) {
                const Index frame = clock.source(t, tap, x.frames), place = frame % 4;
                if (frame < 0) continue;
                const float *from = video + frame * C * x.size + position;
                if (held[place] != frame) transpose({from, C, width, x.size}, xs + place * piece, C);
                held[place] = frame;
                add_outer(width, first, last, C, dys, padded, xs + place * piece, C, sums + tap * C, columns);
            }
        }
    }

    Clock clock;
    Video x, y;
    Kernel kernel;
};

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

// n weights, their averages (of all, one after the other), (1 - decay,), factor -> (1,). In place: the averages move
// towards the weights, unless the factor of the update's gradients was 0.
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
