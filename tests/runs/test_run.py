"""What a run leaves on disk: the manifest's story, one writer at a time, whole files, metrics that survive a cut."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.runs import MetricsWriter, RunBusy, files, machine

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from moviegen import config, runs
with runs.record(runs.find(config.load("smoke"), "text")) as run:
    print(run.folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    return runs.find(config.load("smoke"), "text")


def manifest(run):
    return json.loads((run.folder / "manifest.json").read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- where ---


def test_run_lies_under_scale_and_carries_its_fingerprint(run, tmp_path):
    assert run.folder == tmp_path / "smoke" / "runs" / f"text-{run.fingerprint[:8]}"
    assert run.name == run.folder.name
    assert not run.folder.exists()  # finding is not making


def test_other_parameters_are_another_run(run):
    assert runs.find(config.load("smoke", {"text.ul2.width": 8}), "text").folder != run.folder
    assert runs.find(config.load("smoke", {"sample.steps": 9}), "text").folder == run.folder


# --- record ---


def test_finished_run_is_complete(run):
    assert run.manifest == {}
    with runs.record(run) as same:
        assert same is run
        assert manifest(run)["status"] == "running"
        assert not run.complete
    done = manifest(run)
    assert run.complete
    assert done["status"] == "complete"
    assert done["program"] == "text"
    assert done["fingerprint"] == run.fingerprint
    assert done["upstream"] == {"data": runs.find(run.params, "data").name}
    assert done["versions"]["python"] == sys.version.split()[0]
    assert done["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert done["parameters"]["text"]["ul2"] == {"width": 64, "max_tokens": 24}
    assert done["peak_memory_bytes"] > 2**20
    assert done["started"] <= done["finished"]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (SystemExit, "failed"), (KeyboardInterrupt, "interrupted")]
)
def test_cut_run_says_how(run, error, status):
    with pytest.raises(error), runs.record(run):
        raise error
    assert manifest(run)["status"] == status
    assert not run.complete


def test_run_that_goes_on_adds_its_seconds(run):
    run.folder.mkdir(parents=True)
    (run.folder / "manifest.json").write_text(json.dumps({"status": "interrupted", "seconds": 1000.0}))
    with runs.record(run):
        pass
    assert 1000 <= manifest(run)["seconds"] < 1100


def test_failed_run_can_be_run_again(run):
    with pytest.raises(ValueError), runs.record(run):
        raise ValueError
    with runs.record(run):
        pass
    assert run.complete


def test_parameters_written_repeat_the_run(run):
    with runs.record(run):
        pass
    assert yaml.safe_load(run.params_path.read_text())["scale"] == "smoke"
    again = runs.find(config.load(run.params_path), "text")
    assert again.folder == run.folder
    assert run.command_line() == f"python -m moviegen text encode --config {run.params_path}"


def test_second_writer_is_refused_and_disturbs_nothing(run):
    holder = subprocess.Popen(
        (sys.executable, "-c", HOLDER), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline().strip() == str(run.folder)
        before = (run.folder / "manifest.json").read_bytes()
        with pytest.raises(RunBusy, match=run.name), runs.record(run):
            pytest.fail("two writers")
        assert (run.folder / "manifest.json").read_bytes() == before
    finally:
        holder.communicate("")
    assert holder.returncode == 0
    with runs.record(run):  # it has gone, and its lock with it
        pass
    assert run.complete


def test_killed_writer_leaves_no_lock_and_no_claim(run):
    holder = subprocess.Popen(
        (sys.executable, "-c", HOLDER), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    assert not run.complete
    with runs.record(run):
        pass
    assert run.complete


# --- upstream ---


def test_upstream_that_is_not_there_names_the_command(run):
    with pytest.raises(ConfigError) as caught:
        run.upstream("data")
    assert "text needs data-" in str(caught.value)
    assert "run `python -m moviegen data index --config " in str(caught.value)


def test_an_upstream_of_several_workers_is_named_with_msrun(run):
    stage2 = runs.find(run.params, "stage2")
    with pytest.raises(ConfigError) as caught:
        stage2.upstream("stage1")
    words = str(caught.value).split("`")[1].split()
    assert words[0] == "msrun"
    assert {"--worker_num=2", "--local_worker_num=2", "--join=True"} <= set(words)
    assert words[-8:] == ["python", "-m", "moviegen", "train", "--stage", "1", "--config", str(stage2.params_path)]


def test_upstream_that_failed_is_not_taken(run):
    data = runs.find(run.params, "data")
    with pytest.raises(ValueError), runs.record(data):
        raise ValueError
    with pytest.raises(ConfigError, match="not complete"):
        run.upstream("data")
    with runs.record(data):
        pass
    assert run.upstream("data").folder == data.folder


def test_command_named_makes_the_run_that_is_missing(run):
    params = config.load("smoke", {"data.test_share": 0.3})
    with pytest.raises(ConfigError) as caught:
        runs.find(params, "text").upstream("data")
    words = str(caught.value).split("`")[1].split()
    source, rest = words[words.index("--config") + 1], words[words.index("--config") + 2 :]
    suggested = config.load(source, config.parse_overrides(rest))
    assert runs.find(suggested, "data").folder == runs.find(params, "data").folder


# --- files ---


def test_text_replaces_what_was_there(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("first, and longer\n", "second\n"):
        files.write_text(path, text)
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("stem", ["x" * 251, "字" * 83, "0003", ".hidden"])
def test_a_file_of_any_name_is_written(tmp_path, stem):
    files.write_text(tmp_path / f"{stem}.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.txt"]


def test_long_names_are_cut_and_stay_apart():
    assert files.shortened("x" * 120) == "x" * 120
    names = {files.shortened(stem + end) for stem in ("x" * 119, "字" * 60) for end in ("", "a", "bc", "de")}
    assert len(names) == 8 and max(len(name.encode()) for name in names) == 120


def cut(monkeypatch, path):
    """A write that fails when its bytes go to the disk, as on a full one."""

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(path, "half")


def test_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("whole")
    cut(monkeypatch, path)
    assert path.read_text() == "whole"


def test_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    cut(monkeypatch, tmp_path / "file.txt")
    assert list(tmp_path.iterdir()) == []


# --- metrics ---


def test_metrics_come_back_as_written(run):
    writer = MetricsWriter(run.metrics_path)
    writer.write(step=1, loss=0.1 + 0.2)
    writer.write(step=2, clip="ä\nb")
    assert run.metrics() == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "clip": "ä\nb"}]
    assert lines(run.metrics_path) == run.metrics()


def test_no_metrics_yet(run):
    assert run.metrics() == []


def test_half_line_is_left_out(run):
    MetricsWriter(run.metrics_path).write(step=1)
    with run.metrics_path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert run.metrics() == [{"step": 1}]


@pytest.mark.parametrize("damage", [b"\0" * 64, b"\0" * 7 + b'"loss": 1}', b"\xff\xfe{", b'{"step": 3, "lo'])
def test_damaged_lines_are_left_out_with_a_warning_and_the_run_goes_on(run, damage):
    writer = MetricsWriter(run.metrics_path)
    for step in (1, 2):
        writer.write(step=step, loss=0.1 + 0.2)
    with run.metrics_path.open("ab") as file:
        file.write(damage + b"\n")
    with pytest.warns(UserWarning, match=re.escape(f"{run.metrics_path}, line 3 is damaged")):
        assert run.metrics() == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 0.1 + 0.2}]
    with pytest.warns(UserWarning, match="line 3 is damaged"):
        MetricsWriter(run.metrics_path).write(step=3)
    assert lines(run.metrics_path) == [*({"step": step, "loss": 0.1 + 0.2} for step in (1, 2)), {"step": 3}]


def test_dropping_keeps_the_steps_up_to_the_checkpoint(run):
    writer = MetricsWriter(run.metrics_path)
    writer.write(kind="start")  # of no step: stays
    for step in (1, 2, 3, 4):
        writer.write(step=step)
    with run.metrics_path.open("a") as file:
        file.write('{"step": 5, "lo')
    writer.drop_after(2)
    writer.write(step=3, again=True)
    assert lines(run.metrics_path) == [{"kind": "start"}, {"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_dropping_from_nothing_makes_nothing(run):
    MetricsWriter(run.metrics_path).drop_after(0)
    assert not run.metrics_path.exists()


# --- provenance ---


def test_commit_is_gits_own_or_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "project_root", lambda: tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.git_commit() == "unknown"
    settings = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false")
    subprocess.run(("git", "init", "-q"), cwd=tmp_path, check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run(("git", "add", "."), cwd=tmp_path, check=True)
    subprocess.run(("git", *settings, "commit", "-q", "--no-verify", "-m", "one"), cwd=tmp_path, check=True)
    head = (tmp_path / ".git" / (tmp_path / ".git" / "HEAD").read_text().split()[1]).read_text().strip()
    assert machine.git_commit() == head
    (tmp_path / "file").write_text("2")
    assert machine.git_commit() == head + "+changes"


def test_package_that_is_absent_is_said(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "no-such-package"))
    import numpy

    assert machine.versions() == {
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "no-such-package": "not installed",
    }
