"""The road's order, and fingerprints: what changes them, what does not, and that every process computes the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from moviegen import config, device
from moviegen.data.layouts import find_layout
from moviegen.device import compiled, compiler
from moviegen.runs import fingerprint as fingerprints
from moviegen.runs import hashes, registry
from moviegen.runs.fingerprint import fingerprint
from moviegen.runs.registry import PROGRAMS

ROOT = Path(__file__).parents[2]
ORDER = ("count", "calibration", "data", "tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit", "tae-evaluation",
         "text", "latents", "stage1", "stage2", "stage3", "sample", "shipped", "retrieval",
         "schedule-error")  # fmt: skip
COUNTED = {"count", "calibration"}  # what looks at no clip
# What the transformers' shape changes, and what is sampled from stage 3
TRANSFORMER = {"count", "stage1", "stage2", "stage3", "sample", "retrieval", "schedule-error"}
SAMPLED = {"sample", "retrieval", "schedule-error"}
CLIPS = {"sample", "shipped"}  # what is sampled to be looked at, by weights of the report's own and by others


@pytest.fixture(autouse=True)
def looked_at_again(tmp_path, monkeypatch):
    """Files and code are looked at once a process; here they change within one."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    fingerprints.forget()
    yield
    fingerprints.forget()


def changed(**overrides):
    """The programs whose fingerprint differs from that of `params/smoke.yaml`."""
    names = {name.replace("__", "."): value for name, value in overrides.items()}
    before, after = config.load("smoke"), config.load("smoke", names)
    return {name for name in PROGRAMS if fingerprint(before, name) != fingerprint(after, name)}


def downstream(*names):
    """The named programs and all that build on them, by the `upstream` each program declares."""
    found = set(names)
    while more := {p.name for p in PROGRAMS.values() if set(p.upstream) & found} - found:
        found |= more
    return found


# --- the road ---


def test_every_program_comes_after_what_it_needs():
    assert tuple(PROGRAMS) == ORDER
    for place, name in enumerate(ORDER):
        assert set(PROGRAMS[name].upstream) <= set(ORDER[:place])


def test_road_begins_with_data_and_ends_with_samples_and_scores():
    needed = {upstream for program in PROGRAMS.values() for upstream in program.upstream}
    assert {name for name in ORDER if not PROGRAMS[name].upstream} == {"data", *COUNTED}
    assert set(ORDER) - needed == {*COUNTED, "tae-evaluation", *SAMPLED, *CLIPS}


def test_each_stage_follows_the_one_before():
    upstream = {name: set(PROGRAMS[name].upstream) for name in ("stage1", "stage2", "stage3")}
    assert upstream["stage2"] - upstream["stage1"] == {"stage1"}
    assert upstream["stage3"] - upstream["stage1"] == {"stage2"}


def test_how_many_workers_compute_a_program():
    by_workers = {workers: {p.name for p in PROGRAMS.values() if p.workers == workers} for workers in ("recipe", "any")}
    phases = {"tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit"}
    assert by_workers["recipe"] == {"stage1", "stage2", "stage3", *phases}
    sampled = {"sample", "shipped", "retrieval", "schedule-error"}
    assert by_workers["any"] == {"text", "latents", "tae-evaluation", *sampled}


def test_arguments_reach_the_module_of_the_program():
    from moviegen.__main__ import module_of, parser

    for program in PROGRAMS.values():
        assert module_of(parser().parse_args(program.arguments)) == program.module


def test_unknown_program_names_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'stage1'"):
        registry.find("stage_1")


# --- parameters ---


@pytest.mark.parametrize(
    "override",
    [
        {"sample__steps": 9},
        {"sample__batch_size": 2},
        {"sample__schedule": "linear"},
        {"sample__num_prompts": 2},
        {"sample__fps": 8},
        {"sample__size": [48, 80]},
    ],
)
def test_sampling_parameter_changes_sampling_alone(override):
    assert changed(**override) == CLIPS


