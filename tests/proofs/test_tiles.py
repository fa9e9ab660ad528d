"""What is foretold of tiles; measuring takes minutes."""

import numpy as np
import pytest

from moviegen import config
from moviegen.plan.tae_memory import tae_decoding_memory
from moviegen.proofs import tiles


@pytest.fixture(scope="module")
def params():
    return config.load("tiny")


def test_a_clip_asks_for_one_tile_and_the_frames_that_are_not_final(params):
    assert len({tiles.foretold(params, "encode", clip) for clip in tiles.CLIPS}) == 1
    four, nine, one, longer = (tiles.foretold(params, "decode", clip) for clip in tiles.CLIPS)
    assert longer == one
    assert nine - four == 32 * 3 * 4 * (320**2 - 224**2)
    tile = tae_decoding_memory(params, (32, 128, 128))
    assert one == tile.total - tile.parts["weights"] + 32 * 3 * 4 * 128**2
    assert [tiles.TILING.tiles(*clip[1:]) for clip in tiles.CLIPS] == [4, 9, 1, 1]


def test_a_process_that_holds_more_than_the_frames_of_a_larger_clip_is_refused(params):
    one, clip = tiles.CLIPS[:2]
    plan, frames = tiles.foretold(params, "decode", one), 32 * 3 * 4 * (320**2 - 224**2)
    assert tiles.memory_proof(params, "decode", one, 1.2 * plan, 1.2 * plan).holds
    assert not tiles.memory_proof(params, "decode", one, 0.9 * plan, 0.9 * plan).holds
    assert not tiles.memory_proof(params, "decode", one, 2 * plan, 2 * plan).holds
    assert tiles.memory_proof(params, "decode", clip, 1.2 * plan + frames, 1.2 * plan).holds
    assert not tiles.memory_proof(params, "decode", clip, 1.4 * plan + frames, 1.2 * plan).holds


def test_the_film_moves():
    first, second = tiles.moving(2, 16, 32)
    assert first.shape == (16, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first[2:, 4:, :2], second[:-2, :-4, :2])
