"""What training keeps of its weights as it goes: the same prompts from the same noise, each once."""

import zlib

import numpy as np
import pytest

from moviegen.config import DiTConfig
from moviegen.device.world import World
from moviegen.flow.sampler import Sampler, numbered
from moviegen.runs.arrays import read_npz
from moviegen.train.samples import SampledLatents
from tests import small_runs

CONFIG = DiTConfig(width=16, ffn_width=24, num_heads=2, num_layers=1, max_size=(1, 2, 4), text_widths=(6, 5, 4),
                   frequency_width=8)  # fmt: skip
TIMES = np.array([0.0, 0.5, 1.0])


def embed(captions):
    """Embeddings that follow from a caption's letters."""
    rngs = [np.random.default_rng(zlib.crc32(caption.encode())) for caption in captions]
    texts = [np.stack([rng.standard_normal((3, width), np.float32) for rng in rngs]) for width in (6, 5, 4)]
    return *texts, np.ones((len(captions), 9), bool)


@pytest.fixture
def kept(tmp_path):
    sampler = Sampler(small_runs.random_dit(CONFIG), embed, 2.0, (1, 32, 64))
    return SampledLatents(sampler, numbered(["a cat", "a dog"], 7), TIMES, (1, 12), tmp_path, World())


def latents(kept):
    return {(step, prompt.caption): read_npz(path, "latent_mean", mend="")[0] for step, prompt, path in kept.kept()}


def test_each_prompt_is_sampled_from_its_own_noise_by_the_weights_of_that_moment(kept):
    kept(0)
    weight = kept.sampler.dit.dit.final_layer.trainable_params()[0]
    weight.set_data(weight + 0.1)
    kept(100)
    found = latents(kept)
    assert list(found) == [(0, "a cat"), (0, "a dog"), (100, "a cat"), (100, "a dog")]
    for prompt in kept.prompts:
        noise = np.random.default_rng(prompt.seed).standard_normal((1, 16, 1, 4, 8), np.float32)
        np.testing.assert_array_equal(kept.sampler.noise([prompt]), noise)
        np.testing.assert_array_equal(found[100, prompt.caption], kept.sampler([prompt], TIMES)[0])
        assert (found[0, prompt.caption] != found[100, prompt.caption]).any()


def test_a_sample_that_is_not_finite_is_told_and_ends_no_training(kept):
    weight = kept.sampler.dit.dit.final_layer.trainable_params()[0]
    weight.set_data(weight * float("nan"))
    with pytest.warns(UserWarning, match="no sample of 'a dog' after update 3"):
        kept(3)
    assert latents(kept) == {}


def test_what_is_there_is_not_made_again_and_what_is_not_is_the_same(kept, monkeypatch):
    kept(5)
    before, asked = latents(kept), []
    kept.path(5, kept.prompts[1]).unlink()
    call = Sampler.__call__
    monkeypatch.setattr(
        Sampler, "__call__", lambda self, prompts, times: asked.extend(prompts) or call(self, prompts, times)
    )
    kept(5)
    assert asked == [kept.prompts[1]]
    for name, latent in latents(kept).items():
        np.testing.assert_array_equal(latent, before[name])
