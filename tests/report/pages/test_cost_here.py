"""This machine's steps on the cost page: foretold from a calibration, beside those of runs."""

from moviegen import config, runs
from moviegen.config import Bucket
from moviegen.plan.host import CALIBRATION_FILE, KINDS, STEPS_FILE, Calibration, Point
from moviegen.plan.traffic import by_collective, on_cpu, stage_traffic
from moviegen.report.pages import cost_here
from moviegen.runs import files
from tests.report.making import cells, finished

MACHINE = {"cpu": "a processor", "cores": 2, "memory_bytes": 1, "system": "Linux"}
FAR = {kind: (Point(1.0, 1e30),) for kind in KINDS}  # nothing takes time ...
ONE_SECOND_A_CALL = FAR | {"call": (Point(1.0, 1.0),)}  # ... but calling a graph
TAE = dict.fromkeys(("tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit"))
STAGES = dict.fromkeys((1, 2, 3))


def calibrated(params, rates, operators="compiled (x86-64-v4, 2 threads)"):
    run = finished(params, "calibration")
    files.write_json(run.folder / CALIBRATION_FILE, Calibration(MACHINE, operators, rates).content())
    return run


def trained(params, name, machine=MACHINE, **seconds):
    """A finished run whose steps on each medium took so many seconds."""
    run = finished(params, name, machine=machine)
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 51):
        media = list(seconds)[step % len(seconds)]
        writer.write(kind="train", step=step, steps=50, loss=1.0, seconds=seconds[media], media=media)
    return run


def test_without_calibration_and_runs_it_says_who_runs_them(params):
    rows = cells(cost_here.this_machine(params, None, STAGES, TAE))
    assert list(rows["run"]) == ["stage 1", "stage 2", "stage 2", "stage 3", "stage 3", *("tae-opl-off",) * 2,
                                 *("tae-opl-on",) * 2, *("tae-mixkit",) * 2]  # fmt: skip
    assert set(rows["foretold"]) == {"not run yet: open 05_transformer.ipynb"}
    assert rows["measured"][0] == "not run yet: open 06_training.ipynb, stage 1"
    assert set(rows["measured"][5:]) == {"not run yet: open 03_tae_training.ipynb"}
    assert set(rows["error"]) == {"-"}


def test_foretold_and_measured_seconds_and_how_far_they_are_apart(params):
    calibration = calibrated(params, {1: ONE_SECOND_A_CALL, 2: ONE_SECOND_A_CALL})
    stages = STAGES | {2: trained(params, "stage2", image=0.8, video=1.25)}
    tae = TAE | {"tae-mixkit": trained(params, "tae-mixkit", image=2.0, video=1.0)}
    rows = cells(cost_here.this_machine(params, calibration, stages, tae))
    assert set(rows["foretold"]) == {"1.00"}
    of_stage = rows[rows["run"] == "stage 2"]
    assert list(of_stage["frames and pixels"]) == ["1x48x80", "16x48x80"]
    assert list(of_stage["measured"]) == ["0.800", "1.25"]
    assert list(of_stage["nine steps in ten"]) == ["0.800 to 0.800", "1.25 to 1.25"]
    assert list(of_stage["error"]) == ["+25 %", "-20 %"]
    of_tae = rows[rows["run"] == "tae-mixkit"]
    assert list(of_tae["frames and pixels"]) == ["1x64x64", "16x64x64"]
    assert list(of_tae["error"]) == ["-50 %", "+0 %, not told apart (n = 23)"]
    assert set(rows[rows["run"] == "stage 1"]["measured"]) == {"not run yet: open 06_training.ipynb, stage 1"}


def test_an_error_is_stated_as_such_where_the_steps_can_tell_it(params):
    """Of five steps nobody knows the median to 95 %: all lie on one side of it once in sixteen times."""
    calibration = calibrated(params, {1: ONE_SECOND_A_CALL, 2: ONE_SECOND_A_CALL})
    run = finished(params, "stage1", machine=MACHINE)
    writer = runs.MetricsWriter(run.metrics_path)
    said = []
    for step in range(1, 9):
        writer.write(kind="train", step=step, steps=8, loss=1.0, seconds=2.0 + step / 100, media="image")
        said.append(cells(cost_here.this_machine(params, calibration, STAGES | {1: run}, TAE))["error"][0])
    assert said[:2] == ["-", "-"]
    assert [error.partition("n = ")[2] for error in said[2:]] == ["1)", "2)", "3)", "4)", "5)", ""]
    assert said[-1] == "-51 %"


