"""Own prompts: what is read, what is refused, what is written, and that neither company nor ranks change a clip."""

import argparse
import csv
import dataclasses
import json
import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from moviegen import __main__, config
from moviegen.data import videos
from moviegen.device.world import World
from moviegen.dit.weights import save_dit
from moviegen.flow import schedule
from moviegen.flow.sampler import Prompt, Sampler
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.programs import sample_prompts as program
from moviegen.programs import sampling_pipeline
from moviegen.runs.arrays import save_arrays
from moviegen.runs.weights import to_arrays
from moviegen.tae.model import TAE
from moviegen.tae.weights import save_tae
from tests import small_runs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a transformer of the smoke scale and a small autoencoder."""
    folder = tmp_path_factory.mktemp("weights")
    save_dit(folder / "dit.safetensors", small_runs.random_dit(config.load("smoke").dit_config(3)))
    ms.set_seed(0)
    save_tae(folder / "tae.safetensors", TAE(small_runs.SMALL_TAE))
    return folder


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  two dogs \nthe sea\n")
    return path


@pytest.fixture
def command(weights, prompts, tmp_path):
    """The words of `sample --prompts` at a small size into a folder, unless other words say another."""

    def words(*more, output="mine"):
        small = {"--size": "32x48", "--frames": "9", "--steps": "2"}
        files = {f"--{name}": weights / f"{name}.safetensors" for name in ("dit", "tae")}
        own = {"--config": "smoke", "--prompts": prompts, **small, **files, "--output": tmp_path / output}
        left = (word for option in own.items() if option[0] not in more for word in option)
        return ["sample", *map(str, (*left, *more))]

    return words


@pytest.fixture
def sample(command, tmp_path):
    """Runs it: its status, and the folder."""

    def call(*words, output="mine"):
        return __main__.main(command(*words, output=output)), tmp_path / output

    return call


def ordered(prompts, weights, params=None, **options):
    """What `read_order` makes of options, the others not given."""
    names = ("output", "format", *program.PARAMETERS)
    files = {name: str(weights / f"{name}.safetensors") for name in ("dit", "tae")}
    given = dict.fromkeys(names) | {"config": "smoke", "prompts": str(prompts)} | files | options
    return program.read_order(params or config.load("smoke"), argparse.Namespace(**given))


# --- what is read ---


def test_prompts_are_the_lines_that_hold_something(prompts, tmp_path):
    assert program.read_prompts(prompts) == ["a cat", "two dogs", "the sea"]
    (tmp_path / "windows.txt").write_bytes("\ufeffeine Kätzin\r\nzwei\r\n".encode())
    assert program.read_prompts(tmp_path / "windows.txt") == ["eine Kätzin", "zwei"]


def test_options_stand_for_parameters(prompts, weights):
    order = ordered(prompts, weights, size="64x32", frames="1", steps="7", guidance="1.5", schedule="linear", seed="9")
    settings = order.settings
    assert (settings.size, settings.frames, settings.steps) == ((64, 32), 1, 7)
    assert (settings.guidance, settings.schedule) == (1.5, "linear")
    assert [(prompt.caption, prompt.seed) for prompt in order.prompts] == [
        ("a cat", 9),
        ("two dogs", 10),
        ("the sea", 11),
    ]
    plain = ordered(prompts, weights)
    assert plain.settings == config.load("smoke").sample
    assert [prompt.seed for prompt in plain.prompts] == [42, 43, 44]


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_one_step_is_enough_for_every_schedule(prompts, weights, name):
    assert ordered(prompts, weights, steps="1", schedule=name).settings.steps == 1


@pytest.mark.parametrize(
    ("frames", "asked", "names"),
    [
        ("16", None, ["000.mp4", "001.mp4", "002.mp4"]),
        ("1", None, ["000.png", "001.png", "002.png"]),
        ("1", "gif", ["000.gif", "001.gif", "002.gif"]),
        ("16", "png", ["000", "001", "002"]),
        ("16", "latents", ["000.npz", "001.npz", "002.npz"]),
    ],
)
def test_files_are_named_by_their_format(prompts, weights, frames, asked, names):
    order = ordered(prompts, weights, frames=frames, format=asked)
    assert [order.path(prompt).name for prompt in order.prompts] == names
    assert (order.tae is None) == (asked == "latents")


def test_the_folder_is_named_after_all_that_decides_what_is_in_it(prompts, weights, tmp_path):
    folder = ordered(prompts, weights).folder
    assert folder.parent == tmp_path / "outputs" / "smoke" / "samples"
    assert ordered(prompts, weights).folder == folder
    assert ordered(prompts, weights, schedule="linear-quadratic").folder == folder  # the default, said
    params = config.load("smoke", {"model.attend_to_padding": True})
    assert ordered(prompts, weights, params).folder != folder
    params = config.load("smoke", {"train.settings.dtype": "float16"})
    assert ordered(prompts, weights, params).folder != folder
    for other in ({"seed": "7"}, {"steps": "3"}, {"format": "gif"}, {"size": "32x48"}, {"dit": str(weights / "no")}):
        assert ordered(prompts, weights, **other).folder != folder
    prompts.write_text("a cat\n")
    assert ordered(prompts, weights).folder != folder
    assert ordered(prompts, weights, output=str(tmp_path / "mine")).folder == tmp_path / "mine"


def test_a_prompt_longer_than_the_encoder_takes_is_cut_with_a_warning():
    long = "word " * 30
    with pytest.warns(UserWarning, match=f"ul2 takes 24 tokens; cut: '{long}'"):
        embeddings = program.embed(config.load("smoke"), [Prompt(0, long, 1)])([long, ""])
    assert [array.shape for array in embeddings] == [(2, 24, 64), (2, 16, 48), (2, 32, 32), (2, 72)]


def test_embeddings_are_those_of_their_captions():
    params = config.load("smoke")
    two = program.embed(params, [Prompt(0, "a cat", 1), Prompt(1, "two dogs", 2)])
    alone = program.embed(params, [Prompt(0, "two dogs", 2)])
    for found, wanted in zip(two(["two dogs", "", "two dogs"]), alone(["two dogs", "", "two dogs"]), strict=True):
        assert np.array_equal(found, wanted)
        assert np.array_equal(found[0], found[2])
    assert not np.array_equal(two(["a cat"])[0], two(["two dogs"])[0])


# --- what is refused ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "250x448"), "size 250x448 is not divisible by 16: use 240x448"),
        (("--size", "256"), "--size 256: write height x width in pixels"),
        (("--size", "640x32"), "needs position tables of (2, 40, 2) patches, model.max_size has (4, 36, 36)"),
        (("--frames", "64"), "needs position tables of (8, 2, 3) patches"),
        (("--frames", "0"), "sample.frames = 0: "),
        (("--guidance", "-1"), "sample.guidance = -1: "),
        (("--schedule", "cosine"), "sample.schedule = 'cosine': Input should be 'linear'"),
        (("--schedule", "linear_quadratic"), "sample.schedule = 'linear_quadratic': "),
        (("--steps", "0"), "sample.steps = 0: "),
        (("--guidance", ".inf"), "sample.guidance = inf: "),
        (("--guidance", ".nan"), "sample.guidance = nan: "),
        (("--steps", "ten"), "sample.steps = 'ten': "),
        (("--steps", "5000"), "5000 steps cannot follow a linear schedule of only 1000"),
        (("--seed", "-1"), "--seed -1: a seed cannot be negative"),
        (("--seed", "x"), "seed = 'x': "),
        (("--prompts", "no.txt"), "--prompts: cannot read no.txt"),
        (("--prompts", "."), "--prompts: cannot read ."),
        (("--dit", "no.safetensors"), "cannot read no.safetensors"),
        (("--dit", "dit.pt"), "can run code when it is opened"),
        (("--tae", "no.safetensors"), "cannot read no.safetensors"),
        (("--sample.batch_size", "0"), "sample.batch_size = 0: "),
    ],
)
def test_what_cannot_be_is_an_error(sample, words, message, capsys):
    status, folder = sample(*words)
    error = capsys.readouterr().err
    assert [line for line in error.splitlines() if line.startswith("error: ")]  # perhaps after which operators compute
    assert message in error
    assert status == 2
    assert not folder.exists()


def test_a_file_that_only_says_it_holds_weights_is_an_error(sample, tmp_path, capsys):
    (tmp_path / "empty.npz").touch()
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    for name in ("empty.npz", "array.npz"):
        assert sample("--dit", tmp_path / name)[0] == 2
        assert f"\nerror: cannot read {tmp_path / name}: " in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\n  \n\t\n", b"\xff\xfe\x00 no text \x80"])
def test_a_file_without_prompts_is_an_error(sample, prompts, content, capsys):
    prompts.write_bytes(content)
    status, folder = sample()
    assert status == 2
    assert capsys.readouterr().err.startswith("error: --prompts: ")
    assert not folder.exists()


def test_output_must_not_be_the_folder_of_a_run(sample, tmp_path, capsys):
    files = {"manifest.json": "{}", "metrics.jsonl": '{"kind": "train", "step": 1}\n'}
    (tmp_path / "mine").mkdir()
    for name, content in files.items():
        (tmp_path / "mine" / name).write_text(content)
    assert sample()[0] == 2
    assert "mine is a run's own folder; name another" in capsys.readouterr().err
    assert {name: (tmp_path / "mine" / name).read_text() for name in files} == files


def test_output_must_not_be_a_file(sample, tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    assert sample()[0] == 2
    assert "mine is a file; name a folder" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_transformer_of_another_size_is_taken_where_its_file_says_so_and_else_an_error(sample, tmp_path, capsys):
    wide = small_runs.random_dit(config.load("smoke").dit_config(3).model_copy(update={"width": 32}))
    save_arrays(tmp_path / "wide.safetensors", to_arrays(dict(wide.parameters_and_names())))
    assert sample("--dit", tmp_path / "wide.safetensors")[0] == 2
    assert "wide.safetensors does not fit the model" in capsys.readouterr().err
    save_dit(tmp_path / "wide.safetensors", wide)
    status, folder = sample("--dit", tmp_path / "wide.safetensors")
    assert status == 0
    assert (folder / "000.mp4").is_file()


def test_who_watches_is_told_of_each_step_and_clip(sample):
    _, folder = sample()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"kind": "state", "step": 0}  # the first step is compiled next
    assert [line["kind"] for line in lines[1:]] == ["step"] * 6 + ["clip"] * 3  # two steps a prompt
    assert [(line["step"], line["steps"]) for line in lines[1:]] == [(step, 9) for step in range(1, 10)]


@pytest.fixture
def smaller(tmp_path):
    """A transformer of smaller position tables than stage 3's."""
    dit = small_runs.random_dit(config.load("smoke").dit_config(3).model_copy(update={"max_size": (2, 4, 6)}))
    save_dit(tmp_path / "smaller.safetensors", dit)
    return dit, tmp_path / "smaller.safetensors"


