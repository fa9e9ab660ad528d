"""`python -m moviegen train`, all of it, as jobs of several workers at a scale of seconds."""

import csv
import shutil
import time
from functools import partial

import numpy as np
import psutil
import pytest

from moviegen import config, plan, runs
from moviegen.config import Save
from moviegen.data.embeddings import read_embeddings
from moviegen.data.splits import load_split
from moviegen.data.videos import probe
from moviegen.dit.inference import load_stage
from moviegen.flow.sampler import Prompt, Sampler
from moviegen.flow.schedule import linear_quadratic
from moviegen.launch.run import run_job
from moviegen.launch.watch import WorkerError
from moviegen.parallel.mesh import Mesh
from moviegen.plan.details import training_graphs
from moviegen.programs import train_dit as dit
from moviegen.report.notebook import job
from moviegen.runs.weights import load_arrays
from moviegen.train.checkpoint import Checkpoints
from tests import small_runs

CAPTIONS = [f"caption {index}" for index in range(12)]
STEPS, KILLED_AT = 6, 3
SMALL = {
    "seed": 10,  # stages 2 and 3 see videos, but for step 4: that one compiles, so a kill comes in time
    "stages.1.dataset.size": [32, 48],
    "stages.2.dataset.size": [32, 48],
    "stages.3.dataset.size": [48, 80],  # 15 tokens of an image do not divide by two shards
    "dataloader.batch_size.image_batch_size": 2,
    "dataloader.batch_size.video_batch_size": 2,
    "train.steps": STEPS,
    "train.lr_scheduler.warmup_steps": 0,
    "train.save.interval": 2,
    "train.ema.decay": 0.5,
    "valid.frequency": 3,
    "valid.sampling_steps": 2,
    "stages.1.valid.samples": None,
    "stages.2.valid.samples": None,
} | {
    f"stages.{stage}.dataloader.batch_size.{medium}_batch_size": 2
    for stage in (1, 2, 3)
    for medium in ("image", "video")
}
TIMES = {"seconds", "data_wait", "tokens_per_second", "memory_bytes"}


def train(params, stage, on_progress=None):
    run = runs.find(params, f"stage{stage}")
    run.write_params()
    run_job(job(run), on_progress)
    return run


def divided(workers, **others):
    """The recipe for another number of workers, none of which share tokens."""
    alike = {"launch.worker_num": workers, "launch.local_worker_num": workers, "valid.samples": None}
    return config.load("smoke", SMALL | alike | {"stages.3.train.sequence_parallel.shards": 1} | others)


def adopt_stage2(params, trained):
    """Another recipe's stage 2 in the place of its own."""
    with runs.record(runs.find(params, "stage2")) as run:
        shutil.copy(trained.upstream("stage2").folder / dit.WEIGHTS, run.folder)


def lines(run, *kinds):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in run.metrics() if line["kind"] in kinds]


def weights(run, name=dit.WEIGHTS):
    return load_arrays(run.folder / name)[0]


def assert_same_bits(run, other):
    for name in (dit.WEIGHTS, dit.EMA_WEIGHTS):
        found, wanted = weights(run, name), weights(other, name)
        assert found.keys() == wanted.keys()
        for key, array in wanted.items():
            assert found[key].tobytes() == array.tobytes(), key


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOVIEGEN_OUTPUTS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def params(outputs):
    """Of two workers: ZeRO 1, then 2, then 3 with two sequence shards. All that stage 1 needs is there."""
    params = config.load("smoke", SMALL)
    small_runs.write_data(params, CAPTIONS)
    small_runs.write_text(params, CAPTIONS)
    small_runs.write_tae(params)
    small_runs.write_latents(params)
    return params


@pytest.fixture(scope="module")
def stages(params):
    """The three stages, one from the other."""
    return {stage: train(params, stage) for stage in (1, 2, 3)}


@pytest.mark.whole_job
def test_each_stage_starts_from_the_one_before_and_moves(stages):
    for stage, run in stages.items():
        assert run.complete
        assert [line["step"] for line in lines(run, "train")] == list(range(1, STEPS + 1))
        assert [line["step"] for line in lines(run, "validation")] == [0, 3, 6]
        assert {line["media"] for line in lines(run, "train")} == ({"image"} if stage == 1 else {"image", "video"})
        assert any((weights(run)[name] != average).any() for name, average in weights(run, dit.EMA_WEIGHTS).items())
    for before, after in ((1, 2), (2, 3)):
        moved = {
            name: np.abs(weights(stages[after])[name] - array).max()
            for name, array in weights(stages[before]).items()
            if "pos_embedding_table" not in name
        }
        assert min(moved.values()) > 0
        assert max(moved.values()) < 2 * STEPS * 1e-3  # of the learning rate: the one did begin where the other ended


@pytest.mark.whole_job
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_shapes_are_compiled_that_were_told_before_and_no_more_than_planned(stages, params, stage):
    with (stages[stage].folder / "graphs.csv").open() as file:
        told = [row for row in csv.DictReader(file) if row["use"] == "training"]
    compiled = [line["shape"][:2] for line in lines(stages[stage], "compile")]
    assert sorted(compiled) == sorted([int(row["samples"]), int(row["tokens"])] for row in told)
    assert {tuple(shape) for shape in compiled} <= training_graphs(params, stage).keys()