def test_guidance_is_measured_as_it_is_sampled():
    assert changed(sample__guidance=4.0) == CLIPS | {"schedule-error"}


@pytest.mark.parametrize(
    "override",
    [
        {"sample__schedule_error__steps": [2, 3]},
        {"sample__schedule_error__reference_steps": 16},
        {"sample__schedule_error__prompts": 2},
    ],
)
def test_what_is_measured_of_the_schedules_changes_no_clip(override):
    assert changed(**override) == {"schedule-error"}


@pytest.mark.parametrize("name", ("prompts", "batch_size", "steps", "guidance"))
def test_how_retrieval_is_measured_changes_no_clip(name):
    assert changed(**{f"sample__retrieval__{name}": 5}) == {"retrieval"}


@pytest.mark.parametrize("frames", [8, 24])
def test_number_of_sampled_frames_changes_sampling_alone(frames):
    assert changed(sample__frames=frames) == CLIPS


def test_shape_of_the_autoencoder_changes_all_but_data_and_text():
    assert changed(tae__model__base_channels=16) == set(PROGRAMS) - {"count", "data", "text", "shipped"}


@pytest.mark.parametrize("override", [{"frames": 40}, {"overlap_frames": 8}, {"size": [72, 80]}, {"overlap": 8}])
def test_tiles_change_what_is_encoded_and_decoded_in_them(override):
    found = changed(**{f"tae__tiling__{name}": value for name, value in override.items()})
    assert found == downstream("latents") | CLIPS


def test_training_the_autoencoder_on_video_changes_what_follows_it():
    assert changed(tae__video__steps=7) == downstream("tae-opl-off", "tae-opl-on")
    assert "tae-image" not in downstream("tae-opl-off", "tae-opl-on")


def test_the_outlier_penalty_changes_the_run_that_has_it():
    assert changed(tae__loss__outlier=2.0) == {"tae-opl-on", "tae-evaluation"}


def test_fine_tuning_changes_the_autoencoder_in_use():
    assert changed(tae__mixkit__steps=7) == downstream("tae-mixkit")
    assert {"latents", "stage1", "sample"} <= downstream("tae-mixkit")


# --- inputs of one's own ---


@pytest.fixture
def mine(tmp_path):
    """A function that makes a file or folder of one's own."""

    def make(name):
        path = tmp_path / "mine" / name
        (path if not path.suffix else path.parent).mkdir(parents=True, exist_ok=True)
        (path if path.suffix else path / "summary.json").write_text("{}")
        return str(path)

    return make


def test_a_trained_autoencoder_makes_the_training_before_it_unnecessary(mine):
    tae = {"tae.tae_checkpoint": mine("tae.safetensors")}
    params = config.load("smoke", tae)
    assert {name for name in PROGRAMS if registry.replacement(params, name)} == {
        "tae-image", "tae-opl-off", "tae-opl-on",
    }  # fmt: skip
    assert PROGRAMS["tae-mixkit"].needs(params) == ("data",)
    assert PROGRAMS["tae-evaluation"].needs(params) == ("data", "tae-mixkit")
    longer = config.load("smoke", tae | {"tae.image.steps": 99})
    assert all(fingerprint(params, name) == fingerprint(longer, name) for name in ("tae-mixkit", "sample"))


def test_an_image_autoencoder_of_ones_own_needs_no_clips(mine):
    params = config.load("smoke", {"tae.vae_checkpoint": mine("vae.safetensors")})
    assert PROGRAMS["tae-image"].needs(params) == ()
    assert PROGRAMS["tae-opl-off"].needs(params) == ("data", "tae-image")


