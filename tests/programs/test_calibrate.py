"""The calibration: rates of probes at small sizes, and the program with the file it leaves."""

import json
import math

import pytest

from moviegen import __main__, config, device, runs
from moviegen.device import probes
from moviegen.device.world import World
from moviegen.plan.dit_memory import fullest
from moviegen.plan.host import CALIBRATION_FILE, KINDS, STEPS_FILE, parse_calibration
from moviegen.plan.traffic import by_collective, on_cpu, stage_traffic
from moviegen.programs import calibrate


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))


def test_every_kind_s_rate_is_a_finite_number_above_0_and_more_work_takes_longer():
    device.start(0)
    small_and_large = [
        (probes.product(32, 64), probes.product(1024, 256)),
        (probes.attention(2, 8), probes.attention(8, 128)),
        (probes.convolution(4, 16), probes.convolution(32, 64)),
        (probes.convolution(4, 16, is_frozen=True), probes.convolution(32, 64, is_frozen=True)),
        (probes.over_time(4, 16), probes.over_time(32, 64)),
        (probes.normed(8, 8), probes.normed(32, 64)),
    ]
    others = [probes.pooled(16), *probes.calling()[1:]]
    done = []
    wanted = [*probes.calling()[:1], *(probe for pair in small_and_large for probe in pair), *others]
    rates = calibrate.measure(World(), wanted, seconds=0.02, on_progress=done.append)
    assert done == list(range(1, len(wanted) + 1))
    assert all(math.isfinite(point.rate) and point.rate > 0 for points in rates.values() for point in points)
    for pair in small_and_large:
        seconds = [probe.work / point.rate for probe, point in zip(pair, rates[pair[0].kind], strict=True)]
        assert pair[1].work > 50 * pair[0].work and seconds[1] > seconds[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_probes_are_of_known_kinds_at_rising_sizes(workers):
    found = probes.probes(World(0, workers)) if workers == 1 else [*probes.calling(), *probes.transformer()]
    assert found[0].kind == "call"  # which the others are free of
    assert {probe.kind for probe in found} <= set(KINDS)
    for kind in KINDS:
        sizes = [probe.size for probe in found if probe.kind == kind]
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ({}, [2]),
        ({"launch.worker_num": 1, "launch.local_worker_num": 1}, []),
        ({"launch.worker_num": 4, "launch.local_worker_num": 4, "stages.2.train.worker_num": 2}, [2, 4]),
        (
            {
                "launch.worker_num": 4,
                "launch.local_worker_num": 2,
                "launch.master_port": 8118,
                "train.worker_num": None,
            },
            [],
        ),  # on two hosts: it is not this one's to start
    ],
)
def test_jobs_are_as_large_as_those_of_the_stages(overrides, sizes):
    assert calibrate.job_sizes(config.load("tiny", overrides)) == sizes


def calibrated(scale, **overrides):
    """What the program left: its file, and its run."""
    named = {f"launch.{name}": value for name, value in overrides.items()}
    words = [word for name, value in named.items() for word in (f"--{name}", str(value))]
    assert __main__.main(["plan", "--calibrate", "--config", scale, *words]) == 0
    run = runs.find(config.load(scale, named), "calibration")
    assert run.complete
    return parse_calibration(json.loads((run.folder / CALIBRATION_FILE).read_text()), "file"), run


def test_the_program_leaves_a_run_with_the_machine_and_its_rates(monkeypatch):
    monkeypatch.setattr(calibrate, "measure_steps", lambda run: [])  # half a minute
    found, run = calibrated("tiny", worker_num=1, local_worker_num=1)
    assert found.machine == run.manifest["machine"]
    assert found.operators == str(run.operators)
    assert set(found.rates) == {1}
    kinds = set(KINDS) - {"all_reduce", "all_gather"}
    assert set(found.rates[1]) == (kinds if "compiled" in found.operators else kinds - {"average"})
    assert [line["step"] for line in run.metrics()][-1] == run.metrics()[-1]["steps"]


@pytest.mark.whole_job
def test_a_job_of_the_stages_workers_is_measured_beside_and_single_steps():
    found, run = calibrated("smoke")
    assert set(found.rates) == {1, 2}
    assert {"product", "attention", "update", "all_reduce", "all_gather"} <= set(found.rates[2])
    steps = json.loads((run.folder / STEPS_FILE).read_text())["steps"]
    params = config.load("smoke")
    assert [step["name"] for step in steps][:3] == ["stage1", "stage2", "stage3"]
    assert {step["name"] for step in steps[3:]} == {"tae-opl-on"}
    for stage, step in enumerate(steps[:3], 1):
        assert step["workers"] == params.launch_of(stage).worker_num
        if step["workers"] == 1 or step["exchanged"] is None:
            continue
        clip = fullest(params, stage)[0]
        rows = stage_traffic(params, stage, clip, is_compiled="compiled" in found.operators)
        counted = by_collective(on_cpu(row, step["workers"]) for row in rows)
        assert counted == {(one["collective"], one["dtype"]): (one["calls"], one["bytes"]) for one in step["exchanged"]}
    assert any(step.get("exchanged") for step in steps)
    assert not list(run.folder.glob("step-*"))  # graphs' text is large


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({}, ["stage1", "stage2", "stage3", *("tae-opl-on",) * 3]),
        ({"tae.video.frames": 8}, ["stage1", "stage2", "stage3", *("tae-opl-on",) * 2]),
        ({"tae.tae_checkpoint": "tae.safetensors"}, ["stage1", "stage2", "stage3"]),
        (
            {
                "launch.worker_num": 4,
                "launch.local_worker_num": 2,
                "launch.master_port": 8118,
                "train.worker_num": None,
            },
            ["tae-opl-on"],
        ),  # stages on two hosts
    ],
)
def test_steps_are_of_what_is_trained_here(overrides, names):
    assert [case.name for case in calibrate.step_cases(config.load("tiny", overrides))][: len(names)] == names
