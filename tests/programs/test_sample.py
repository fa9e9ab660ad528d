"""`sample`: the report's clips, each beside the one its caption belongs to, and what is refused."""

import csv
import itertools
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from mindspore import Tensor
from PIL import Image

from moviegen import __main__, config, runs
from moviegen.config import ConfigError
from moviegen.data import videos
from moviegen.data.embeddings import caption_file, read_embeddings
from moviegen.data.pixels import to_uint8
from moviegen.dit.weights import save_dit
from moviegen.flow import schedule
from moviegen.flow.sampler import noise_for
from moviegen.launch.run import run_job
from moviegen.programs import sample, sample_ways, sampling_pipeline
from moviegen.runs.arrays import save_arrays
from moviegen.runs.weights import load_arrays, to_arrays
from moviegen.tae.model import TAE, Decode
from moviegen.tae.weights import load_tae, save_tae
from tests import small_runs

CAPTIONS = ["one", "two", "three", "four"]  # two of the validation set, two of training
PARAPHRASES = {"two": "ii", "three": "iii", "four": "iv"}
OVERRIDES = {"sample.size": [32, 48], "sample.num_prompts": 2, "sample.batch_size": 4, "sample.steps": 2}


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Parameters of a small report, all of it run but for sampling."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke", OVERRIDES)
    small_runs.write_data(params, CAPTIONS, PARAPHRASES)
    small_runs.write_text(params, [*CAPTIONS, *PARAPHRASES.values()])
    small_runs.write_tae(params)
    small_runs.write_dit(params, 3)
    runs.find(params, "sample").write_params()
    return params


def command(params):
    return __main__.main(["sample", "--config", str(runs.find(params, "sample").params_path)])


def rows_of(run):
    with (run.folder / "samples.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_chosen_caption_gets_its_clip_beside_its_own(report, bars_of):
    bars = bars_of(sampling_pipeline)
    assert command(report) == 0
    assert [(bar.total, bar.n) for bar in bars] == [(4, 4)]  # two batches of two steps
    run = runs.find(report, "sample")
    assert run.complete
    rows = rows_of(run)
    assert list(rows[0]) == ["index", "kind", "prompt", "seed", "generated", "reference"]
    assert [(row["kind"], row["prompt"]) for row in rows] == [
        ("unseen", "one"), ("unseen", "two"), ("paraphrase", "iii"), ("paraphrase", "iv"),
        ("trained", "three"), ("trained", "four"),
    ]  # fmt: skip
    assert [int(row["index"]) for row in rows] == list(range(6))
    assert [int(row["seed"]) for row in rows] == [42, 43, 44, 45, 46, 47]
    for row in rows:
        for kind in ("generated", "reference"):
            info = videos.probe(run.folder / row[kind])
            fps = {"generated": report.sample.fps, "reference": 25}[kind]  # a real clip plays at its own speed
            assert (info.frames, info.height, info.width, info.fps) == (16, 32, 48, fps)
    frames = [videos.read_frames(run.folder / row["generated"], [0]) for row in rows]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(frames, 2))
    # a paraphrase is beside the clip of the caption that it says in other words
    references = [videos.read_frames(run.folder / row["reference"], range(16)) for row in rows]
    assert np.array_equal(references[2], references[4]) and np.array_equal(references[3], references[5])
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(references[:4], 2))
    begun, *lines = run.metrics()
    assert begun == {"kind": "state", "step": 0}  # the first step is compiled next
    kinds = ["step"] * 4 + ["clip"] * 6  # two batches of two steps, then six clips
    kinds += ["denoising"] * (2 * 2 + 2 * 5)  # two ways of two steps, and three pictures of latents and two of others
    assert [(line["kind"], line["step"]) for line in lines] == list(zip(kinds, range(1, 25), strict=True))
    assert {line["steps"] for line in lines} == {24}
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["clips"] == 6
    assert summary["seconds_per_clip"] is None  # one whole batch, which compiled, and a shorter one, which did too


def test_a_run_that_was_cut_samples_and_decodes_what_is_missing_to_the_same_bits(report, monkeypatch):
    """Cut while it samples its second batch, then while it decodes its fourth clip."""
    run, done = runs.find(report, "sample"), []

    def cut_at(count, name):
        def call(self, *given):
            done.append(name)
            if done.count(name) == count:
                raise ConfigError("cut")
            return original(self, *given)

        owner = getattr(sampling_pipeline, "Sampler" if name == "__call__" else "Pipeline")
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, call)

    cut_at(2, "__call__")
    assert command(report) == 2
    cut_at(4, "clip")
    assert command(report) == 2
    assert done.count("__call__") == 3  # the first batch is there
    assert command(report) == 0
    assert (done.count("__call__"), done.count("clip")) == (3, 7 + 10)  # three of six are written; pictures of two ways
    resumed = {path.name: path.read_bytes() for path in (run.folder / "videos").glob("*.mp4")}
    shutil.rmtree(run.folder / "videos")
    shutil.rmtree(run.folder / "latents")
    assert command(report) == 0
    assert {path.name: path.read_bytes() for path in (run.folder / "videos").glob("*.mp4")} == resumed
    assert len(resumed) == 12


