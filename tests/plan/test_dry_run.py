"""MindSpore's dry run: its log as documented, what msrun makes of our command, and what is said without CANN."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moviegen import __main__, config
from moviegen.device.environment import DRY_RUN, leftovers
from moviegen.plan import dry_run
from moviegen.programs import plan as program

ROOT = Path(__file__).parents[2]
PARAMS = config.load("30B", {"launch.worker_num": 16, "launch.master_port": 1})
# As the page "DryRun" shows it (www.mindspore.cn/tutorials/en/r2.9.0/debug/dryrun.html), among lines of another kind.
LOG = """\
[INFO] RUNTIME(4711,python):2026-01-01-00:00:00.000.000 [logger.cc:1] some line of level info
Device MOC memory size: 65536M
MindSpore Used memory size: 59392M
MindSpore memory base address: 0xffffe9dc1407
Used peak memory usage (without fragments): 23716M
Actual peak memory usage (with fragments): 26244M
[INFO] DEVICE(4711,python):2026-01-01-00:00:01.000.000 [ascend.cc:1] another
"""


def test_the_peak_of_a_recorded_log():
    assert dry_run.read_peak(LOG) == dry_run.Peak(used=23716 * 2**20, reserved=26244 * 2**20)


def test_of_several_processes_the_highest_counts():
    other = LOG.replace("23716M", "99M").replace("26244M", "30000M")
    assert dry_run.read_peak(other + LOG) == dry_run.Peak(used=23716 * 2**20, reserved=30000 * 2**20)


@pytest.mark.parametrize("missing", ["Used peak", "Actual peak"])
def test_a_log_without_a_peak_is_refused_with_its_end(missing):
    log = "\n".join(line for line in LOG.splitlines() if not line.startswith(missing))
    with pytest.raises(config.ConfigError, match=r"(?s)says no peak.*GLOG_v=1.*ascend.cc:1\] another"):
        dry_run.read_peak(log)


@pytest.mark.parametrize(
    ("variables", "words"), [({}, "ASCEND_HOME_PATH is not set: install"), ({dry_run.CANN: "/nowhere"}, "/nowhere")]
)
def test_without_cann_it_says_what_is_missing(variables, words):
    with pytest.raises(config.ConfigError, match=f"needs CANN, and .*{words}"):
        dry_run.check_possible(variables)


def test_the_command_line_says_so_too_and_fails(monkeypatch, capsys):
    monkeypatch.delenv(dry_run.CANN, raising=False)
    for scale in ("30B", "tiny"):
        assert __main__.main(["plan", "--config", scale, "--dry-run"]) == 2
        done = capsys.readouterr()
        assert "error: a dry run needs CANN" in done.err
        assert not done.out


@pytest.fixture
def cann(tmp_path, monkeypatch):
    """A machine with CANN, whose `msrun` writes what it was told, and a worker's log with LOG in it."""
    code = f"""\
import json, os, pathlib, sys
logs = pathlib.Path(next(word for word in sys.argv if word.startswith("--log_dir=")).partition("=")[2])
logs.mkdir()
(logs / "worker_0.log").write_text({LOG!r})
params = pathlib.Path(sys.argv[-1]).read_text()
told = [sys.argv[1:], os.environ[{DRY_RUN!r}], os.environ["GLOG_v"], params]
pathlib.Path({str(tmp_path / "told.json")!r}).write_text(json.dumps(told))
"""
    (tmp_path / "msrun").write_text(f"#!{sys.executable}\n{code}")
    (tmp_path / "msrun").chmod(0o755)
    monkeypatch.setenv(dry_run.CANN, str(tmp_path))
    monkeypatch.setattr(dry_run.sys, "executable", str(tmp_path / "python"))
    return tmp_path


def test_the_simulation_has_the_parameters_and_the_variables_that_are_documented(cann, tmp_path):
    assert dry_run.dry_run(PARAMS, 3) == dry_run.read_peak(LOG)
    words, mark, level, params = json.loads((tmp_path / "told.json").read_text())
    assert {"--worker_num=16", "--local_worker_num=8", "--sim_level=1", "--sim_rank_id=0", "--join=True"} < set(words)
    assert words[-8:-1] == ["python", "-m", "moviegen", "step", "--stage", "3", "--config"]
    assert (mark, level) == ("1", "1")
    (tmp_path / "again.yaml").write_text(params)
    assert config.load(tmp_path / "again.yaml") == PARAMS


def test_its_peak_is_printed_beside_ours(cann, capsys):
    assert __main__.main(["plan", "--config", "30B", "--stage", "3", "--dry-run"]) == 0
    head, row, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == list(program.DRY_RUN_COLUMNS[:5])
    counted, used, reserved, off, _ = row.split()[3:]
    assert (used, reserved) == (f"{23716 / 1024:.2f}", f"{26244 / 1024:.2f}")
    assert float(off) == pytest.approx(100 * (float(counted) / (23716 / 1024) - 1), abs=0.1)


def test_a_recipe_for_a_cpu_is_not_simulated(cann, capsys):
    assert __main__.main(["plan", "--config", "tiny", "--dry-run"]) == 0
    assert "tiny is for a CPU" in capsys.readouterr().out
    assert not (cann / "told.json").exists()


SHOWN = """
import json, os, moviegen
from moviegen import device
device.choose("Ascend")
names = ("MS_SIMULATION_LEVEL", "RANK_SIZE", "RANK_ID", "MS_ROLE", "GLOG_v")
print("SHOWN" + json.dumps([device.target(), *map(os.environ.get, names)]))
"""


def test_msrun_starts_one_process_that_takes_itself_for_a_card(tmp_path):
    """The real msrun, with a program that computes nothing."""
    (tmp_path / "shown.py").write_text(SHOWN)
    words = dry_run.arguments(PARAMS, 3, tmp_path / "params.yaml", tmp_path / "logs")
    words = [*words[: words.index("python")], "python", str(tmp_path / "shown.py")]
    unwanted = leftovers(os.environ)
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    programs = Path(sys.executable).parent
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    environment = inherited | {DRY_RUN: "1", "GLOG_v": "1", "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [programs / "msrun", *words], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    logs = list((tmp_path / "logs").glob("worker_*.log"))
    assert len(logs) == 1, done.stderr
    (shown,) = (line for line in logs[0].read_text().splitlines() if line.startswith("SHOWN"))
    assert json.loads(shown.removeprefix("SHOWN")) == ["Ascend", "1", "16", "0", None, "1"]


def test_nothing_else_takes_part_in_a_dry_run(monkeypatch, capsys):
    """A training that computes nothing would leave a result of zeros."""
    monkeypatch.setenv(DRY_RUN, "1")
    assert __main__.main(["train", "--config", "smoke", "--stage", "1"]) == 2
    assert f"{DRY_RUN} is set" in capsys.readouterr().err


def test_what_a_dry_run_needs_stays_in_its_environment_alone():
    told = {"MS_SIMULATION_LEVEL": "1", "RANK_ID": "0", "RANK_SIZE": "8", "MS_KERNEL_LAUNCH_SKIP": "all"}
    assert leftovers(told) == sorted(told)
    assert leftovers(told | {DRY_RUN: "1"}) == ["MS_KERNEL_LAUNCH_SKIP"]
