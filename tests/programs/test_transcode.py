"""One file through a trained TAE, from the command line."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from moviegen import __main__
from moviegen.config import TAEConfig
from moviegen.data import videos
from moviegen.programs import transcode
from moviegen.runs.weights import load_arrays
from moviegen.tae import naming
from moviegen.tae.model import TAE
from moviegen.tae.weights import save_tae

pytestmark = pytest.mark.usefixtures("eager_programs")


CONFIG = TAEConfig(
    base_channels=4, channel_multipliers=(1, 1, 1, 2), num_res_blocks=1, num_groups=2, scaling_factor=2.0,
    shift_factor=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("tae") / "tae.safetensors"
    save_tae(path, TAE(CONFIG))
    return path


def tae(action, *words):
    return __main__.main(["tae", action, "--config", "smoke", *map(str, words)])


def test_a_clip_of_any_length_is_encoded_in_tiles_and_decoded_again(weights, tmp_path):
    clip = tmp_path / "clip.mp4"
    videos.write_video(clip, np.random.default_rng(0).integers(0, 256, (37, 22, 34, 3), dtype=np.uint8), 12)
    assert tae("encode", "--weights", weights, "--input", clip, "--output", tmp_path / "clip.npz") == 0
    arrays, _ = load_arrays(tmp_path / "clip.npz")
    assert arrays["latent_mean"].shape == arrays["latent_std"].shape == (16, 5, 2, 4)  # 32 + 5 frames: 4 + 1
    assert (int(arrays["frames"]), float(arrays["fps"])) == (37, 12)
    assert (arrays["latent_std"] > 0).all()
    assert tae("decode", "--weights", weights, "--input", tmp_path / "clip.npz", "--output", tmp_path / "a.mp4") == 0
    info = videos.probe(tmp_path / "a.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (37, 16, 32, 12)


@pytest.fixture
def latent(tmp_path):
    """An encoded clip of nine frames, as `sample --format latents` writes it."""
    mean = np.random.default_rng(0).standard_normal((16, 2, 2, 4), np.float32)
    np.savez(tmp_path / "clip.npz", latent_mean=mean, frames=9, fps=12)
    return tmp_path / "clip.npz"


def test_a_latent_is_decoded_to_a_gif_or_a_folder_of_images(weights, latent, tmp_path):
    for name in ("clip.gif", "clip"):
        assert tae("decode", "--weights", weights, "--input", latent, "--output", tmp_path / name) == 0
    with Image.open(tmp_path / "clip.gif") as image:
        assert image.size == (32, 16)
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]  # equal neighbours become one frame
        assert sum(shown) == 9 * 80
    images = sorted((tmp_path / "clip").iterdir())
    assert [path.name for path in images] == [f"frame-{number:04d}.png" for number in range(9)]


def test_a_clip_that_states_no_rate_can_be_decoded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(transcode, "encode_tiles", lambda *_: (np.zeros((1, 16, 1, 2, 4), np.float32),) * 2)
    monkeypatch.setattr(transcode.videos, "probe", lambda path: videos.VideoInfo(1, 16, 32, 0.0))
    transcode.encode_file(TAE(CONFIG), tmp_path / "clip.mp4", tmp_path / "clip.npz")
    arrays, _ = load_arrays(tmp_path / "clip.npz")
    assert float(arrays["fps"]) > 0


@pytest.mark.parametrize(
    ("name", "message"), [("clip.avi", ".avi is not one of .mp4, .gif, .png"), ("clip.png", "holds one frame, not 9")]
)
def test_formats_that_cannot_hold_a_clip_are_named(weights, latent, tmp_path, name, message, capsys):
    assert tae("decode", "--weights", weights, "--input", latent, "--output", tmp_path / name) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_the_image_autoencoder_inside_is_exported(weights, tmp_path):
    assert tae("export", "--weights", weights, "--output", tmp_path / "vae.safetensors") == 0
    written, _ = load_arrays(tmp_path / "vae.safetensors")
    ours, _ = load_arrays(weights)
    spatial = [name for name in ours if not naming.is_temporal(name)]
    assert sorted(written) == sorted(naming.diffusers(name) for name in spatial)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("encode", "--output", "x.npz"), "tae encode needs --input"),
        (("decode", "--weights", "no.npz", "--input", "x.npz", "--output", "x.mp4"), "cannot read no.npz"),
    ],
)
def test_what_is_missing_is_named(words, message, capsys):
    assert tae(*words) == 2
    assert message in capsys.readouterr().err


def test_broken_inputs_are_named(weights, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    np.savez(tmp_path / "other.npz", latent_mean=np.zeros(3))
    assert tae("encode", "--weights", weights, "--input", tmp_path / "broken.mp4", "--output", tmp_path / "x.npz") == 2
    assert "cannot read video" in capsys.readouterr().err
    assert tae("decode", "--weights", weights, "--input", tmp_path / "other.npz", "--output", tmp_path / "x.mp4") == 2
    assert "it lacks fps, frames" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()
