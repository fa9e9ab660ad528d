"""What a run leaves on disk: the manifest's story, one writer at a time, whole files, metrics that survive a cut."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.device import compiled
from moviegen.runs import MetricsWriter, RunBusy, files, fingerprint, machine
from moviegen.runs.run import check_asked

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from moviegen import config, runs
with runs.record(runs.find(config.load("smoke"), "text")) as run:
    print(run.folder, flush=True)
    sys.stdin.read()
"""

IN_A_GRAPH = """
import signal
import mindspore as ms
import numpy as np
from moviegen import config, device, runs
from moviegen.device.kernels import Product
from moviegen.launch.worker import supervised

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in a shell's background
with supervised(), runs.record(runs.find(config.load("smoke"), "text")):
    device.start(0)
    product, x = Product(), ms.Tensor(np.eye(3000, dtype=np.float32))
    while True:
        x = product(x, x)
        x.asnumpy()
        print("ready", flush=True)
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


@pytest.mark.parametrize(
    ("operators", "said"), [("compiled", "compiled (x86-64-v3, 2 threads)"), ("mindspore", "MindSpore's own")]
)
def test_a_manifest_says_which_operators_computed(tmp_path, monkeypatch, operators, said):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    monkeypatch.setenv(compiled.THREADS, "2")
    monkeypatch.setattr(compiled, "_library", lambda: (Path("library.so"), "x86-64-v3"))
    params = config.load("smoke", {"launch.operators": operators})
    with runs.record(runs.find(params, "text")) as run:
        assert run.job().operators == operators
    assert manifest(run)["operators"] == said
    with runs.record(runs.find(params, "data")) as run:  # computes no network
        assert run.job().operators == ""
    assert "operators" not in manifest(run)


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
    assert 0 < done["machine"]["cores"] <= len(os.sched_getaffinity(0))
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


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_while_a_graph_computes_says_so(run, sent):
    with subprocess.Popen([sys.executable, "-c", IN_A_GRAPH], stdout=subprocess.PIPE, text=True, cwd=ROOT) as program:
        for _ in range(3):
            assert program.stdout.readline() == "ready\n"
        time.sleep(0.05)
        program.send_signal(sent)
        program.stdout.read()
    assert manifest(run)["status"] == "interrupted"
    assert manifest(run)["seconds"] > 0


def test_run_that_goes_on_adds_its_seconds(run):
    run.folder.mkdir(parents=True)
    (run.folder / "manifest.json").write_text(json.dumps({"status": "interrupted", "seconds": 1000.0}))
    with runs.record(run):
        pass
    assert 1000 <= manifest(run)["seconds"] < 1100


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 40, b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_manifest_is_named_with_what_to_do(run, content):
    path = run.folder / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{re.escape(str(path))} is damaged .*remove it"):
        _ = run.complete
    with pytest.raises(ConfigError, match="is damaged"), runs.record(run):
        pytest.fail("it was computed")
    path.unlink()
    with runs.record(run):
        pass
    assert run.complete


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


def test_a_clock_set_back_takes_no_time_from_a_run(run, monkeypatch):
    with runs.record(run):
        monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= manifest(run)["seconds"] < 100


# --- what changes while it is computed ---


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    (folder / "mixkit").mkdir(parents=True)
    (folder / "mixkit" / "a.mp4").write_bytes(b"a")
    return folder


def test_another_run_than_the_one_asked_for_is_refused_with_what_changed(run, clips, monkeypatch):
    params = config.load("smoke", {"data.root": str(clips)})
    asked = runs.find(params, "data")
    asked.write_params()
    os.utime(asked.params_path, (0, 0))  # whatever the clock's resolution
    (clips / "mixkit" / "b.mp4").write_bytes(b"b")
    fingerprint.forget()
    monkeypatch.setenv("MOVIEGEN_RUN", asked.name)
    now = runs.find(params, "data")
    with pytest.raises(ConfigError) as caught, runs.record(now):
        pytest.fail("another run was begun")
    assert all(text in str(caught.value) for text in (asked.name, now.name, str(clips / "mixkit" / "b.mp4")))
    assert not now.folder.exists()
    (clips / "mixkit" / "b.mp4").unlink()
    fingerprint.forget()
    with runs.record(runs.find(params, "data")):
        pass
    assert asked.complete


def test_what_changed_is_looked_for_where_the_fingerprint_looks(run, clips, tmp_path, monkeypatch):
    """Behind links and under suffixes in capitals, but not among hidden files."""
    (tmp_path / "elsewhere").mkdir()
    (clips / "linked").symlink_to(tmp_path / "elsewhere")
    params = config.load("smoke", {"data.root": str(clips)})
    asked = runs.find(params, "data")
    asked.write_params()
    os.utime(asked.params_path, (0, 0))
    for path in (tmp_path / "elsewhere" / "new.MP4", clips / "mixkit" / ".half.mp4"):
        path.write_bytes(b"b")
    fingerprint.forget()
    monkeypatch.setenv("MOVIEGEN_RUN", asked.name)
    with pytest.raises(ConfigError) as caught, runs.record(runs.find(params, "data")):
        pytest.fail("another run was begun")
    assert str(clips / "linked" / "new.MP4") in str(caught.value) and ".half.mp4" not in str(caught.value)


def test_a_job_is_told_its_run(run):
    assert run.job().run == run.name


def test_a_job_of_several_runs_computes_and_is_told_each(run, monkeypatch):
    off, on, other = (runs.find(run.params, f"tae-{phase}") for phase in ("opl-off", "opl-on", "mixkit"))
    job = off.job_with([on])
    words = "python -m moviegen tae train --phase opl-off opl-on --config"
    assert job.command == (*words.split(), str(off.params_path))
    assert job.metrics == (off.metrics_path, on.metrics_path) and off.job_with([]) == off.job()
    monkeypatch.setenv("MOVIEGEN_RUN", job.run)
    for asked in (off, on):
        check_asked(asked)
    with pytest.raises(ConfigError, match=f"{off.name} was asked for, and {other.name} is what follows"):
        check_asked(other)


def change(path, text):
    path.write_bytes(text)
    os.utime(path, (1, path.stat().st_mtime + 1))  # whatever the clock's resolution


def test_an_input_that_changes_while_it_is_read_finishes_no_run(clips, run):
    data = runs.find(config.load("smoke", {"data.root": str(clips)}), "data")
    with pytest.raises(ConfigError, match=f"data.root: what lies there changed while {data.name}"), runs.record(data):
        change(clips / "mixkit" / "a.mp4", b"b")
    assert manifest(data)["status"] == "failed"
    with pytest.raises(ConfigError, match="start it again"), runs.record(data):
        change(clips / "mixkit" / "new.mp4", b"b")
    (clips / "mixkit" / "new.mp4").unlink()
    with runs.record(data):  # as it was when the fingerprint was computed
        change(clips / "mixkit" / "a.mp4", b"a")
    assert data.complete


def test_clips_that_arrive_do_not_undo_a_run_that_goes_by_the_index_of_before(clips, run):
    text = runs.find(config.load("smoke", {"data.root": str(clips)}), "text")
    with runs.record(text):
        change(clips / "mixkit" / "new.mp4", b"b")
    assert text.complete


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


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_that_cannot_be_told_to_flush_is_written_to(tmp_path, monkeypatch, error):
    def fsync(_):
        raise OSError(error, "cannot")

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "file.txt", "whole")
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_a_folder_that_cannot_be_opened_is_written_to(tmp_path, monkeypatch):
    def only_files(path, *rest, _open=os.open, **options):
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "a folder is no file here")
        return _open(path, *rest, **options)

    monkeypatch.setattr(os, "open", only_files)
    files.write_text(tmp_path / "file.txt", "whole")
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_a_disk_that_fails_to_flush_is_not_passed_over(tmp_path, monkeypatch):
    def fsync(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        files.flush_folder(tmp_path)


def test_processes_of_one_number_on_two_hosts_do_not_write_over_each_other(tmp_path):
    path = tmp_path / "file.txt"
    with files.replacing(path) as first:
        first.write_text("first")
        with files.replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


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


@pytest.mark.parametrize(
    "damage",
    [b"\0" * 64, b"\0" * 7 + b'"loss": 1}', b"\xff\xfe{", b'{"step": 3, "lo', b"5", b'["step"]', b"[" * 100_000],
)
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


def test_package_that_is_absent_is_said(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "no-such-package"))
    import numpy

    assert machine.versions() == {
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "no-such-package": "not installed",
    }
