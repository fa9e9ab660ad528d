// Convolutions in time, of videos (B*T, C, H, W); the shape of another input is (T).

#pragma once

#include <algorithm>
#include <vector>

#include "convolution.h"

namespace {

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

}  // namespace