@pytest.mark.parametrize(
    ("parameter", "name", "replaced"),
    [
        ("stages.2.model.pretrained_model_path", "dit.safetensors", "stage1"),
        ("stages.2.dataset.tae_latent_folder", "latents", "latents"),
        ("stages.2.dataset.text_emb_folder", "embeddings", "text"),
    ],
)
def test_a_stage_does_not_need_what_an_input_of_ones_own_replaces(mine, parameter, name, replaced):
    params = config.load("smoke", {parameter: mine(name)})
    without = set(PROGRAMS["stage2"].needs(config.load("smoke")))
    assert set(PROGRAMS["stage2"].needs(params)) == without - {replaced}
    assert registry.replacement(params, replaced, stage=2) == config.local_paths(params.recipes[2])[parameter[9:]]
    assert set(PROGRAMS["stage3"].needs(params)) == set(PROGRAMS["stage3"].needs(config.load("smoke")))


def test_a_stage_that_starts_from_weights_of_ones_own_is_not_trained_again_for_the_stage_before(mine):
    weights = {"stages.2.model.pretrained_model_path": mine("dit.safetensors")}
    params, longer = config.load("smoke", weights), config.load("smoke", weights | {"stages.1.train.steps": 99})
    assert fingerprint(params, "stage1") != fingerprint(longer, "stage1")
    assert fingerprint(params, "stage2") == fingerprint(longer, "stage2")


PATHS = {
    "data.film": "data",
    "tae.vae_checkpoint": "tae-image",
    "tae.tae_checkpoint": "tae-mixkit",
    "tae.start_checkpoint": "tae-mixkit",
    "tae.loss.lpips_checkpoint": "tae-opl-off",
    "text.ul2.folder": "text",
    "stages.1.model.pretrained_model_path": "stage1",
    "stages.2.dataset.tae_latent_folder": "stage2",
    "stages.3.dataset.text_emb_folder": "stage3",
}


@pytest.mark.parametrize(("parameter", "name"), PATHS.items())
def test_what_lies_at_a_path_counts_and_not_where_or_since_when(tmp_path, parameter, name):
    marks = {}
    for folder, content in (("one", b"1"), ("copy", b"1"), ("other", b"2")):
        path = tmp_path / folder if "folder" in parameter else tmp_path / f"{folder}.safetensors"
        file = path / "summary.json" if "folder" in parameter else path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        os.utime(file, ns=(1, len(marks)))
        marks[folder] = fingerprint(config.load("smoke", {parameter: str(path)}), name)
    assert marks["one"] == marks["copy"] != marks["other"]


@pytest.mark.parametrize(("parameter", "name"), PATHS.items())
def test_a_path_where_nothing_is_is_not_as_if_none_were_named(tmp_path, parameter, name):
    named = config.load("smoke", {parameter: str(tmp_path / "nothing")})
    assert fingerprint(named, name) != fingerprint(config.load("smoke", {parameter: ""}), name)


@pytest.mark.parametrize("changes", ["tae", "transformer"])
def test_shipped_weights_count_for_what_is_sampled_with_them(mine, changes):
    names = {f"shipped.{name}": mine(f"{name}.safetensors") for name in ("tae", "transformer")}

    def marks():
        fingerprints.forget()
        params = config.load("smoke", names)
        return {name: fingerprint(params, name) for name in PROGRAMS}

    before = marks()
    Path(names[f"shipped.{changes}"]).write_bytes(b"others")
    after = marks()
    assert {name for name in PROGRAMS if before[name] != after[name]} == {"shipped"}


def test_weights_of_the_perceptual_distance_count_for_the_evaluation(mine):
    named = config.load("smoke", {"tae.loss.lpips_checkpoint": mine("vgg.safetensors")})
    assert fingerprint(named, "tae-evaluation") != fingerprint(config.load("smoke"), "tae-evaluation")


def test_only_where_weights_are_shipped_is_something_sampled_with_them():
    named = config.load("smoke", {"shipped.tae": "tae.safetensors", "shipped.transformer": "dit.safetensors"})
    assert {name for name in PROGRAMS if registry.is_asked_for(named, name)} == set(PROGRAMS)
    without = config.load("smoke")
    assert {name for name in PROGRAMS if registry.is_asked_for(without, name)} == set(PROGRAMS) - {"shipped"}


