import json
from pathlib import Path

import numpy as np

from moviegen.parallel import launch
from moviegen.weights import load_arrays

ROOT = Path(__file__).parents[2]


def job(folder, workers):
    folder.mkdir()
    return launch.Job(
        command=("python", "-m", "tests.train.data_parallel_worker", str(folder)), log_dir=folder / "logs",
        worker_num=workers, local_worker_num=workers, environment={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_two_workers_with_half_batches_equal_one_with_whole_batches(tmp_path):
    for workers in (1, 2):
        launch.run(job(tmp_path / str(workers), workers))
    alone, _ = load_arrays(tmp_path / "1" / "1-0.safetensors")
    first, second = (load_arrays(tmp_path / "2" / f"2-{rank}.safetensors")[0] for rank in (0, 1))
    for name, array in alone.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], array, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "2" / "metrics.jsonl").read_text().splitlines()]
    assert {line["loss"] for line in lines if line["kind"] == "validation"} == {0.5}  # the mean of ranks 0 and 1
