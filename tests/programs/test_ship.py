"""The weights that the repository holds: whole, small, of the networks of the recipes, and as good as they say."""

import json

import mindspore as ms
import numpy as np
import pytest

from moviegen import config
from moviegen.config import project_root
from moviegen.data import samples
from moviegen.data.pixels import clip_indices, resize_and_crop, to_uint8
from moviegen.data.scores import score
from moviegen.data.videos import probe, read_frames
from moviegen.dit.inference import load_described
from moviegen.programs import ship
from moviegen.runs.arrays import save_arrays
from moviegen.runs.files import checksum
from moviegen.runs.weights import load_arrays
from moviegen.tae.model import Reconstruct
from moviegen.tae.weights import load_tae

FOLDER = project_root() / ship.WEIGHTS
NAMES = (*ship.AUTOENCODERS, ship.TRANSFORMER)
MOST_BYTES = 20e6


def manifest(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_the_one_that_its_manifest_describes(name):
    said = manifest(name)
    assert said["sha256"] == checksum(FOLDER / f"{name}.safetensors")
    assert said["commit"] and said["parameters"] and said["seconds"] > 0
    assert "data" in said["before"] and "data" in said["upstream"]
    arrays, _ = load_arrays(FOLDER / f"{name}.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}


def test_all_of_them_are_small():
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {f"{name}.{suffix}" for name in NAMES for suffix in ("safetensors", "json")}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES


def test_they_are_the_networks_that_the_recipes_name():
    tiny, small = config.load("tiny"), config.load("small")
    image, tae = (load_tae(FOLDER / f"{name}.safetensors").config for name in ship.AUTOENCODERS)
    factors = {"scaling_factor": tae.scaling_factor, "shift_factor": tae.shift_factor}
    assert None not in factors.values()
    assert image == tiny.tae.model.model_copy(update={"is_temporal": False})
    assert tae == tiny.tae.model.model_copy(update=factors)
    transformer = load_described(FOLDER / f"{ship.TRANSFORMER}.safetensors")
    assert transformer.config == small.dit_config(3)
    assert transformer.config.text_widths == tiny.text.widths
    for parameter, name in (
        (tiny.tae.vae_checkpoint, "image-autoencoder"), (tiny.shipped.tae, "tae"), (small.tae.tae_checkpoint, "tae"),
        (tiny.shipped.transformer, "transformer"),
    ):  # fmt: skip
        assert parameter == f"{ship.WEIGHTS}/{name}.safetensors"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three of the held-out clips, rendered again: by their paths in the sample set, uint8 views of the scored rule."""
    root = tmp_path_factory.mktemp("clips")
    shots = [shot for shot in samples.plan_shots(root) if "UCF-101/test" in shot.path.as_posix()]
    views = {}
    for shot in (shots[2], shots[4], shots[14]):
        shot.path.parent.mkdir(parents=True)
        samples._write(0, shot)
        indices = clip_indices(probe(shot.path).frames, ship.FRAMES)
        views[shot.path.relative_to(root).as_posix()] = resize_and_crop(read_frames(shot.path, indices), *ship.SIZE)
    return views


@pytest.mark.parametrize("name", tuple(ship.AUTOENCODERS))
def test_autoencoders_score_what_their_manifests_say(name, clips):
    network, said = Reconstruct(load_tae(FOLDER / f"{name}.safetensors")), manifest(name)["scores"]["clips"]
    for path, view in clips.items():
        measured = score(to_uint8(view), to_uint8(network(ms.Tensor(view[None])).asnumpy()[0]))
        assert measured["psnr"] == pytest.approx(said[path]["psnr"], abs=0.02)
        assert measured["ssim"] == pytest.approx(said[path]["ssim"], abs=0.002)


def test_the_means_are_those_of_the_clips():
    for name in ship.AUTOENCODERS:
        scores = manifest(name)["scores"]
        film = [one for path, one in scores["clips"].items() if path.split("/")[2] not in samples.MOTIONS]
        assert len(film) == scores["film"]["clips"] > 10
        for measure in ("psnr", "ssim", "lpips"):
            assert scores["film"][measure] == pytest.approx(np.mean([one[measure] for one in film]))


def test_rounding_goes_to_a_file_with_the_run_s_story(tmp_path, monkeypatch):
    """Of a made-up run and the one before it."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(ship, "WEIGHTS", str(tmp_path / "weights"))
    params = config.load("smoke")
    runs_folder = config.outputs_folder(params) / "runs"
    story = (
        ("data-1", {}, "1"),
        ("tae-image-1", {"data": "data-1"}, "2"),
        ("tae-image-2", {"data": "data-1"}, "3"),
        ("tae-image-3", {}, None),
    )
    for name, upstream, finished in story:
        (runs_folder / name).mkdir(parents=True)
        said = {"program": name, "upstream": upstream, "seconds": 5.0, "status": "complete" if finished else "running"}
        (runs_folder / name / "manifest.json").write_text(json.dumps(said | {"finished": finished}))
    folder = ship.newest(params, "tae-image")
    assert folder.name == "tae-image-2"
    values = np.float32([1 / 3, 1e-3])
    save_arrays(folder / "tae.safetensors", {"a": values}, {"tae_config": "{}"})
    target = ship.write_weights("image", folder / "tae.safetensors")
    arrays, metadata = load_arrays(target)
    assert arrays["a"].dtype == np.float16 and (arrays["a"] == values.astype(np.float16)).all()
    assert metadata == {"tae_config": "{}"}
    ship.write_manifest(target, folder, {"psnr": 1.0})
    said = json.loads(target.with_suffix(".json").read_text())
    assert (said["program"], said["before"]["data"]["program"], said["scores"]) == (
        "tae-image-2",
        "data-1",
        {"psnr": 1.0},
    )
    with pytest.raises(config.ConfigError, match="no finished run of stage3"):
        ship.newest(params, "stage3")