def test_where_a_run_lies_that_another_goes_on_from_does_not_count():
    def mark(folder):
        return fingerprint(config.load("smoke", {"stages.2.train.resume.run": folder}), "stage2")

    assert mark("outputs/smoke/runs/stage2-01234567") == mark("/elsewhere/runs/stage2-01234567")
    assert mark("outputs/smoke/runs/stage2-01234567") != mark("outputs/smoke/runs/stage2-76543210")


def test_every_path_among_the_parameters_is_one_of_some_program():
    read = set()
    paths = dict.fromkeys([*PATHS, "shipped.tae", "shipped.transformer"], "somewhere")
    params = config.load("smoke", paths)
    for program in PROGRAMS.values():
        read |= set(program.local_paths(params))
    of_recipes = {f"{prefix}{name}" for prefix in ("",) for name in config.local_paths(params.recipes[1])}
    assert set(config.local_paths(params)) | of_recipes == read


def test_evaluation_parameter_changes_the_evaluation_alone():
    assert changed(tae__evaluation__max_clips=2) == {"tae-evaluation"}


def test_text_encoder_changes_text_and_what_reads_it():
    assert changed(text__ul2__width=32) == {"calibration", "text", *TRANSFORMER, *CLIPS}


def test_stage_2_changes_itself_and_what_builds_on_it():
    assert changed(stages__2__train__steps=7) == {"stage2", "stage3", *SAMPLED}


def test_stage_3_changes_itself_and_the_clips():
    assert changed(stages__3__train__steps=7) == {"stage3", "sample", "retrieval"}


@pytest.mark.parametrize(
    "override",
    [
        {"stages__2__dataset__frames": [8, 16]},
        {"stages__3__dataset__aspect_ratios": ["16:9", "1:1"]},
        {"stages__2__dataset__size": [80, 80]},
        {"stages__2__dataloader__image_ratio": 0.0},
    ],
)
def test_buckets_change_the_latents_and_what_reads_them(override):
    assert {"latents", *TRANSFORMER} - {"count"} <= changed(**override)
    assert not {"data", "text", "tae-mixkit"} & changed(**override)


def test_how_often_images_are_drawn_changes_no_latent():
    assert changed(stages__2__dataloader__image_ratio=0.5) == {"stage2", "stage3", *SAMPLED}


def test_shared_group_changes_every_stage():
    assert changed(train__clip_norm=0.5) == TRANSFORMER - {"count"}


def test_size_of_the_job_changes_the_stages():
    workers = {"launch__worker_num": 4, "launch__local_worker_num": 4}
    assert changed(**workers) == {"calibration", *TRANSFORMER} - {"count"}


def test_a_stage_s_share_of_the_workers_changes_it():
    assert changed(stages__2__train__worker_num=1) == {"calibration", "stage2", "stage3", *SAMPLED}


def test_size_of_the_transformer_changes_what_holds_one():
    # shipped's file says what it is
    assert changed(model__size="tiny") == TRANSFORMER | CLIPS - {"shipped"} | {"calibration"}


@pytest.mark.parametrize(
    "override",
    [
        {"launch__master_port": 8200},
        {"launch__bind_core": True},
        {"train__save__interval": 2},
        {"train__save__keep": 3},
        {"train__profile__first": 3},
        {"tae__video__save__interval": 3},
        {"tae__image__save__keep": 9},
    ],
)
def test_how_a_job_is_started_saved_and_watched_changes_nothing(override):
    assert changed(**override) == set()


def test_the_device_changes_what_it_computes():
    assert changed(launch__device="Ascend") == set(PROGRAMS) - {"count", "data"}


