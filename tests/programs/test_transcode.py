"""One file through a trained TAE, from the command line."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from moviegen import __main__
from moviegen.config import TAEConfig, Tiling
from moviegen.data import videos
from moviegen.data.pixels import tiles_of, to_uint8
from moviegen.programs import transcode
from moviegen.runs.weights import load_arrays
from moviegen.tae import naming
from moviegen.tae.model import TAE, Decode, Encode
from moviegen.tae.tiling import decode_tiles, encode_tiles
from moviegen.tae.weights import load_tae, save_tae

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
    monkeypatch.setattr(transcode, "encode_tiles", lambda *_: iter([(np.zeros((1, 16, 1, 2, 4), np.float32),) * 2]))
    monkeypatch.setattr(transcode.videos, "probe", lambda path: videos.VideoInfo(1, 16, 32, 0.0))
    transcode.Encoder(TAE(CONFIG), Tiling())(tmp_path / "clip.mp4", tmp_path / "clip.npz")
    arrays, _ = load_arrays(tmp_path / "clip.npz")
    assert float(arrays["fps"]) > 0


@pytest.fixture
def films(tmp_path):
    """A folder of three clips at two depths, one of which is none."""
    folder = tmp_path / "films"
    for name in ("a.mp4", "deep/b.mp4"):
        videos.write_video(folder / name, np.zeros((3, 16, 32, 3), np.uint8), 12)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not a clip")
    return folder


def test_a_bad_file_ends_no_other_and_what_is_there_is_passed_over(weights, films, tmp_path, capsys):
    words = ("encode", "--weights", weights, "--input", films, "--output", tmp_path / "new")
    assert tae(*words) == 2
    told = capsys.readouterr()
    assert "encoding failed for 1 of 3 files, the others are done: cannot read video" in told.err
    made = sorted(path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*.npz"))
    assert made == ["a.npz", "deep/b.npz"] and told.out.count(".npz") == 2
    videos.write_video(films / "broken.mp4", np.zeros((3, 16, 32, 3), np.uint8), 12)
    before = (tmp_path / "new" / "a.npz").stat().st_mtime_ns
    assert tae(*words) == 0
    told = capsys.readouterr()
    assert "2 of 3 are there already" in told.err
    assert told.out.split() == [str(tmp_path / "new" / "broken.npz")]
    assert (tmp_path / "new" / "a.npz").stat().st_mtime_ns == before


def test_encoded_folders_and_patterns_are_decoded_into_a_format(weights, films, tmp_path):
    assert tae("encode", "--weights", weights, "--input", films / "**" / "[ab].mp4", "--output", tmp_path / "new") == 0
    decode = ("decode", "--weights", weights, "--input", tmp_path / "new", "--output")
    assert tae(*decode, tmp_path / "again") == 0
    assert tae(*decode, tmp_path / "images", "--format", "png") == 0
    assert videos.probe(tmp_path / "again" / "deep" / "b.mp4").frames == 3
    assert len(list((tmp_path / "images" / "a").iterdir())) == 3


@pytest.mark.parametrize("tiling", [(), ("--tae.tiling.size", "[16, 24]", "--tae.tiling.overlap", "8")])
def test_what_is_streamed_is_what_the_networks_make_of_the_tiles(weights, tmp_path, tiling):
    """Of files, against the same tiles of arrays in memory."""
    clip = tmp_path / "clip.mp4"
    videos.write_video(clip, np.random.default_rng(0).integers(0, 256, (43, 24, 40, 3), dtype=np.uint8), 12)
    assert tae("encode", "--weights", weights, "--input", clip, "--output", tmp_path / "clip.npz", *tiling) == 0
    words = ("--weights", weights, "--input", tmp_path / "clip.npz", "--output", tmp_path / "images", *tiling)
    assert tae("decode", *words) == 0
    network, tiles = load_tae(weights), Tiling(**({"size": (16, 24), "overlap": 8} if tiling else {}))
    frames = videos.read_frames(clip, range(43))
    parts = [frames[slice(*span)] for span in tiles.encoded(43)]
    moments = encode_tiles(Encode(network), map(tiles_of, parts), (24, 40), tiles)
    mean, logvar = (np.concatenate(moment, 2) for moment in zip(*moments, strict=True))
    arrays, _ = load_arrays(tmp_path / "clip.npz")
    np.testing.assert_allclose(arrays["latent_mean"], (mean[0] - 0.5) * 2, atol=1e-6)
    np.testing.assert_allclose(arrays["latent_std"], np.exp(logvar[0] / 2) * 2, rtol=1e-5)
    shown = [to_uint8(frame[0])[0] for frame in decode_tiles(Decode(network), mean, 43, tiles)]
    images = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "images").iterdir())]
    assert np.abs(np.stack(images).astype(int) - np.stack(shown)).max() <= 1


def test_a_latent_that_is_compressed_is_decoded_too_and_one_with_no_numbers_is_named(weights, latent, tmp_path, capsys):
    arrays = dict(np.load(latent))
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    for name in ("clip", "packed"):
        words = ("--weights", weights, "--input", tmp_path / f"{name}.npz", "--output", tmp_path / f"{name}.mp4")
        assert tae("decode", *words) == 0
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "packed.mp4").read_bytes()
    arrays["latent_mean"][3, 1, 0, 2] = np.nan
    np.savez(tmp_path / "bad.npz", **arrays)
    words = ("--weights", weights, "--input", tmp_path / "bad.npz", "--output", tmp_path / "bad")
    assert tae("decode", *words) == 2
    assert "bad.npz: latent_mean holds values that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists() and not list(tmp_path.glob(".*"))


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
