import numpy as np
import pytest

from moviegen.report import latents
from tests.report.making import coloured, sampled


def test_the_map_finds_the_channels_that_make_the_colours(params):
    colours = latents.colours(coloured(params))
    assert colours.clips == 2
    assert 0.8 < colours.explained <= 1  # video holds colours at half the resolution
    latent = np.zeros((16, 1, 1, 3), np.float32)
    latent[0, 0, 0, 0], latent[2, 0, 0, 1] = 1, -1  # 1 in the first channel is a quarter more red
    grey, red, blue = (colours(latent)[0, 0, index].astype(int) for index in (2, 0, 1))
    assert red[0] - grey[0] > 20 and abs(red[1:] - grey[1:]).max() < (red[0] - grey[0]) / 2
    assert blue[2] - grey[2] < -20


def test_a_map_of_latents_that_say_nothing_of_colours_is_not_telling(params):
    run = coloured(params)
    assert latents.colours(run).is_telling
    for path in (run.folder / "latents").iterdir():
        np.savez(path, latent_mean=np.random.default_rng(7).standard_normal((16, 2, 18, 30)))
    assert not latents.colours(run).is_telling


def test_without_latents_there_are_no_colours(params):
    assert latents.colours(None) is None
    assert latents.colours(sampled(params)) is None


@pytest.mark.parametrize("frames", [1, 8, 13])
def test_colours_are_means_of_what_a_position_stands_for(frames):
    clip = np.random.default_rng(0).integers(0, 256, (frames, 16, 24, 3), np.uint8)
    means = latents.mean_colours(clip).reshape(-(-frames // 8), 2, 3, 3)
    assert means[0, 1, 2] == pytest.approx(clip[:8, 8:, 16:].mean((0, 1, 2)) / 255)
    assert means[-1, 0, 0] == pytest.approx(clip[(frames - 1) // 8 * 8 :, :8, :8].mean((0, 1, 2)) / 255)


def test_channels_are_grey_between_their_ends():
    latent = np.array([-9.0, 0, 9])[:, None, None, None] * np.ones((3, 2, 4, 5))
    grey = latents.channels(latent)
    assert grey.shape == (3, 4, 5, 3)
    assert [one.mean() for one in grey] == [0, 128, 255]


def test_a_solution_that_is_not_kept_is_none(params):
    assert latents.solution(None, "linear", 5) is None
    assert latents.solution(sampled(params), "linear", 5) is None
