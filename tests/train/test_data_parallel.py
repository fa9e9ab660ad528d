import json
from pathlib import Path

import numpy as np
import pytest

from moviegen.config import Save
from moviegen.device.world import World
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.runs.weights import load_arrays
from moviegen.train.checkpoint import Checkpoints
from tests.train.data_parallel_worker import trained

ROOT = Path(__file__).parents[2]


def job(folder, workers):
    folder.mkdir()
    return Job(
        command=("python", "-m", "tests.train.data_parallel_worker", str(folder)), log_dir=folder / "logs",
        worker_num=workers, local_worker_num=workers, environment={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folders of one worker and of two."""
    folder = tmp_path_factory.mktemp("jobs")
    for workers in (1, 2):
        run_job(job(folder / str(workers), workers))
    return folder


def test_two_workers_with_half_batches_equal_one_with_whole_batches(finished):
    alone, _ = load_arrays(finished / "1" / "1-0.safetensors")
    first, second = (load_arrays(finished / "2" / f"2-{rank}.safetensors")[0] for rank in (0, 1))
    for name, array in alone.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], array, atol=1e-6)
    lines = [json.loads(line) for line in (finished / "2" / "metrics.jsonl").read_text().splitlines()]
    assert {line["loss"] for line in lines if line["kind"] == "validation"} == {0.5}  # the mean of ranks 0 and 1


def test_one_worker_goes_on_from_what_two_saved(finished, tmp_path):
    def from_(workers):
        checkpoints = Checkpoints(finished / str(workers) / "checkpoints", Save())
        return trained(tmp_path / str(workers), World(), 5, checkpoints.latest)

    alone, first = from_(1), from_(2)
    before, _ = load_arrays(finished / "1" / "1-0.safetensors")
    for name, array in alone.items():
        np.testing.assert_allclose(first[name], array, atol=1e-6)
        assert np.abs(array - before[name]).max() > 0.01


def test_all_ranks_go_on_from_what_rank_0_found(finished):
    def told(case):
        return [(finished / "2" / f"{case}-{rank}.txt").read_text() for rank in (0, 1)]

    assert told("shared") == ["step 3"] * 2
    assert told("none") == ["nothing"] * 2
    for rank, said in enumerate(told("apart")):
        folder = finished / "2" / str(rank) / "checkpoints" / "step-000003"
        assert said.startswith(f"rank 0 goes on from {folder}, and rank 1 cannot read it")