def test_the_way_to_a_clip_is_kept_by_two_schedules_and_what_is_missing_of_it_made_again(report):
    assert command(report) == 0
    run = runs.find(report, "sample")
    rows = pd.read_csv(run.folder / "denoising.csv")
    assert list(rows.columns) == [
        "schedule", "after", "time", "distance", "latent", "foretold", "prompt", "seed",
    ]  # fmt: skip
    for name, own in rows.groupby("schedule"):
        assert own["after"].tolist() == [0, 1, 2]
        assert own["time"].tolist() == schedule.get(name, 2).tolist()
        shares = own["distance"].tolist()
        assert shares[0] > shares[1] == shares[2] == 0  # of the last step's velocity the end is what it foretells
    assert set(rows["prompt"]) == {"three"} and set(rows["seed"]) == {46}  # the first of the captions it was trained on
    ways = {name: np.load(run.folder / "denoising" / f"{name}.npz")["latents"] for name in sample_ways.DENOISED}
    own = np.load(run.folder / "latents" / "04.npz")["latent_mean"]  # by the run's own schedule
    for followed in ways["linear-quadratic"]:
        assert np.array_equal(followed[-1], own)
    assert not np.array_equal(ways["linear"][0, -1], own)
    assert np.array_equal(ways["linear"][0, 0], noise_for(46, own.shape)[0])
    assert np.array_equal(ways["linear"][:, 0], ways["linear-quadratic"][:, 0])  # they part at the first step
    pictures = {file: np.asarray(Image.open(run.folder / file)) for file in {*rows["latent"], *rows["foretold"]}}
    assert len(pictures) == 10 and {picture.shape for picture in pictures.values()} == {(32, 48, 3)}
    tae = load_tae(runs.find(report, "tae-mixkit").folder / "tae.safetensors")
    frames = to_uint8(Decode(tae)(Tensor(tae.denormalize(own[None]))).asnumpy()[0])
    assert np.abs(pictures["denoising/linear-quadratic-002.png"].astype(int) - frames[8]).max() <= 1  # rounded
    bytes_of = {path.name: path.read_bytes() for path in (run.folder / "denoising").iterdir()}
    kept = run.folder / "denoising" / "linear-quadratic-001.png"
    old = kept.stat().st_mtime_ns
    for name in ("linear.npz", "linear-000.png"):
        (run.folder / "denoising" / name).unlink()
    assert command(report) == 0
    kinds = [line["kind"] for line in run.metrics()]
    assert kinds == ["state", "denoising", "denoising", "denoising"]  # the steps of one, and a picture
    assert {path.name: path.read_bytes() for path in (run.folder / "denoising").iterdir()} == bytes_of
    assert kept.stat().st_mtime_ns == old


@pytest.mark.whole_job
@pytest.mark.parametrize("shared", [{}, {"sample.shards": 2, "sample.zero_stage": 3}])
def test_the_report_s_job_of_two_workers_makes_the_clips_of_one(report, shared):
    assert command(report) == 0
    run = runs.find(report, "sample")
    latents = {path.name: np.load(path)["latent_mean"] for path in (run.folder / "latents").glob("*.npz")}
    ways = {path.name: np.load(path)["latents"] for path in (run.folder / "denoising").glob("*.npz")}
    rows, pictures = (run.folder / "samples.csv").read_bytes(), len(list((run.folder / "denoising").glob("*.png")))
    shutil.rmtree(run.folder)
    two = runs.find(config.load("smoke", OVERRIDES | {"launch.inference_worker_num": 2} | shared), "sample")
    assert two.folder == run.folder
    two.write_params()
    assert two.job().worker_num == 2
    run_job(two.job())
    assert two.complete
    assert (two.folder / "samples.csv").read_bytes() == rows
    for name, latent in latents.items():
        np.testing.assert_allclose(np.load(two.folder / "latents" / name)["latent_mean"], latent, atol=1e-5)
    for name, way in ways.items():
        np.testing.assert_allclose(np.load(two.folder / "denoising" / name)["latents"], way, atol=1e-5)
    assert len(list((two.folder / "denoising").glob("*.png"))) == pictures == 10


