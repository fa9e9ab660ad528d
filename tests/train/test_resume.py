"""A run that goes on from another one: with more steps, other parameters where that is asked for, other workers."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from moviegen import config, runs
from moviegen.config import ConfigError, LRScheduler, Optimizer, Save
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.programs import train_dit as dit
from moviegen.train.checkpoint import Checkpoints
from moviegen.train.ema import EMA
from moviegen.train.loop import Schedule, Trainer
from moviegen.train.resume import start
from tests.train.conftest import Regression, parts_of
from tests.train.test_loop import FakeRun, all_metrics, batch_at, metrics, state_of

STEPS = {"train.steps": 4, "train.save.interval": 2}


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def short(outputs):
    """A finished run of four steps, with the checkpoints of steps 2 and 4."""
    with runs.record(runs.find(config.load("smoke", STEPS), "stage1")) as run:
        for step in (2, 4):
            files = {"weights": {"weight": np.full(3, step, np.float32)}}
            Checkpoints(run.folder / "checkpoints", Save()).save(step, parts_of(files), {})
    return run


def going_on(run, stage=1, **changes):
    """What a run with `changes` starts from."""
    params = config.load("smoke", STEPS | {"train.resume.run": str(run.folder)} | changes)
    return start(runs.find(params, f"stage{stage}"), stage, World())


def test_other_parameters_are_listed_and_refused_unless_forced(short):
    changes = {"train.steps": 8, "train.lr_scheduler.lr": 0.5, "launch.worker_num": 4, "launch.local_worker_num": 4}
    with pytest.raises(ConfigError) as caught:
        going_on(short, **changes)
    told, *differing = str(caught.value).splitlines()
    assert f"stages.1.train.resume.run: {short.folder} was run with other parameters" in told
    assert "stages.1.train.resume.force" in told
    assert differing == [
        "  launch.worker_num: 2 there, 4 now",
        "  recipe.train.steps: 4 there, 8 now",
        "  recipe.train.lr_scheduler.lr: 0.001 there, 0.5 now",
    ]
    assert going_on(short, **changes, **{"train.resume.force": True}).step == 4


def test_a_damaged_checkpoint_is_passed_over(short):
    (short.folder / "checkpoints" / "step-000004" / "state.json").write_text("{")
    with pytest.warns(UserWarning, match="step-000004 is damaged"):
        assert going_on(short).step == 2  # of the same parameters: nothing to force


def test_what_cannot_be_gone_on_from_is_named(short, tmp_path):
    forced = {"train.resume.force": True}
    with pytest.raises(ConfigError, match=r"nowhere is not the folder of a run"):
        going_on(short, **{"train.resume.run": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match=rf"stages.2.train.resume.run: .*{short.name} is a run of stage1, not of"):
        going_on(short, stage=2, **forced)
    with pytest.raises(ConfigError, match=r"has done 4 steps, and train.steps is 4: raise it"):
        going_on(short)
    for state in short.folder.glob("checkpoints/*/state.json"):
        state.write_text("{}")
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match=r"has no whole checkpoint"):
        going_on(short, **forced)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", r"manifest\.json is damaged \(.*\): stages\.1\.train\.resume\.run must name another run"),
        ("[]", r"manifest\.json is damaged"),
        ("{}", r"is a run of None, not of stage1"),
        ('{"program": "stage1"}', r"was run with other parameters"),
        ('{"program": "stage1", "parameters": {"recipe": {}}}', r"was run with other parameters"),
    ],
)
def test_a_manifest_that_is_none_is_named(short, content, told):
    (short.folder / "manifest.json").write_text(content)
    with pytest.raises(ConfigError, match=told):
        going_on(short, **{"train.steps": 8})


def test_the_command_line_sets_it_key_by_key(outputs):
    words = "--stages.2.train.resume.run outputs/x --stages.2.train.resume.force true"
    recipes = config.load("smoke", config.parse_overrides(words)).recipes
    assert recipes[1].train.resume is None
    assert recipes[2].train.resume == config.Resume(run="outputs/x", force=True)
    with pytest.raises(ConfigError, match=r"train.resume.run"):
        config.load("smoke", {"train.resume.force": True})


class Built(Exception):
    """The trainer is there; nothing is trained."""


@pytest.mark.parametrize("resumes", [True, False])
def test_the_program_starts_there_only_where_it_is_told_to(short, monkeypatch, resumes):
    def built(**arguments):
        assert (arguments["start"]().step if resumes else arguments["start"]) == (4 if resumes else None)
        raise Built

    network = Regression()
    network.dtype, network.recompute_blocks = ms.float32, lambda *arguments, **options: None
    network.by_tokens = lambda: network
    monkeypatch.setattr(dit, "build", lambda *arguments: (network, Zero(network, 0, World())))
    monkeypatch.setattr(dit.Caches, "of", lambda *arguments, **options: None)
    monkeypatch.setattr(dit, "batches", lambda *arguments: (None, SimpleNamespace(counts=dict)))
    monkeypatch.setattr(dit, "tell", lambda *arguments: None)
    monkeypatch.setattr(dit, "Trainer", built)
    changes = {"train.resume.run": str(short.folder), "train.resume.force": True, "train.steps": 8} if resumes else {}
    changes |= {"valid.samples": None}
    with pytest.raises(Built):
        dit.train(runs.find(config.load("smoke", STEPS | changes), "stage1"), 1, World())


def trained(folder, steps, start=None, has_average=True):
    """A linear model after so many steps of two micro-batches at a constant rate."""
    loss = Regression()
    zero = Zero(loss, 0, World())
    trainer = Trainer(
        run=FakeRun(folder),
        zero=zero,
        loss=loss,
        terms=("absolute",),
        schedule=Schedule(steps, 2, Save(interval=2), micro_batches=2),
        optimizer_config=Optimizer(weight_decay=0.1),
        rate_config=LRScheduler(lr=0.1, warmup_steps=3, patience=99),
        validate=lambda alive: {"loss": 1.0},
        ema=EMA(zero, 0.9) if has_average else None,
        start=start and start.checkpoints.latest,
    )
    trainer.fit(batch_at)
    return trainer


def steps_of(trainer):
    return [line["step"] for line in metrics(trainer, "train")]


def test_four_steps_continued_to_eight_equal_eight_to_the_last_bit(tmp_path):
    whole, short = trained(tmp_path / "whole", 8), trained(tmp_path / "short", 4)
    continued = trained(tmp_path / "continued", 8, start=short)
    assert steps_of(continued) == [5, 6, 7, 8]
    assert metrics(continued, "train") == metrics(whole, "train")[4:]
    wanted, found = state_of(whole), state_of(continued)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].tobytes() == array.tobytes(), name
    assert short.checkpoints.latest().step == 4  # as it was
    lines = all_metrics(continued, "train")
    trained(tmp_path / "continued", 8, start=short)  # it has checkpoints of its own now, and nothing left to do
    assert all_metrics(continued, "train") == lines  # their times too


def test_an_average_that_is_new_starts_at_the_weights(tmp_path):
    short = trained(tmp_path / "short", 4, has_average=False)
    continued = trained(tmp_path / "continued", 5, start=short)
    before, after = short.zero.arrays(), continued.zero.arrays()
    for name, average in continued.ema.arrays().items():
        wanted = (6 * before[name] + 9 * after[name]) / 15  # of the fifth update: (1 + 5) / (10 + 5)
        np.testing.assert_allclose(average, wanted, atol=1e-6)
