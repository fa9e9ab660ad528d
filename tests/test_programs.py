"""The road's order, and fingerprints: what changes them, what does not, and that every process computes the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moviegen import config, programs
from moviegen.programs import PROGRAMS, fingerprint

ROOT = Path(__file__).parent.parent
ORDER = ("count", "data", "tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit", "tae-evaluation", "text", "latents",
         "stage1", "stage2", "stage3", "sample", "retrieval", "schedule-error")  # fmt: skip
# What the transformers' shape changes, and what is sampled from stage 3
TRANSFORMER = {"count", "stage1", "stage2", "stage3", "sample", "retrieval", "schedule-error"}
SAMPLED = {"sample", "retrieval", "schedule-error"}


@pytest.fixture(autouse=True)
def fresh_files():
    """Files are looked at once a process; here they change within one."""
    programs.folder_listing.cache_clear()
    yield
    programs.folder_listing.cache_clear()


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
    assert {name for name in ORDER if not PROGRAMS[name].upstream} == {"data", "count"}
    assert set(ORDER) - needed == {"count", "tae-evaluation", *SAMPLED}


def test_each_stage_follows_the_one_before():
    upstream = {name: set(PROGRAMS[name].upstream) for name in ("stage1", "stage2", "stage3")}
    assert upstream["stage2"] - upstream["stage1"] == {"stage1"}
    assert upstream["stage3"] - upstream["stage1"] == {"stage2"}


def test_stages_alone_are_distributed():
    assert {p.name for p in PROGRAMS.values() if p.distributed} == {"stage1", "stage2", "stage3"}


def test_arguments_reach_the_module_of_the_program():
    from moviegen.__main__ import TAE_ACTIONS, VERBS, parser

    for program in PROGRAMS.values():
        options = parser().parse_args(program.arguments)
        module = TAE_ACTIONS[options.action] if options.verb == "tae" else VERBS[options.verb][0]
        assert module == program.module


def test_unknown_program_names_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'stage1'"):
        programs.find("stage_1")


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
    assert changed(**override) == {"sample"}


def test_guidance_is_measured_as_it_is_sampled():
    assert changed(sample__guidance=4.0) == {"sample", "schedule-error"}


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
    assert changed(sample__frames=frames) == {"sample"}


def test_shape_of_the_autoencoder_changes_all_but_data_and_text():
    assert changed(tae__model__base_channels=16) == set(PROGRAMS) - {"count", "data", "text"}


def test_training_the_autoencoder_on_video_changes_what_follows_it():
    assert changed(tae__video__steps=7) == downstream("tae-opl-off", "tae-opl-on")
    assert "tae-image" not in downstream("tae-opl-off", "tae-opl-on")


def test_the_outlier_penalty_changes_the_run_that_has_it():
    assert changed(tae__loss__outlier=2.0) == {"tae-opl-on", "tae-evaluation"}


def test_fine_tuning_changes_the_autoencoder_in_use():
    assert changed(tae__mixkit__steps=7) == downstream("tae-mixkit")
    assert {"latents", "stage1", "sample"} <= downstream("tae-mixkit")


def test_a_trained_autoencoder_makes_the_training_before_it_unnecessary():
    params = config.load("smoke", {"tae.tae_checkpoint": "models/tae.safetensors"})
    assert {name for name in PROGRAMS if PROGRAMS[name].replaced_by(params)} == {
        "tae-image",
        "tae-opl-off",
        "tae-opl-on",
    }
    assert PROGRAMS["tae-mixkit"].needs(params) == ("data",)
    assert PROGRAMS["tae-evaluation"].needs(params) == ("data", "tae-mixkit")
    before = {name: fingerprint(params, name) for name in ("tae-mixkit", "sample")}
    longer = config.load("smoke", {"tae.tae_checkpoint": "models/tae.safetensors", "tae.image.steps": 99})
    assert {name: fingerprint(longer, name) for name in before} == before


def test_evaluation_parameter_changes_the_evaluation_alone():
    assert changed(tae__evaluation__max_clips=2) == {"tae-evaluation"}


def test_text_encoder_changes_text_and_what_reads_it():
    assert changed(text__ul2__width=32) == {"text", *TRANSFORMER}


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
    assert changed(**workers) == TRANSFORMER - {"count"}


def test_size_of_the_transformer_changes_what_holds_one():
    assert changed(model__size="tiny") == TRANSFORMER


@pytest.mark.parametrize("override", [{"launch__master_port": 8200}, {"launch__bind_core": True}])
def test_how_a_job_is_started_changes_nothing(override):
    assert changed(**override) == set()


def test_seed_changes_everything():
    assert changed(seed=7) == set(PROGRAMS)


def test_same_parameters_through_another_door():
    # stage 2 says 6 steps itself: saying it again is no change
    assert changed(stages__2__train__steps=6) == set()


# --- files ---


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    (folder / "mixkit").mkdir(parents=True)
    (folder / "mixkit" / "a.mp4").write_bytes(b"1234")
    (folder / "video_caption_train.csv").write_text("video,caption\na.mp4,a\n")
    return folder


def marks(folder):
    programs.folder_listing.cache_clear()
    params = config.load("smoke", {"data.root": str(folder)})
    return {name: fingerprint(params, name) for name in PROGRAMS}


@pytest.mark.parametrize("change", ["new file", "longer file", "touched file", "removed file", "new caption"])
def test_change_in_the_data_folder_changes_all_that_see_it(clips, change):
    before, video = marks(clips), clips / "mixkit" / "a.mp4"
    if change == "new file":
        (clips / "mixkit" / "b.AVI").write_bytes(b"1")
    elif change == "longer file":
        times = video.stat()
        video.write_bytes(b"12345")
        os.utime(video, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "touched file":
        os.utime(video, ns=(1, 1))
    elif change == "removed file":
        video.unlink()
    else:
        (clips / "video_caption_train.csv").write_text("video,caption\na.mp4,another\n")
    after = marks(clips)
    assert {name for name in PROGRAMS if before[name] != after[name]} == set(PROGRAMS) - {"count"}


def test_other_files_in_the_data_folder_change_nothing(clips):
    before = marks(clips)
    (clips / "notes.txt").write_text("mine")
    assert marks(clips) == before


# --- code ---


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Says which programs' code hashes differ once a function has edited a file of a copy of the package."""
    shutil.copytree(ROOT / "moviegen", tmp_path / "moviegen", ignore=shutil.ignore_patterns("__pycache__"))
    real = programs._source
    monkeypatch.setattr(programs, "_source", lambda module: tmp_path / real(module).relative_to(ROOT))

    def hashes():
        programs.code_hash.cache_clear()
        return {program.name: programs.code_hash(program.module) for program in PROGRAMS.values()}

    def edit(file, change):
        before, path = hashes(), tmp_path / "moviegen" / file
        path.write_text(change(path.read_text()))
        after = hashes()
        return {name for name in PROGRAMS if before[name] != after[name]}

    yield edit
    programs.code_hash.cache_clear()