def chosen(params, captions, paraphrases, most):
    """What is sampled with clips of these captions, the first half of validation, the last to be trained on."""
    params = params.model_copy(update={"sample": params.sample.model_copy(update={"num_prompts": most})})
    small_runs.write_data(params, captions, paraphrases)
    clips = sample.chosen_clips(runs.find(params, "sample"))
    assert all(text in (clip.caption, clip.paraphrase) for _, text, clip in clips)
    return [(kind, text) for kind, text, _ in clips]


def test_prompts_are_evenly_spread_over_what_can_be_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    names = [f"v{index}" for index in range(6)] + [f"t{index}" for index in range(6)]
    paraphrases = {name: f"{name} again" for name in ("v0", "t1", "t2", "t4", "t5")}
    assert chosen(config.load("smoke"), names, paraphrases, 2) == [
        ("unseen", "v0"), ("unseen", "v3"), ("paraphrase", "t1 again"), ("paraphrase", "t4 again"),
        ("trained", "t0"), ("trained", "t3"),
    ]  # fmt: skip


def test_where_no_clip_has_a_paraphrase_none_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    assert chosen(config.load("smoke"), CAPTIONS, {}, 9) == [
        ("unseen", "one"), ("unseen", "two"), ("trained", "three"), ("trained", "four"),
    ]  # fmt: skip


def test_embeddings_of_the_wrong_width_are_an_error(report, capsys):
    path = caption_file(runs.find(report, "text").folder, "metaclip", "two")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"text_emb": arrays["text_emb"][:, :-1]})
    assert command(report) == 2
    assert "error: " in (message := capsys.readouterr().err)
    assert str(path) in message
    assert "47" in message


def test_a_checkpoint_of_another_size_is_an_error(report, capsys):
    folder = runs.find(report, "stage3").folder
    wider = report.dit_config(3).model_copy(update={"width": 32})
    save_dit(folder / "dit.safetensors", small_runs.random_dit(wider))
    assert command(report) == 2
    assert "does not fit the model" in capsys.readouterr().err
    assert runs.find(report, "sample").manifest["status"] == "failed"


def test_an_autoencoder_of_other_latents_is_an_error(report, capsys):
    """As where a file was put in the place of the report's own."""
    tae = runs.find(report, "tae-mixkit").folder
    save_tae(tae / "tae.safetensors", TAE(small_runs.SMALL_TAE.model_copy(update={"latent_channels": 4})))
    assert command(report) == 2
    message = f"{tae / 'tae.safetensors'} decodes latents of 4 channels, and 16 are sampled"
    assert message in capsys.readouterr().err
    assert not (runs.find(report, "sample").folder / "videos").exists()


def same_weights(dit, path):
    """Whether a transformer has the weights of a file."""
    arrays, own = load_arrays(path)[0], to_arrays(dict(dit.parameters_and_names()))
    return arrays.keys() == own.keys() and all(np.array_equal(arrays[name], own[name]) for name in own)


@pytest.fixture
def asked(monkeypatch):
    """What the pipeline is made from; nothing is sampled."""
    asked = {}

    def pipeline(transformer, settings, tae, embed, tiling, mesh):
        asked.update(transformer=transformer, tae=tae, embed=embed)
        raise ConfigError("nothing is sampled")

    monkeypatch.setattr(sample, "Pipeline", pipeline)
    return asked


def test_the_average_of_the_weights_is_sampled_where_there_is_one(report, asked):
    stage, tae = (runs.find(report, name).folder for name in ("stage3", "tae-mixkit"))
    assert command(report) == 2
    assert asked["tae"] == tae / "tae.safetensors"
    assert same_weights(asked["transformer"], stage / "dit.safetensors")
    save_dit(stage / "dit_ema.safetensors", small_runs.random_dit(report.dit_config(3), seed=9))
    assert command(report) == 2
    assert same_weights(asked["transformer"], stage / "dit_ema.safetensors")


def test_the_embeddings_that_stage_3_names_are_sampled_with(report, asked, tmp_path):
    runs.find(report, "text").folder.rename(tmp_path / "elsewhere")
    named = config.load("smoke", OVERRIDES | {"stages.3.dataset.text_emb_folder": str(tmp_path / "elsewhere")})
    small_runs.write_dit(named, 3)
    run = runs.find(named, "sample")
    run.write_params()
    assert command(named) == 2
    assert "text" not in run.manifest["upstream"]
    captions = ["two", ""]
    embeddings = read_embeddings(tmp_path / "elsewhere", captions, named.text)
    for array, expected in zip(asked["embed"](captions), embeddings, strict=True):
        np.testing.assert_array_equal(array, expected)


