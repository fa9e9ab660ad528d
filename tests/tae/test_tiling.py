import mindspore as ms
import numpy as np
import pytest

from moviegen.tae.tiling import blend, decode_tiles, encode_tiles, spans

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "wanted"),
    [
        (5, 8, 0, [(0, 5)]),
        (8, 8, 0, [(0, 8)]),
        (20, 8, 0, [(0, 8), (8, 16), (16, 20)]),
        (4, 4, 2, [(0, 4)]),
        (6, 4, 2, [(0, 4), (2, 6)]),
        (7, 4, 2, [(0, 4), (2, 6), (3, 7)]),
        (5, 4, 2, [(0, 4), (1, 5)]),
    ],
)
def test_spans(length, tile, overlap, wanted):
    assert spans(length, tile, overlap) == wanted


@pytest.mark.parametrize(("length", "tile", "overlap"), [(8, 4, 4), (8, 4, -1), (0, 4, 2)])
def test_impossible_tiles_are_refused(length, tile, overlap):
    with pytest.raises(ValueError, match="cannot cover"):
        spans(length, tile, overlap)


def neighbours_mixed(frames):
    """A network that sees one frame to either side, and repeats the border frame: (..., T, H, W) -> the same."""
    padded = np.concatenate((frames[:, :, :1], frames, frames[:, :, -1:]), 2)
    return 0.25 * padded[:, :, :-2] + 0.5 * padded[:, :, 1:-1] + 0.25 * padded[:, :, 2:]


def decode(latent):
    """(B, C, t', H, W) -> (B, C, 8t', H, W), a mixture of two neighbours to either side."""
    return ms.Tensor(neighbours_mixed(neighbours_mixed(np.repeat(latent.asnumpy(), 8, 2))))


def encode(video):
    """Every eighth frame of a mixture of two neighbours, and its square."""
    mixed = neighbours_mixed(neighbours_mixed(video.asnumpy()))[:, :, ::8]
    return ms.Tensor(mixed), ms.Tensor(mixed**2)


@pytest.mark.parametrize("num_frames", [3, 32, 33, 40, 56, 100, 256])
def test_decoding_in_tiles_equals_decoding_at_once_away_from_their_borders(num_frames):
    length = -(-num_frames // 8)
    latent = RNG.standard_normal((1, 2, length, 2, 3))
    whole = decode(ms.Tensor(latent)).asnumpy()[:, :, :num_frames]
    pieces = list(decode_tiles(decode, latent, num_frames))
    tiled = np.concatenate(pieces, 2)
    assert tiled.shape == whole.shape
    borders = {8 * border for span in spans(length, 4, 2) for border in span} - {0, 8 * length}
    near = [any(-2 <= frame - border < 2 for border in borders) for frame in range(num_frames)]
    different = np.abs(tiled - whole).max((0, 1, 3, 4)) > 1e-12
    assert not different[~np.array(near)].any()
    assert num_frames <= 32 or different.any()  # else the borders would prove nothing
    assert max(piece.shape[2] for piece in pieces) <= 32


def test_the_ramp_is_linear_and_its_weights_sum_to_one():
    before, after = np.zeros((1, 1, 4, 1, 1)), np.ones((1, 1, 6, 1, 1))
    assert blend(before, after).ravel().tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert blend(after, before[:, :, :1].repeat(6, 2)).ravel() == pytest.approx(1 - np.arange(1, 7) / 7)
    assert blend(after[:, :, :4], after).ravel() == pytest.approx(np.ones(6))


def test_a_constant_video_is_decoded_without_seams():
    latent = np.full((1, 1, 13, 1, 1), 7.0)
    assert np.concatenate(list(decode_tiles(decode, latent, 100)), 2).ravel() == pytest.approx(np.full(100, 7.0))


def test_only_a_tile_is_ever_decoded_and_pieces_come_as_they_are_ready():
    seen = []

    def counting(latent):
        seen.append(latent.shape[2])
        return decode(latent)

    pieces = decode_tiles(counting, RNG.standard_normal((1, 1, 32, 1, 1)), 256)
    next(pieces)
    assert seen == [4]
    assert sum(piece.shape[2] for piece in pieces) == 256 - 16
    assert set(seen) == {4}


@pytest.mark.parametrize("num_frames", [5, 32, 64, 75])
def test_encoding_in_tiles_equals_encoding_at_once_away_from_their_borders(num_frames):
    video = RNG.standard_normal((1, 3, num_frames, 2, 2))
    whole, whole_square = (part.asnumpy() for part in encode(ms.Tensor(video)))
    tiles = [video[:, :, start:stop] for start, stop in spans(num_frames, 32)]
    mean, logvar = encode_tiles(encode, tiles)
    assert mean.shape == logvar.shape == (1, 3, -(-num_frames // 8), 2, 2)
    away = [place for place in range(mean.shape[2]) if place % 4 or place == 0]  # a tile's first frame is at a border
    np.testing.assert_allclose(mean[:, :, away], whole[:, :, away], atol=1e-12)
    np.testing.assert_allclose(logvar[:, :, away], whole_square[:, :, away], atol=1e-12)


@pytest.mark.parametrize(("num_frames", "tile", "overlap"), [(17, 32, 16), (0, 32, 16), (8, 30, 16), (8, 32, 12)])
def test_lengths_that_cannot_be_are_refused(num_frames, tile, overlap):
    with pytest.raises(ValueError, match="frames"):
        list(decode_tiles(decode, np.zeros((1, 1, 2, 1, 1)), num_frames, tile, overlap))