def with_code(text):
    return text + "\nADDED = 1\n"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("sample.py", SAMPLED),
        ("retrieval.py", {"retrieval"}),
        ("count.py", {"count"}),
        ("plan.py", {"count", "stage1", "stage2", "stage3", "retrieval"}),
        ("schedule_error.py", {"schedule-error"}),
        ("schedule.py", SAMPLED),
        ("generate.py", set()),
        # only through the transformer's model does anything import its layers
        ("dit/layers.py", TRANSFORMER),
        ("data/samples.py", set(PROGRAMS) - {"count"}),  # through data.prepare, which reads every index
        ("tae/losses.py", {"tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit"}),
        ("config/networks.py", set(PROGRAMS)),  # through config/__init__.py
        ("report/tables.py", set()),
        ("parallel/launch.py", set()),
    ],
)
def test_code_counts_where_it_is_imported_directly_or_not(edited, file, expected):
    assert edited(file, with_code) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n# a remark\n",
        lambda text: text.replace("\n\n\n", "\n\n\n\n\n"),
        lambda text: text.replace("x + np.float32", "(x) + np.float32"),
    ],
)
def test_comments_and_formatting_do_not_count(edited, change):
    text = (ROOT / "moviegen" / "sample.py").read_text()
    assert change(text) != text
    assert edited("sample.py", change) == set()


def test_changed_number_counts(edited):
    assert edited("flow.py", lambda text: text.replace("1e-5", "1e-6")) >= {"stage1", "stage2", "stage3"}


def test_locked_environment_counts(monkeypatch, tmp_path):
    params = config.load("smoke")
    before = {name: fingerprint(params, name) for name in PROGRAMS}
    (tmp_path / "requirements.lock").write_text("mindspore==9.9.9\n")
    monkeypatch.setattr(programs, "project_root", lambda: tmp_path)
    assert all(fingerprint(params, name) != before[name] for name in PROGRAMS)


# --- processes ---


def test_every_process_computes_the_same():
    program = (
        "import json; from moviegen import config, programs; params = config.load('smoke');"
        "print(json.dumps({name: programs.fingerprint(params, name) for name in programs.PROGRAMS}))"
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
    assert programs.digest({"a": 1, "b": [2, 3]}) == programs.digest({"b": [2, 3], "a": 1})
    assert programs.digest({"a": 1, "b": [2, 3]}) != programs.digest({"a": 1, "b": [3, 2]})