# --- weights that are shipped ---


def shipped(folder, **changed):
    """Parameters that name both files of a folder as shipped ones, but for what is changed."""
    files = {f"shipped.{name}": str(folder / f"{name}.safetensors") for name in ("transformer", "tae")}
    return config.load("smoke", OVERRIDES | files | changed)


def command_shipped(params):
    run = runs.find(params, "shipped")
    run.write_params()
    return __main__.main(["sample", "--shipped", "--config", str(run.params_path)])


def test_shipped_weights_need_data_and_text_only_and_sample_as_the_report_s_own(report, tmp_path):
    """The report's own files, copied and then removed, give the same clips to the last bit."""
    assert command(report) == 0
    own = runs.find(report, "sample")
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, (program, file) in {"transformer": ("stage3", "dit"), "tae": ("tae-mixkit", "tae")}.items():
        folder = runs.find(report, program).folder
        shutil.copy(folder / f"{file}.safetensors", weights / f"{name}.safetensors")
        shutil.rmtree(folder)
    params = shipped(weights)
    assert command_shipped(params) == 0
    run = runs.find(params, "shipped")
    assert run.complete
    assert set(run.manifest["upstream"]) == {"data", "text"}
    assert rows_of(run) == rows_of(own)
    assert not (run.folder / "denoising").exists()  # of the report's own weights alone
    for row in rows_of(run):
        for kind in ("generated", "reference"):
            assert (run.folder / row[kind]).read_bytes() == (own.folder / row[kind]).read_bytes()


def test_shipped_weights_are_taken_where_the_report_has_its_own(report, asked, tmp_path):
    files = {name: tmp_path / f"{name}.safetensors" for name in ("transformer", "tae")}
    save_dit(files["transformer"], small_runs.random_dit(report.dit_config(3), seed=9))
    save_tae(files["tae"], TAE(small_runs.SMALL_TAE))
    assert command_shipped(shipped(tmp_path)) == 2
    assert asked["tae"] == files["tae"]
    assert same_weights(asked["transformer"], files["transformer"])


def test_a_shipped_transformer_may_be_of_another_size(report, asked, tmp_path):
    """Its file says which."""
    deeper = report.dit_config(3).model_copy(update={"num_layers": 3, "width": 32, "ffn_width": 40})
    save_dit(tmp_path / "transformer.safetensors", small_runs.random_dit(deeper))
    save_tae(tmp_path / "tae.safetensors", TAE(small_runs.SMALL_TAE))
    assert command_shipped(shipped(tmp_path)) == 2
    assert asked["transformer"].config == deeper
    assert same_weights(asked["transformer"], tmp_path / "transformer.safetensors")


def test_a_shipped_transformer_of_other_encoders_is_an_error(report, asked, tmp_path, capsys):
    other = report.dit_config(3).model_copy(update={"text_widths": (64, 0, 32)})
    save_dit(tmp_path / "transformer.safetensors", small_runs.random_dit(other))
    save_tae(tmp_path / "tae.safetensors", TAE(small_runs.SMALL_TAE))
    assert command_shipped(shipped(tmp_path)) == 2
    message = "takes embeddings (64, 0, 32) wide, and the encoders of `text` give (64, 48, 32)"
    assert message in capsys.readouterr().err
    assert not asked


def test_a_shipped_transformer_that_does_not_say_what_it_is_is_an_error(report, tmp_path, capsys):
    arrays = to_arrays(dict(small_runs.random_dit(report.dit_config(3)).parameters_and_names()))
    save_arrays(tmp_path / "transformer.safetensors", arrays)
    save_tae(tmp_path / "tae.safetensors", TAE(small_runs.SMALL_TAE))
    assert command_shipped(shipped(tmp_path)) == 2
    assert "transformer.safetensors does not say what transformer it holds" in capsys.readouterr().err


def test_without_shipped_weights_there_is_nothing_to_sample_with(report, capsys):
    path = runs.find(report, "sample").params_path
    assert __main__.main(["sample", "--shipped", "--config", str(path)]) == 2
    assert "--shipped: shipped.transformer and shipped.tae name no weights" in capsys.readouterr().err


def test_shipped_weights_that_are_not_there_are_named(report, capsys, tmp_path):
    assert command_shipped(shipped(tmp_path / "nowhere")) == 2
    assert re.search(r"error: .*shipped\.(transformer|tae).*nowhere", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["transformer", "tae"])
def test_one_of_two_shipped_files_is_refused(name):
    with pytest.raises(ConfigError, match="shipped: name both tae and transformer"):
        config.load("smoke", {f"shipped.{name}": "some.safetensors"})