@pytest.fixture
def compilable(monkeypatch):
    """Compiled operators can be had, and nothing was chosen."""
    monkeypatch.delenv(compiled.CHOICE, raising=False)
    monkeypatch.setattr(compiled, "_library", lambda: (Path("library.so"), "x86-64-v4"))
    monkeypatch.setattr(compiled, "forget", lambda: None)  # there is nothing to be looked for again


COMPUTED = set(PROGRAMS) - {"count", "data"}


def marked(**overrides):
    fingerprints._fingerprint.cache_clear()  # of code and files nothing changes here
    params = config.load("smoke", overrides)
    return {name: fingerprint(params, name) for name in PROGRAMS}


def different(before, after):
    return {name for name in PROGRAMS if before[name] != after[name]}


def test_the_operators_change_what_they_compute(compilable):
    assert changed(launch__operators="mindspore") == COMPUTED
    assert changed(launch__operators="compiled") == set()  # which are what `auto` means here


def test_it_counts_which_operators_compute_and_not_who_chose_them(compilable, monkeypatch):
    own = marked(**{"launch.operators": "mindspore"})
    monkeypatch.setenv(compiled.CHOICE, "mindspore")
    assert marked() == own
    monkeypatch.delenv(compiled.CHOICE)
    monkeypatch.setattr(compiled, "_library", lambda: (None, "no compiler"))
    assert marked() == own


def test_for_which_processor_they_were_compiled_does_not_count(compilable, monkeypatch):
    before = marked()
    monkeypatch.setattr(compiled, "_library", lambda: (Path("another.so"), "aarch64"))
    assert marked() == before


def test_a_recipe_for_cards_has_the_same_names_where_there_are_none(compilable, monkeypatch):
    here = marked(**{"launch.device": "Ascend"})
    monkeypatch.setattr(device, "accelerators", lambda: 8)
    assert marked(**{"launch.device": "Ascend"}) == here


CPP = '// Sums.\nint sum(int a, int b) {  // of two\n    return a + b; /* no\n overflow */\n}\nchar s[] = "//x";\n'


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda text: text.replace("Sums", "Its sums").replace("no\n overflow", "what\nis\nthat"), False),
        (lambda text: text.replace("    return", "  return").replace("}\n", "}\n\n"), False),
        (lambda text: text.replace("a + b", "a - b"), True),
        (lambda text: text.replace("//x", "//y"), True),
    ],
)
@pytest.mark.parametrize("file", ["operators.cpp", "operators/threads.h"])
def test_the_source_of_the_operators_counts_without_comments(compilable, monkeypatch, tmp_path, file, change, counts):
    source = tmp_path / file
    monkeypatch.setattr(compiler, "SOURCE", tmp_path / "operators.cpp")
    source.parent.mkdir(exist_ok=True)
    (tmp_path / "operators.cpp").write_text('#include "operators/threads.h"')
    source.write_text(CPP)
    before, own = marked(), marked(**{"launch.operators": "mindspore"})
    assert change(CPP) != CPP
    source.write_text(change(CPP))
    assert different(before, marked()) == (COMPUTED if counts else set())
    assert marked(**{"launch.operators": "mindspore"}) == own


def test_seed_changes_everything_that_is_drawn():
    assert changed(seed=7) == set(PROGRAMS) - COUNTED


def test_same_parameters_through_another_door():
    # stage 2 says 6 steps itself: saying it again is no change
    assert changed(stages__2__train__steps=6) == set()