@pytest.mark.parametrize(
    ("words", "needed"), [(("--size", "80x96"), "(2, 5, 6)"), (("--size", "64x96", "--frames", "17"), "(3, 4, 6)")]
)
def test_what_is_larger_than_the_tables_of_the_file_is_an_error(sample, smaller, words, needed, capsys):
    status, folder = sample("--dit", smaller[1], *words)
    assert status == 2
    message = f"needs position tables of {needed} patches, the transformer's file has (2, 4, 6)"
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_a_transformer_of_other_text_widths_is_an_error(sample, capsys):
    status, folder = sample("--text.ul2.width", "32")
    assert status == 2
    assert "text_projector.ul2_linear.weight: (64, 64) for (64, 32)" in capsys.readouterr().err
    assert not folder.exists()


def test_an_autoencoder_of_other_latents_is_an_error(sample, tmp_path, capsys):
    save_tae(tmp_path / "four.safetensors", TAE(small_runs.SMALL_TAE.model_copy(update={"latent_channels": 4})))
    assert sample("--tae", tmp_path / "four.safetensors")[0] == 2
    assert "decodes latents of 4 channels" in capsys.readouterr().err


def test_unknown_formats_are_refused(sample):
    with pytest.raises(SystemExit) as error:
        sample("--format", "avi")
    assert error.value.code == 2