def test_a_stage_is_foretold_from_the_rates_of_as_many_workers_as_it_has(params):
    twice = FAR | {"call": (Point(1.0, 0.5),)}
    rows = cells(cost_here.this_machine(params, calibrated(params, {1: ONE_SECOND_A_CALL, 2: twice}), STAGES, TAE))
    foretold = dict(zip(rows["run"], rows["foretold"], strict=True))
    assert foretold["stage 1"] == "2.00"  # tiny's only stage of two workers
    assert foretold["stage 2"] == foretold["tae-opl-on"] == "1.00"


def test_runs_of_another_machine_are_no_error_of_the_plan(params):
    calibration = calibrated(params, {1: ONE_SECOND_A_CALL, 2: ONE_SECOND_A_CALL})
    run = trained(params, "stage2", machine=MACHINE | {"cpu": "another"}, image=0.8, video=1.25)
    rows = cells(cost_here.this_machine(params, calibration, STAGES | {2: run}, TAE))
    assert set(rows[rows["run"] == "stage 2"]["error"]) == {"measured on another machine"}


def test_what_was_not_measured_is_not_counted(params):
    rows = cells(cost_here.this_machine(params, calibrated(params, {1: ONE_SECOND_A_CALL}), STAGES, TAE))
    foretold = dict(zip(rows["run"], rows["foretold"], strict=True))
    assert foretold["stage 1"] == "not counted"
    assert foretold["stage 3"] == "1.00"


def test_the_form_of_the_operators_is_that_of_the_calibration(params):
    """On the host, MindSpore's form passes over the weights four times for their average."""
    passes = FAR | {"average": (Point(1.0, 1e-3),), "pass": (Point(1.0, 1e9),)}
    run = calibrated(params, {1: passes, 2: passes}, operators="MindSpore's own")
    rows = cells(cost_here.this_machine(params, run, STAGES, TAE))
    assert float(dict(zip(rows["run"], rows["foretold"], strict=True))["stage 3"]) < 1
    run = calibrated(params, {1: passes, 2: passes})
    rows = cells(cost_here.this_machine(params, run, STAGES, TAE))
    assert float(dict(zip(rows["run"], rows["foretold"], strict=True))["stage 3"]) > 1e6


def test_weights_that_are_given_leave_no_row(params):
    given = config.load("tiny", {"tae.tae_checkpoint": "tae.safetensors"})
    rows = cells(cost_here.this_machine(given, None, STAGES, TAE))
    assert {name for name in rows["run"] if name.startswith("tae")} == set()
    own = config.load("tiny", {"tae.vae_checkpoint": ""})
    rows = cells(cost_here.this_machine(own, None, STAGES, TAE))
    assert list(rows["frames and pixels"][rows["run"] == "tae-image"]) == ["1x32x32"]


# ---- single steps


def stepped(params, *steps):
    run = calibrated(params, {1: FAR, 2: FAR})
    files.write_json(run.folder / STEPS_FILE, {"steps": list(steps)})
    return run


def test_a_steps_memory_stands_beside_what_its_process_grew_by(params):
    step = {"name": "tae-opl-on", "clip": "2 x 16x64x64", "workers": 1}
    rows = cells(
        cost_here.steps_memory(
            params,
            stepped(
                params,
                step | {"counted_bytes": 110 * 2**20, "measured_bytes": 100 * 2**20},
                step | {"counted_bytes": 2**20, "measured_bytes": None},
            ),
        )
    )
    assert list(rows["counted"]) == ["110.0", "1.0"]
    assert list(rows["measured"]) == ["100.0", "this system does not say"]
    assert list(rows["error"]) == ["+10.0 %", "-"]


def test_what_a_stages_graph_exchanges_is_held_against_the_count(params):
    counted = by_collective(on_cpu(row, 2) for row in stage_traffic(params, 1, Bucket(1, 48, 80), True))
    exchanged = [
        {"collective": collective, "dtype": dtype, "calls": calls, "bytes": size}
        for (collective, dtype), (calls, size) in counted.items()
    ]
    step = {"name": "stage1", "clip": "16 x 1x48x80", "workers": 2, "counted_bytes": 1, "measured_bytes": 1}
    rows = cells(cost_here.steps_exchanged(params, stepped(params, step | {"exchanged": exchanged})))
    assert set(rows[""]) == {"equal"} and len(rows) == len(counted)
    exchanged[0]["bytes"] += 4
    rows = cells(cost_here.steps_exchanged(params, stepped(params, step | {"exchanged": exchanged})))
    assert sorted(rows[""]) == sorted(["not equal"] + ["equal"] * (len(counted) - 1))


def test_steps_that_were_not_measured_name_the_notebook_that_does(params):
    for shown in (cost_here.steps_memory(params, None), cost_here.steps_exchanged(params, None)):
        assert "not run yet: open 05_transformer.ipynb" in shown.data
