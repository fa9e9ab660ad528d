import itertools

import mindspore as ms
import numpy as np
import pytest

from moviegen.config import Tiling
from moviegen.tae.tiling import decode_tiles, encode_tiles, fades

RNG = np.random.default_rng(0)
IN_TIME = Tiling()  # the paper's: whole frames
SMALL = Tiling(frames=16, overlap_frames=8, size=(32, 24), overlap=8)


@pytest.mark.parametrize(
    "covered",
    [[(0, 5)], [(0, 8), (8, 16)], [(0, 4), (2, 6), (3, 7)], [(0, 9), (1, 10)], [(i, i + 5) for i in range(8)]],
)
def test_weights_of_tiles_rise_linearly_and_sum_to_one_everywhere(covered):
    weights, total = fades(covered), np.zeros(covered[-1][1])
    for (start, stop), weight in zip(covered, weights, strict=True):
        assert (weight > 0).all() and (weight <= 1).all()
        total[start:stop] += weight
    assert total == pytest.approx(np.ones(len(total)))


def test_between_two_tiles_one_rises_as_the_other_falls():
    before, after = fades([(0, 6), (2, 8)])
    assert before == pytest.approx(np.array([1, 1, 0.8, 0.6, 0.4, 0.2]))
    assert after == pytest.approx(np.array([0.2, 0.4, 0.6, 0.8, 1, 1]))


def neighbours_mixed(frames):
    """A network that sees one frame to either side, and repeats the border frame: (..., T, H, W) -> the same."""
    padded = np.concatenate((frames[:, :, :1], frames, frames[:, :, -1:]), 2)
    return 0.25 * padded[:, :, :-2] + 0.5 * padded[:, :, 1:-1] + 0.25 * padded[:, :, 2:]


def decode(latent):
    """(B, 3, t', h', w') -> (B, 3, 8t', 8h', 8w'), in time a mixture of two neighbours to either side."""
    return ms.Tensor(neighbours_mixed(neighbours_mixed(latent.asnumpy().repeat(8, 2))).repeat(8, 3).repeat(8, 4))


def encode(video):
    """Every eighth pixel of every eighth frame of a mixture of two neighbours, and its square."""
    mixed = neighbours_mixed(neighbours_mixed(video.asnumpy()))[:, :, ::8, ::8, ::8]
    return ms.Tensor(mixed), ms.Tensor(mixed**2)


def decoded(latent, num_frames, tiling=IN_TIME, decode=decode):
    return np.concatenate(list(decode_tiles(decode, latent, num_frames, tiling)), 2)