@pytest.mark.parametrize("words", [("--steps", "5"), ("--format", "gif"), ("--dit", "x.safetensors")])
def test_options_for_prompts_need_prompts(words, capsys, tmp_path):
    assert __main__.main(["sample", "--config", "smoke", *words]) == 2
    assert f"{words[0]} goes with --prompts" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_without_weights_the_report_must_have_trained(prompts, capsys):
    assert __main__.main(["sample", "--config", "smoke", "--prompts", str(prompts)]) == 2
    error = capsys.readouterr().err
    assert "needs stage3-" in error
    assert re.search(r"run `msrun .*--worker_num=2 .*python -m moviegen train --stage 3 --config", error)


def test_the_reports_networks_are_found_whatever_the_options(prompts):
    params = config.load("smoke")
    small_runs.write_dit(params, 3)
    small_runs.write_tae(params)
    options = {"frames": "24", "seed": "3", "size": "32x48", "dit": None, "tae": None}
    order = ordered(prompts, Path(), **options)
    assert order.dit.is_file()
    assert order.tae.is_file()


# --- what is written ---


@pytest.mark.usefixtures("eager_programs")
def test_latents_are_decoded_later_to_the_same_video(sample, weights, tmp_path, capsys):
    status, folder = sample()
    assert status == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert sample("--format", "latents", output="latents")[0] == 0
    with np.load(tmp_path / "latents" / "001.npz") as file:
        assert file["latent_mean"].shape == (16, 2, 4, 6)
        assert (int(file["frames"]), float(file["fps"])) == (9, 12)
    own = ("--weights", weights / "tae.safetensors")
    files = ("--input", tmp_path / "latents" / "001.npz", "--output", tmp_path / "later.mp4")
    assert __main__.main(["tae", "decode", "--config", "smoke", *map(str, (*own, *files))]) == 0
    assert (tmp_path / "later.mp4").read_bytes() == (folder / "001.mp4").read_bytes()
    assert videos.probe(folder / "001.mp4") == videos.VideoInfo(9, 32, 48, 12.0)
    with (folder / "prompts.csv").open() as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("0", "a cat", "42", "000.mp4"),
        ("1", "two dogs", "43", "001.mp4"),
        ("2", "the sea", "44", "002.mp4"),
    ]
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["size"], settings["frames"], settings["steps"]) == ([32, 48], 9, 2)
    assert settings["dit"] == str(weights / "dit.safetensors")


