"""A run's folder is of one set of parameters: others go elsewhere, and a folder that claims to be theirs is refused.

That two programs never write into one folder at once is tests/runs/test_run.py,
`test_second_writer_is_refused_and_disturbs_nothing`.
"""

import json
import shutil

import pytest
import yaml

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.runs import files
from moviegen.runs.registry import PROGRAMS


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finished(params, program="stage1"):
    with runs.record(runs.find(params, program)) as run:
        files.write_text(run.folder / "dit.safetensors", "weights")
    return run


def edited(run, **values):
    """A copy of the run's params.yaml with some of stage 1's `train` changed by hand."""
    params = yaml.safe_load(run.params_path.read_text())
    params["train"] |= values
    path = run.folder.parent.parent / "edited.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 7),
        ("train.steps", 99),
        ("train.lr_scheduler.lr", 0.5),
        ("train.ema.decay", 0.5),
        ("dataloader.batch_size.image_batch_size", 3),
        ("train.settings.gradient_accumulation_steps", 3),
        ("text.ul2.width", 8),
        ("data.test_share", 0.4),
    ],
)
def test_a_changed_parameter_never_touches_the_earlier_run(name, value):
    run = finished(config.load("smoke"))
    before = content(run.folder)
    other = finished(config.load("smoke", {name: value}))
    assert other.folder != run.folder
    assert content(run.folder) == before
    assert runs.find(config.load("smoke"), "stage1").complete


def test_a_runs_own_params_file_edited_by_hand_is_another_run():
    run = finished(config.load("smoke"))
    before = content(run.folder)
    other = finished(config.load(edited(run, steps=99)))
    assert other.folder != run.folder
    assert other.manifest["parameters"]["recipe"]["train"]["steps"] == 99
    assert content(run.folder) == before


def test_a_params_file_edited_in_its_folder_is_another_run_and_is_mended_by_the_next():
    run = finished(config.load("smoke"))
    shutil.move(edited(run, steps=99), run.params_path)
    assert finished(config.load(run.params_path)).folder != run.folder
    run.write_params()
    assert config.load(run.params_path) == run.params


@pytest.fixture
def collided():
    """A finished run, and one of other parameters whose fingerprint begins alike."""
    run = finished(config.load("smoke"))
    params = config.load("smoke", {"train.steps": 99, "train.lr_scheduler.lr": 0.5})
    found = runs.find(params, "stage1")
    return run, runs.Run(found.program, params, run.fingerprint[:8] + "0" * 8, run.folder)


def test_a_folder_of_other_parameters_is_refused_with_those_that_differ(collided):
    run, other = collided
    before = content(run.folder)
    with pytest.raises(ConfigError) as caught, runs.record(other):
        pytest.fail("it was begun")
    told, differing = str(caught.value).split("\n", 1)
    train = run.params.recipes[1].train
    assert str(run.folder) in told
    assert differing.splitlines() == [
        f"  recipe.train.steps: {train.steps} there, 99 now",
        f"  recipe.train.lr_scheduler.lr: {train.lr_scheduler.lr} there, 0.5 now",
    ]
    assert content(run.folder) == before


def test_the_launcher_is_refused_before_it_writes_parameters(collided):
    run, other = collided
    before = content(run.folder)
    with pytest.raises(ConfigError, match=r"recipe\.train\.steps"):
        other.write_params()
    assert content(run.folder) == before


def test_a_manifest_edited_by_hand_is_refused():
    run = finished(config.load("smoke", {"train.ema.decay": 0.9}))
    manifest = run.manifest
    del manifest["parameters"]["launch.device"]
    manifest["parameters"]["recipe"]["train"]["ema"] = None
    manifest["parameters"]["recipe"]["optimiser"] = "Adam"
    files.write_json(run.folder / "manifest.json", manifest)
    with pytest.raises(ConfigError) as caught:
        runs.check_same(run)
    differing = str(caught.value).split("\n", 1)[1].splitlines()
    assert "  recipe.optimiser: Adam there, absent now" in differing
    assert "  launch.device: absent there, CPU now" in differing
    assert "  recipe.train.ema: None there, absent now" in differing
    assert "  recipe.train.ema.decay: absent there, 0.9 now" in differing
    assert len(differing) == 4


@pytest.mark.parametrize("scale", ["smoke", "5B"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_programs_own_folder_is_taken_again(scale, program):
    run = runs.find(config.load(scale), program)
    runs.check_same(run)  # not begun
    with runs.record(run):
        assert json.loads((run.folder / "manifest.json").read_text())["status"] == "running"
    with runs.record(run):
        pass
    assert run.complete