@pytest.mark.parametrize("num_frames", [3, 32, 33, 40, 56, 100, 256])
def test_decoding_in_tiles_equals_decoding_at_once_away_from_their_borders(num_frames):
    length = -(-num_frames // 8)
    latent = RNG.standard_normal((1, 3, length, 2, 3))
    whole = decode(ms.Tensor(latent)).asnumpy()[:, :, :num_frames]
    tiled = decoded(latent, num_frames)
    assert tiled.shape == whole.shape
    borders = {8 * border for span in IN_TIME.decoded(length) for border in span} - {0, 8 * length}
    near = [any(-2 <= frame - border < 2 for border in borders) for frame in range(num_frames)]
    different = np.abs(tiled - whole).max((0, 1, 3, 4)) > 1e-12
    assert not different[~np.array(near)].any()
    assert num_frames <= 32 or different.any()  # else the borders would prove nothing


def shown(latent):
    """What a network makes of each latent pixel by itself: (B, 3, t', h', w') -> (B, 3, 8t', 8h', 8w')."""
    return ms.Tensor(latent.asnumpy().repeat(8, 2).repeat(8, 3).repeat(8, 4))


def hidden(video):
    """Every eighth pixel of every eighth frame, and its square."""
    values = video.asnumpy()[:, :, ::8, ::8, ::8]
    return ms.Tensor(values), ms.Tensor(values**2)


@pytest.mark.parametrize("size", [(4, 3), (5, 3), (9, 8), (4, 11)])
@pytest.mark.parametrize("num_frames", [5, 16, 40])
def test_tiles_in_space_are_drawn_where_they_belong(size, num_frames):
    """Of a network that sees no neighbours nothing shows where tiles meet."""
    latent = RNG.standard_normal((1, 3, -(-num_frames // 8), *size))
    whole = shown(ms.Tensor(latent)).asnumpy()
    np.testing.assert_allclose(decoded(latent, num_frames, SMALL, shown), whole[:, :, :num_frames], atol=1e-12)
    mean, square = encoded(hidden, whole[:, :, :num_frames], SMALL)
    np.testing.assert_allclose(mean, latent, atol=1e-12)
    np.testing.assert_allclose(square, latent**2, atol=1e-12)


def test_where_tiles_differ_the_picture_goes_linearly_from_one_to_the_next():
    """Each tile is drawn in a grey of its own: no step is larger than the difference over the overlap."""
    numbers = itertools.count()

    def grey(latent):
        _, _, frames, height, width = latent.shape
        return ms.Tensor(np.full((1, 3, 8 * frames, 8 * height, 8 * width), next(numbers), np.float64))

    tiling = Tiling(size=(16, 32), overlap=8)
    video = decoded(np.zeros((1, 3, 1, 2, 7)), 1, tiling, grey)[0, 0, 0]
    assert video[0] == pytest.approx(np.concatenate((np.zeros(24), np.arange(1, 9) / 9, np.ones(24))))
    assert (video == video[0]).all()


def test_equal_tiles_serve_every_frame_whose_sides_they_do_not_divide():
    seen = set()

    def noting(latent):
        seen.add(latent.shape)
        return shown(latent)

    decoded(RNG.standard_normal((1, 3, 7, 9, 10)), 50, SMALL, noting)
    assert seen == {(1, 3, 2, 4, 3)}


def test_a_constant_video_is_decoded_without_seams():
    latent = np.full((1, 3, 13, 5, 4), 7.0)
    assert decoded(latent, 100, SMALL, shown).ravel() == pytest.approx(np.full(100 * 3 * 40 * 32, 7.0))


def test_values_that_are_no_numbers_are_not_blended_away():
    latent = np.full((1, 3, 1, 5, 4), np.nan)
    assert np.isnan(decoded(latent, 8, SMALL, shown)).all()


def test_only_a_tile_is_ever_decoded_and_frames_come_as_they_are_ready():
    seen = []

    def counting(latent):
        seen.append(latent.shape[2])
        return decode(latent)

    frames = decode_tiles(counting, RNG.standard_normal((1, 3, 32, 1, 1)), 256, IN_TIME)
    assert next(frames).shape == (1, 3, 1, 8, 8)
    assert seen == [4]
    assert len(list(itertools.islice(frames, 15))) == 15 and seen == [4]  # the overlap waits for the next tile
    assert len(list(frames)) == 256 - 16
    assert set(seen) == {4}


def encoded(encode, video, tiling=IN_TIME):
    """Mean and log-variance of a video that comes in windows."""

    def window_of(span):
        return lambda rows, columns: video[:, :, slice(*span), rows, columns]

    windows = map(window_of, tiling.encoded(video.shape[2]))
    parts = list(encode_tiles(encode, windows, video.shape[3:], tiling))
    return tuple(np.concatenate(moment, 2) for moment in zip(*parts, strict=True))


@pytest.mark.parametrize("num_frames", [5, 32, 64, 75])
def test_encoding_in_tiles_equals_encoding_at_once_away_from_their_borders(num_frames):
    video = RNG.standard_normal((1, 3, num_frames, 16, 16))
    whole, whole_square = (part.asnumpy() for part in encode(ms.Tensor(video)))
    mean, logvar = encoded(encode, video)
    assert mean.shape == logvar.shape == (1, 3, -(-num_frames // 8), 2, 2)
    away = [place for place in range(mean.shape[2]) if place % 4 or place == 0]  # a tile's first frame is at a border
    np.testing.assert_allclose(mean[:, :, away], whole[:, :, away], atol=1e-12)
    np.testing.assert_allclose(logvar[:, :, away], whole_square[:, :, away], atol=1e-12)


@pytest.mark.parametrize("num_frames", [17, 0])
def test_lengths_that_cannot_be_are_refused(num_frames):
    with pytest.raises(ValueError, match="frames"):
        decoded(np.zeros((1, 3, 2, 1, 1)), num_frames)