@pytest.mark.usefixtures("eager_programs")
def test_one_frame_is_an_image_at_once_or_decoded_later(sample, weights, tmp_path):
    status, folder = sample("--frames", "1")
    assert status == 0
    images = [np.asarray(Image.open(folder / f"00{number}.png")) for number in range(3)]
    assert {image.shape for image in images} == {(32, 48, 3)}
    assert not np.array_equal(images[0], images[1])
    assert sample("--frames", "1", "--format", "latents", output="latents")[0] == 0
    own = ("--weights", weights / "tae.safetensors")
    files = ("--input", tmp_path / "latents" / "001.npz", "--output", tmp_path / "later.png")
    assert __main__.main(["tae", "decode", "--config", "smoke", *map(str, (*own, *files))]) == 0
    assert (tmp_path / "later.png").read_bytes() == (folder / "001.png").read_bytes()


def test_a_file_of_smaller_tables_is_sampled_with_its_own(smaller, prompts, weights, tmp_path):
    dit, path = smaller
    params = config.load("smoke")
    order = ordered(prompts, weights, dit=str(path), format="latents", size="32x48", steps="2")
    program.write_share(dataclasses.replace(order, folder=tmp_path / "own"), params, World())
    sampler = Sampler(dit, program.embed(params, order.prompts), order.settings.guidance, (16, 32, 48))
    with np.load(tmp_path / "own" / "000.npz") as file:
        times = schedule.get(order.settings.schedule, 2)
        np.testing.assert_array_equal(file["latent_mean"], sampler(order.prompts[:1], times)[0])