@pytest.mark.parametrize("scale", ["smoke", "5B"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_parameters_are_plain_values_that_pages_and_manifests_can_write(name, scale):
    values = PROGRAMS[name].parameters(config.load(scale))
    assert yaml.safe_load(yaml.safe_dump(values)) == json.loads(json.dumps(values))


# --- files ---


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    (folder / "mixkit").mkdir(parents=True)
    (folder / "mixkit" / "a.mp4").write_bytes(b"1234")
    (folder / "video_caption_train.csv").write_text("video,caption\na.mp4,a\n")
    return folder


def marks(folder):
    fingerprints.forget()
    params = config.load("smoke", {"data.root": str(folder)})
    return {name: fingerprint(params, name) for name in PROGRAMS}


def mark_of_data(folder):
    fingerprints.forget()
    return fingerprint(config.load("smoke", {"data.root": str(folder)}), "data")


@pytest.mark.parametrize("change", ["new file", "longer file", "other bytes", "removed file", "renamed", "new caption"])
def test_change_in_the_data_folder_changes_all_that_see_it(clips, change):
    before, video = marks(clips), clips / "mixkit" / "a.mp4"
    if change == "new file":
        (clips / "mixkit" / "b.AVI").write_bytes(b"1")
    elif change == "longer file":
        video.write_bytes(b"12345")
    elif change == "other bytes":
        video.write_bytes(b"4321")
    elif change == "removed file":
        video.unlink()
    elif change == "renamed":
        video.rename(clips / "mixkit" / "b.mp4")
    else:
        (clips / "video_caption_train.csv").write_text("video,caption\na.mp4,another\n")
    after = marks(clips)
    assert {name for name in PROGRAMS if before[name] != after[name]} == set(PROGRAMS) - COUNTED


def test_a_touched_or_copied_data_folder_is_the_same(clips, tmp_path):
    before = marks(clips)
    os.utime(clips / "mixkit" / "a.mp4", ns=(1, 1))
    assert marks(clips) == before
    shutil.copytree(clips, tmp_path / "elsewhere" / "copy")
    assert marks(tmp_path / "elsewhere" / "copy") == before


def test_other_files_in_the_data_folder_change_nothing(clips, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(clips / "outputs"))
    before = marks(clips)
    (clips / "notes.txt").write_text("mine")
    (clips / "mixkit" / ".b.mp4").write_bytes(b"half written")
    (clips / "._video_caption_train.csv").write_bytes(b"\0")
    (clips / "outputs" / "smoke" / "runs").mkdir(parents=True)
    (clips / "outputs" / "smoke" / "runs" / "sampled.mp4").write_bytes(b"1")
    (clips / "mixkit" / "up").symlink_to("..")
    assert marks(clips) == before


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_a_change_behind_a_link_changes_all_that_see_it(clips, tmp_path, linked):
    store = tmp_path / "store"
    (clips / "mixkit").rename(store)
    if linked == "folder":
        (clips / "mixkit").symlink_to(store)
    else:
        (clips / "mixkit").mkdir()
        (clips / "mixkit" / "a.mp4").symlink_to(store / "a.mp4")
    marked = [mark_of_data(clips)]
    (store / "a.mp4").write_bytes(b"other bytes")
    marked.append(mark_of_data(clips))
    (store / "a.mp4").unlink()
    marked.append(mark_of_data(clips))
    assert len(set(marked)) == 3
    (store / "a.mp4").write_bytes(b"other bytes")
    assert mark_of_data(clips) == marked[1]


@pytest.mark.filterwarnings("ignore:.*(captions|classes|left out)")
@pytest.mark.parametrize("suffix", ["webm", "MPG", "gif"])
def test_every_clip_of_the_index_counts_and_so_does_its_list(clips, tmp_path, suffix):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / f"b.{suffix}").write_bytes(b"1")
    (clips / "mixkit" / "linked").symlink_to(tmp_path / "store")
    (clips / "video_caption_train.csv").write_text(f"video,caption\na.mp4,a\nlinked/b.{suffix},b\n")
    listed = {clip.path for found in find_layout(clips).values() for clip in found}
    assert {path.name for path in listed} == {"a.mp4", f"b.{suffix}"}
    before = mark_of_data(clips)
    for path in (*listed, clips / "video_caption_train.csv"):
        path.write_bytes(path.read_bytes() + b" ")
        assert mark_of_data(clips) != before
        before = mark_of_data(clips)


def test_a_clip_that_may_not_be_read_is_as_good_as_missing(clips, monkeypatch):
    before, access = mark_of_data(clips), os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("a.mp4") and access(path, mode))
    assert mark_of_data(clips) != before
    monkeypatch.undo()
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(clips.parent / "outputs"))
    assert mark_of_data(clips) == before


