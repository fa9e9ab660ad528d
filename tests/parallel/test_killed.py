"""A job that is killed, once or again and again, ends where one that was never disturbed ends, bit for bit."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest

from moviegen.config import Save
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.launch.watch import WorkerError
from moviegen.runs.weights import load_arrays
from moviegen.train.checkpoint import Checkpoints

pytestmark = pytest.mark.whole_job
ROOT = Path(__file__).parents[2]
STEPS = 16
# step -> rank that kills itself as it is asked for that step's batch: three jobs, then one that ends
KILLS = {
    str(step): rank for step, rank in zip(sorted(random.Random(20).sample(range(4, STEPS), 3)), (1, 0, 1), strict=True)
}
KILLED_FROM_OUTSIDE_AT = random.Random(21).randrange(7, 13)
TIMES = {"seconds", "data_wait", "tokens_per_second", "memory_bytes"}


def job(folder, workers=2, kills=None, pause=0.0):
    described = json.dumps({"kills": kills or {}, "pause": pause, "steps": STEPS})
    return Job(
        command=("python", "-m", "tests.parallel.killed_worker", str(folder), described),
        log_dir=folder / "logs",
        worker_num=workers,
        local_worker_num=workers,
        environment={"PYTHONPATH": str(ROOT)},
        metrics=(folder / "metrics.jsonl",),
    )


def kill_everything():
    """SIGKILL for guard, msrun, scheduler and workers at once."""
    guards = [child for child in psutil.Process().children() if "moviegen.launch.guard" in child.cmdline()]
    for process in [*guards, *(below for guard in guards for below in guard.children(recursive=True))]:
        process.kill()


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def lines(folder, *kinds):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in found if line["kind"] in kinds]


def end(folder):
    return load_arrays(folder / "end.safetensors")[0]


def state(folder, rank=0):
    return json.loads((folder / f"state-{rank}.json").read_text())


def assert_same_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name


def assert_equal(folder, wanted):
    """All that a run leaves, but for times."""
    assert lines(folder, "train", "validation") == lines(wanted, "train", "validation")
    assert_same_bits(end(folder), end(wanted))
    for rank in (0, 1):
        assert state(folder, rank) == state(wanted, rank)
    assert checkpoints(folder) == checkpoints(wanted)
    for name in checkpoints(wanted):
        ours, theirs = ((one / "checkpoints" / name) for one in (folder, wanted))
        assert sorted(path.name for path in ours.iterdir()) == sorted(path.name for path in theirs.iterdir())
        for path in theirs.iterdir():
            assert (ours / path.name).read_bytes() == path.read_bytes(), path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run_job(job(folder))
    return folder


def test_the_undisturbed_run_puts_everything_to_the_test(undisturbed):
    train, validation = lines(undisturbed, "train"), lines(undisturbed, "validation")
    assert [line["step"] for line in train] == list(range(1, STEPS + 1))
    assert [line["step"] for line in validation] == list(range(STEPS + 1))
    assert train[-1]["loss"] < train[0]["loss"]
    assert train[-1]["lr"] < max(line["lr"] for line in train)  # the rate was cut on the way
    numbers = [int(name.removeprefix("step-")) for name in checkpoints(undisturbed)]
    assert STEPS in numbers
    assert numbers != list(range(STEPS - 2 * len(numbers) + 2, STEPS + 1, 2))  # top_k kept others than the latest
    arrays = end(undisturbed)
    assert any((arrays[f"ema.{name}"] != arrays[f"weights.{name}"]).all() for name in ("first", "second"))
    assert state(undisturbed, 0)["digest"] == state(undisturbed, 1)["digest"]


def test_a_worker_killed_at_three_steps_leaves_no_trace(undisturbed, tmp_path):
    for step in KILLS:
        with pytest.raises(WorkerError):
            run_job(job(tmp_path, kills=KILLS))
        assert (tmp_path / f"killed-at-{step}").exists()
        assert not (tmp_path / "end.safetensors").exists()
    run_job(job(tmp_path, kills=KILLS))
    assert_equal(tmp_path, undisturbed)
    assert len(lines(tmp_path, "state")) > 1  # it was resumed; starting over would drop the line


def test_a_job_killed_as_a_whole_goes_back_past_a_damaged_checkpoint(undisturbed, tmp_path):
    def at_that_step(line):
        if line["kind"] == "train" and line["step"] == KILLED_FROM_OUTSIDE_AT:
            kill_everything()

    with pytest.raises(WorkerError):
        run_job(job(tmp_path, pause=0.05), at_that_step)
    assert KILLED_FROM_OUTSIDE_AT <= lines(tmp_path, "train")[-1]["step"] < STEPS
    whole = [name for name in checkpoints(tmp_path) if (tmp_path / "checkpoints" / name / "state.json").exists()]
    assert len(whole) >= 2
    newest = tmp_path / "checkpoints" / whole[-1] / "rank-0001.safetensors"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    run_job(job(tmp_path))
    assert_equal(tmp_path, undisturbed)
    log = (tmp_path / "logs" / "worker_0.log").read_text()  # of each rank
    assert re.search(rf"{whole[-1]} is damaged \(rank 1 says which file\): going back to the checkpoint before", log)
    log = (tmp_path / "logs" / "worker_1.log").read_text()
    assert re.search(rf"{whole[-1]} is damaged \(rank-0001.safetensors does not match", log)


@pytest.mark.parametrize("workers", [1, 3])
def test_what_two_ranks_saved_others_load(undisturbed, tmp_path, workers):
    folder = tmp_path / "resumed"
    shutil.copytree(undisturbed, folder)
    for file in [folder / "end.safetensors", *folder.glob("state-*.json")]:
        file.unlink()
    run_job(job(folder, workers))  # all steps are done: it resumes, and says what it holds
    assert_same_bits(end(folder), end(undisturbed))
    assert_same_bits(
        {name.removeprefix("weights."): array for name, array in end(folder).items() if name.startswith("weights.")},
        {
            name: np.asarray(array)
            for name, array in Checkpoints(folder / "checkpoints", Save()).at(STEPS).files["weights"].items()
        },
    )
    for rank in range(workers):
        assert state(folder, rank) == state(undisturbed)
    assert lines(folder, "train", "validation") == lines(undisturbed, "train", "validation")
