// Convolutions in space. Stacks of frames are (N, C, H, W). A convolution is a sum of products over taps,
//     y[o, p] = bias[o] + sum over taps and channels of weight[tap, o, c] * x[c, p + shift of the tap],
// none of which is ever written out as a matrix: `sum_taps` reads shifted rows of x where they lie.

#pragma once

#include <algorithm>
#include <array>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "panels.h"

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

}  // namespace