def test_names_that_are_not_utf_8_or_long_are_hashed(clips):
    before = mark_of_data(clips)
    (clips / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"1")
    (clips / ("字" * 80 + ".mp4")).write_bytes(b"1")
    changed = mark_of_data(clips)
    assert changed != before
    hashes._known.cache_clear()  # as another process reads what this one has written
    assert mark_of_data(clips) == changed


def test_a_file_is_read_once_until_its_size_or_time_changes(clips, monkeypatch):
    read = []
    checksum = hashes.checksum
    monkeypatch.setattr(hashes, "checksum", lambda path: read.append(path.name) or checksum(path))
    first = marks(clips)
    assert sorted(read) == ["a.mp4", "video_caption_train.csv"]
    assert marks(clips) == first
    assert len(read) == 2
    os.utime(clips / "mixkit" / "a.mp4", ns=(1, 1))
    assert marks(clips) == first
    assert read[2:] == ["a.mp4"]


def test_a_damaged_memory_of_hashes_is_done_without(clips, tmp_path):
    first = marks(clips)
    (tmp_path / "outputs" / "hashes.json").write_text('{"half')
    hashes._known.cache_clear()
    assert marks(clips) == first


def test_a_fingerprint_is_computed_once_in_a_process(clips, monkeypatch):
    marks(clips)
    monkeypatch.setattr(hashes, "folder_hash", lambda *_: pytest.fail("the folder was listed again"))
    params = config.load("smoke", {"data.root": str(clips)})
    assert all(fingerprint(params, name) for name in PROGRAMS)


# --- code ---


def code():
    """The hashes of each program's code."""
    fingerprints.forget()
    return {program.name: list(map(fingerprints.code_hash, program.modules)) for program in PROGRAMS.values()}


@pytest.fixture(scope="module")
def code_here():
    return code()


@pytest.fixture
def edited(tmp_path, monkeypatch, code_here):
    """Says which programs' code hashes differ once a function has edited a file of the package, in a copy of it."""
    source = fingerprints._source

    def edit(file, change):
        path, copy = ROOT / "moviegen" / file, tmp_path / "edited.py"
        text = path.read_text()
        assert change(text) != text
        copy.write_text(change(text))
        monkeypatch.setattr(fingerprints, "_source", lambda module: copy if source(module) == path else source(module))
        after = code()
        return {name for name in PROGRAMS if code_here[name] != after[name]}

    yield edit
    fingerprints.forget()


def with_code(text):
    return text + "\nADDED = 1\n"