def latents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


def test_clips_are_the_same_whatever_the_number_of_workers(prompts, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "barrier", lambda world: None)  # ranks work one after the other
    params = config.load("smoke", {"sample.size": [32, 48], "sample.steps": 2, "sample.batch_size": 2})
    options = {"format": "latents", "size": "32x48", "steps": "2"}
    order = dataclasses.replace(ordered(prompts, weights, **options), settings=params.sample)
    found = {}
    for size in (1, 2):
        made = []
        for rank in range(size):  # each lists what is missing before any writes
            into = dataclasses.replace(order, folder=tmp_path / f"{rank}-of-{size}")
            program.write_share(into, params, World(rank, size))
            made.append(latents(into.folder))
        shares = [sorted(files) for files in made]
        found[size] = {name: content for files in made for name, content in files.items()}
    assert shares == [["000.npz", "001.npz"], ["002.npz"]]
    assert found[1] == found[2]
    assert len(set(found[1].values())) == 3


@pytest.mark.usefixtures("eager_programs")
def test_what_was_cut_goes_on_with_what_is_missing_to_the_same_bits(sample, weights, tmp_path, monkeypatch):
    whole = sample()[1]

    def made():
        files = (path for path in whole.rglob("*") if path.is_file() and path.name != "metrics.jsonl")
        return {path.relative_to(whole): path.read_bytes() for path in files}

    first = made()
    assert len(first) == 8  # three clips, their latents, and two lists
    asked = []

    def counted(self, batch, *rest):
        asked.append([prompt.index for prompt in batch])
        return Sampler.__call__(self, batch, *rest)

    def decoded(self, path, latent):
        asked.append(path.name)
        return sampling_pipeline.clip_writer(path, 9)(path, self.clip(latent), self.settings.fps)

    monkeypatch.setattr(sampling_pipeline, "Sampler", type("Counted", (Sampler,), {"__call__": counted}))
    monkeypatch.setattr(program.Pipeline, "write", decoded)
    (whole / "000.mp4").unlink()  # its latent is there
    (whole / "002.mp4").unlink()
    (whole / "latents" / "002.npz").unlink()
    sample()
    assert asked == [[2], "000.mp4", "002.mp4"]
    assert made() == first
    asked.clear()
    sample("--seed", "7")  # other clips take the place of all
    assert len(asked) == 6
    assert (whole / "000.mp4").read_bytes() != first[Path("000.mp4")]


def test_progress_is_told_step_by_step(sample, bars_of):
    bars = bars_of(sampling_pipeline)
    sample("--format", "latents", "--sample.batch_size", "2")
    assert [(bar.total, bar.n) for bar in bars] == [(4, 4)]  # two batches of two steps


@pytest.mark.whole_job
def test_two_workers_sample_what_one_does_to_the_last_bit(command, sample, tmp_path):
    """As the test above, in processes of their own, each with its share of the cores."""
    words = ("--format", "latents", "--sample.batch_size", "2")
    alone = sample(*words, output="alone")[1]
    job = Job(
        command=("python", "-m", "moviegen", *command(*words, output="shared")), log_dir=tmp_path / "logs",
        worker_num=2, local_worker_num=2, environment={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    run_job(job)
    assert len(latents(alone)) == 3
    assert latents(tmp_path / "shared") == latents(alone)
    for name in ("prompts.csv", "settings.json"):
        assert (tmp_path / "shared" / name).read_bytes() == (alone / name).read_bytes()


def test_a_worker_without_a_share_writes_nothing(prompts, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "barrier", lambda world: None)
    order = dataclasses.replace(ordered(prompts, weights, format="latents"), folder=tmp_path / "none")
    program.write_share(order, config.load("smoke"), World(3, 4))
    assert not order.folder.exists()


def test_a_prompt_alone_gives_the_clip_it_gives_among_others(sample, prompts, tmp_path):
    among = sample("--format", "latents", output="among")[1]
    prompts.write_text("two dogs\n")
    alone = sample("--format", "latents", "--seed", "43", output="alone")[1]
    assert (alone / "000.npz").read_bytes() == (among / "001.npz").read_bytes()