@pytest.mark.whole_job
def test_what_rank_0_holds_is_what_the_plan_computes(stages, params):
    for stage, run in stages.items():
        computed = vars(plan.stage_cost(params, stage).state)
        assert lines(run, "state") == [{"kind": "state", "step": 0, **computed}]


@pytest.mark.whole_job
def test_a_stage_divided_over_two_workers_ends_as_on_one(stages):
    alone = divided(1)
    adopt_stage2(alone, stages[3])
    run = train(alone, 3)
    for kind in ("train", "validation"):
        losses, wanted = ([line["loss"] for line in lines(one, kind)] for one in (stages[3], run))
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    for name, array in weights(run).items():
        np.testing.assert_allclose(weights(stages[3])[name], array, atol=1e-5, err_msg=name)  # an update is 5e-4


@pytest.mark.whole_job
def test_a_stage_killed_after_a_checkpoint_goes_on_to_the_same_bits(stages, outputs, params, tmp_path, monkeypatch):
    shutil.copytree(outputs, tmp_path / "outputs")
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    run = runs.find(params, "stage3")
    shutil.rmtree(run.folder)

    checkpoints = Checkpoints(run.folder / "checkpoints", Save())

    def kill(line):
        if line["kind"] == "train" and line["step"] == KILLED_AT:
            deadline = time.monotonic() + 60
            while not checkpoints.is_committed(2) and time.monotonic() < deadline:
                time.sleep(0.01)  # it is written beside the steps, and may take longer than they
            kill_everything()

    with pytest.raises(WorkerError):
        train(params, 3, kill)
    assert lines(run, "train")[-1]["step"] == KILLED_AT
    assert not run.complete
    train(params, 3)
    assert len(lines(run, "state")) == 2  # it was resumed; starting over would drop the line
    assert_same_bits(run, stages[3])
    assert lines(run, "train", "validation") == lines(stages[3], "train", "validation")
    assert [line["step"] for line in lines(run, "resumed")] == [2] and not lines(stages[3], "resumed")
    for path in (stages[3].folder / "samples").glob("*.npz"):
        assert (run.folder / "samples" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.whole_job
def test_a_stage_whose_weights_and_tokens_are_divided_keeps_what_its_whole_weights_sample(stages, params):
    """Two ranks sampled with the averages in the last validation: the file of averages, asked by one, agrees."""
    run, settings = stages[3], params.recipes[3].valid.samples
    with (run.folder / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [(int(row["step"]), row["kind"]) for row in rows]
    assert found == [(step, kind) for step in (0, 3, 6) for kind in ("trained", "unseen")]
    assert [row["prompt"] for row in rows[:2]] == [
        load_split(run.upstream("data"), split)[0].caption for split in ("mixkit_train", "mixkit_val")
    ]
    whole = load_stage(run.folder / dit.EMA_WEIGHTS, params, 3)
    embed = partial(read_embeddings, run.upstream("text").folder, settings=params.text)
    sampler = Sampler(whole, embed, settings.guidance, (16, 48, 80))
    for row in rows[-2:]:
        wanted = sampler([Prompt(0, row["prompt"], int(row["seed"]))], linear_quadratic(settings.steps))[0]
        clip = run.folder / row["generated"]
        kept = np.load(clip.with_suffix(".npz"))["latent_mean"]
        np.testing.assert_allclose(kept, wanted, atol=1e-4)
        assert probe(clip).frames == 16


def kill_everything():
    """SIGKILL for guard, msrun, scheduler and workers at once."""
    guards = [child for child in psutil.Process().children() if "moviegen.launch.guard" in child.cmdline()]
    for process in [*guards, *(below for guard in guards for below in guard.children(recursive=True))]:
        process.kill()


@pytest.mark.whole_job
def test_what_two_ranks_saved_divided_three_load(stages):
    """One loads it in test_killed.py."""
    others = divided(3, **{"stages.1.train.clip_norm": 0.9})  # another run: its stage 2 is adopted
    adopt_stage2(others, stages[3])
    run = runs.find(others, "stage3")
    run.write_params()
    shutil.copytree(stages[3].folder / "checkpoints", run.folder / "checkpoints")
    train(others, 3)  # all steps are done: it loads, and leaves what it holds
    assert lines(run, "train", "validation") == []
    assert_same_bits(run, stages[3])
    newest = Checkpoints(run.folder / "checkpoints", Save()).at(STEPS).files["weights"]
    assert all((np.asarray(newest[name]) == array).all() for name, array in weights(run).items())


def test_ranks_that_share_tokens_share_samples_and_others_do_not(params):
    run = runs.find(params, "stage3")
    caches = dit.Caches.of(run, 3)
    ranks = [dit.batches(run, 3, caches, Mesh(rank, size=4, shards=2)) for rank in range(4)]
    for step in range(1, STEPS + 1):
        first, again, second, once_more = [training(step, 0) for training, _ in ranks]
        for one, other in ((first, again), (second, once_more)):
            assert one.names == other.names
            assert all((a == b).all() for a, b in zip(one.inputs, other.inputs, strict=True))
        assert not set(first.names) & set(second.names)
    first, again, second, once_more = [list(held_out) for _, held_out in ranks]
    for one, other in ((first, again), (second, once_more)):
        assert all((a == b).all() for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
    assert any((a != b).any() for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