STAGES = {"stage1", "stage2", "stage3"}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("programs/sample.py", CLIPS),
        ("programs/sampling_pipeline.py", CLIPS),
        ("programs/retrieval.py", {"retrieval"}),
        ("programs/count.py", {"count"}),
        ("programs/calibrate.py", {"calibration"}),
        ("programs/schedule_error.py", {"schedule-error"}),
        ("programs/train_dit.py", STAGES),
        ("programs/one_step.py", {"calibration"}),  # which has it measure steps
        ("plan/flops.py", {"count", "calibration"}),  # which compare it with what they measure: no training
        ("flow/schedule.py", STAGES | SAMPLED | CLIPS),
        ("flow/sampler.py", STAGES | SAMPLED | CLIPS),
        ("flow/path.py", STAGES | SAMPLED | CLIPS | {"calibration"}),
        # only through the transformer's model does anything import its layers
        ("dit/layers.py", TRANSFORMER | CLIPS | {"calibration"}),
        ("data/videos.py", set(PROGRAMS) - COUNTED),
        ("data/latents.py", {"latents", "retrieval"} | STAGES),
        ("data/embeddings.py", {"text"} | STAGES | SAMPLED | CLIPS),
        ("tae/losses.py", {"tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit", "calibration"}),
        ("config/networks.py", set(PROGRAMS)),  # through config/__init__.py
        ("runs/arrays.py", set(PROGRAMS) - {"count", "data"}),
        # what starts, names and records runs computes nothing
        ("runs/registry.py", set()),
        ("runs/run.py", set()),
        ("launch/run.py", set()),
        ("report/sections.py", set()),
    ],
)
def test_code_counts_where_it_is_imported_directly_or_not(edited, file, expected):
    assert edited(file, with_code) == expected


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("flow/sampler.py", lambda text: text + "\n# a remark\n"),
        ("flow/sampler.py", lambda text: text.replace("\n\n\n", "\n\n\n\n\n")),
        ("flow/sampler.py", lambda text: text.replace("x + np.float32", "(x) + np.float32")),
        ("flow/sampler.py", lambda text: text.replace("Their guided velocity.", "What they follow.")),
        ("flow/sampler.py", lambda text: text.replace('"""Sampling (paper', '"""All of it (paper')),
        ("data/latents.py", lambda text: text.replace("holds no finished latents", "has none")),  # an error
        ("data/quarantine.py", lambda text: text.replace("is set aside", "is left out")),  # a warning
        ("config/params.py", lambda text: text.replace("a local Hugging Face folder", "a folder")),  # help
    ],
)
def test_comments_formatting_docstrings_and_messages_do_not_count(edited, file, change):
    assert edited(file, change) == set()


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("flow/path.py", lambda text: text.replace("1e-5", "1e-6"), STAGES | SAMPLED),
        ("flow/schedule.py", lambda text: text.replace('"linear": linear', '"equal": linear'), SAMPLED),
        ("data/latents.py", lambda text: text.replace("if shape != shapes[", "if shape == shapes["), STAGES),
    ],
)
def test_numbers_names_and_conditions_count(edited, file, change, expected):
    assert edited(file, change) >= expected


def test_versions_count_of_the_packages_that_a_program_imports(monkeypatch):
    params = config.load("smoke")
    before = {name: fingerprint(params, name) for name in PROGRAMS}

    def with_other(distribution):
        version = fingerprints.metadata.version
        with monkeypatch.context() as patch:
            patch.setattr(fingerprints.metadata, "version", lambda n: "9.9" if n == distribution else version(n))
            fingerprints.forget()
            return {name for name in PROGRAMS if fingerprint(params, name) != before[name]}

    assert with_other("mindspore") == set(PROGRAMS) - {"data"}
    assert with_other("av") == set(PROGRAMS) - COUNTED
    assert with_other("jupyterlab") == with_other("tqdm") == set()


# --- processes ---


def test_every_process_computes_the_same():
    program = (
        "import json; from moviegen import config; from moviegen.runs import registry, fingerprint;"
        "params = config.load('smoke');"
        "print(json.dumps({name: fingerprint.fingerprint(params, name) for name in registry.PROGRAMS}))"
    )
    seen = [
        json.loads(
            subprocess.run(
                (sys.executable, "-c", program),
                cwd=ROOT,
                env=os.environ | {"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    params = config.load("smoke")
    assert seen[0] == seen[1] == {name: fingerprint(params, name) for name in PROGRAMS}
    assert len(set(seen[0].values())) == len(PROGRAMS)
    assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in seen[0].values())


def test_digest_ignores_the_order_of_keys():
    assert fingerprints.digest({"a": 1, "b": [2, 3]}) == fingerprints.digest({"b": [2, 3], "a": 1})
    assert fingerprints.digest({"a": 1, "b": [2, 3]}) != fingerprints.digest({"a": 1, "b": [3, 2]})
