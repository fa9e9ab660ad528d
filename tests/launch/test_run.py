"""Jobs of tiny workers: what they report arrives, what they do wrong is named, and nothing of them stays behind."""

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from moviegen import device
from moviegen.launch import watch, worker
from moviegen.launch.hosts import AddressError
from moviegen.launch.job import Job, host_commands, msrun_command
from moviegen.launch.run import JobBusyError, PortTakenError, run_job, with_port
from moviegen.launch.watch import StalledJobError, WorkerError

DEADLINE = 60  # seconds a waiting loop may take before the test fails


@pytest.fixture
def make_job(tmp_path):
    """Return a function that makes a job of a worker program's source; any left-over process fails the test."""
    log_dir = tmp_path / f"logs-{uuid.uuid4().hex}"  # part of every command line of the job, even that of its `tail`s

    def make(source, workers=1, **fields):
        (tmp_path / "tiny_worker.py").write_text(PRELUDE + textwrap.dedent(source))
        return Job(
            command=("python", "-m", "tiny_worker", str(log_dir)),
            log_dir=log_dir,
            worker_num=workers,
            local_worker_num=workers,
            environment={"PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"},
            metrics=(tmp_path / "metrics.jsonl",),
            **fields,
        )

    yield make
    left = processes_of(log_dir)
    for process in left:
        process.kill()
    assert left == []


PRELUDE = """
import json, os, pathlib, signal, sys, time
from moviegen.launch.worker import rank_name, supervised
rank, folder = rank_name(), pathlib.Path(sys.argv[1]).parent
if rank != "scheduler":
    (folder / f"ready_{rank}").touch()
def progress(**record):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(record) + "\\n")
"""


def processes_of(log_dir):
    found = []
    for process in psutil.process_iter():
        try:
            if any(log_dir.name in argument for argument in process.cmdline()):
                found.append(process)
        except psutil.Error:
            pass  # gone in between
    return found


def wait_for(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


# --- the command ---------------------------------------------------------------------------------------------------


def test_command_is_spelled_like_the_original_reports_stage_1():
    program = ("python", "-m", "moviegen", "train", "--config", "params/5B.yaml", "--stage", "1")
    job = Job(program, Path("output/stage1"), worker_num=8, local_worker_num=8, master_port=8200, bind_core=True)
    assert msrun_command(job) == [
        "msrun",
        "--bind_core=True",
        "--master_port=8200",
        "--worker_num=8",
        "--local_worker_num=8",
        "--log_dir=output/stage1",
        "--join=True",
        "--cluster_time_out=300",
        *program,
    ]


def test_two_hosts_get_a_command_each():
    job = Job(
        ("python", "-m", "moviegen", "train", "--valid.dataset", ""),
        Path("logs"),
        worker_num=16,
        local_worker_num=8,
        master_addr="10.0.0.1",
        master_port=8200,
        environment={"ASCEND_RT_VISIBLE_DEVICES": "0,1", "GLOG_v": "2"},
    )
    first, second = host_commands(job)
    assert "--master_addr=10.0.0.1 --node_rank=0 \\\npython -m moviegen train --valid.dataset ''" in first
    assert first.replace("--node_rank=0", "--node_rank=1") == second
    assert "export ASCEND_RT_VISIBLE_DEVICES=0,1\n" in first
    assert re.findall("export GLOG_v=(.)", first) == ["2"]


def test_one_worker_needs_no_msrun():
    job = Job(("python", "-m", "moviegen", "plan"), Path("logs"))
    (command,) = host_commands(job)
    assert command.splitlines()[-1] == "python -m moviegen plan"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"command": (sys.executable, "-m", "x")}, "must start with 'python'"),
        ({"worker_num": 3, "local_worker_num": 2}, "worker_num = 3 is not a multiple of local_worker_num = 2"),
        ({"node_rank": 1}, "node_rank = 1 is not one of the 1 hosts"),
        ({"worker_num": 2}, "needs a master_port"),
    ],
)
def test_impossible_jobs_are_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Job(**{"command": ("python",), "log_dir": Path("logs"), **fields})


# --- the port ------------------------------------------------------------------------------------------------------


def test_a_free_port_is_chosen():
    job = with_port(Job(("python",), Path("logs"), worker_num=2, local_worker_num=2))
    with socket.create_server(("127.0.0.1", job.master_port)):
        assert f"--master_port={job.master_port}" in msrun_command(job)


def test_a_taken_port_is_refused_by_its_number(make_job):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"master_port {port} is in use"):
            run_job(make_job("", workers=2, master_port=port))


def test_a_job_whose_hosts_would_not_meet_is_not_started(make_job):
    hosts = {"worker_num": 4, "local_worker_num": 2, "master_port": 8200}
    job = dataclasses.replace(make_job(""), master_addr="localhost", **hosts)
    with pytest.raises(AddressError, match=r"localhost \(.*\) is each of the 2 hosts itself: .* launch.master_addr"):
        run_job(job)
    assert not job.log_dir.exists()


# --- the environment -----------------------------------------------------------------------------------------------


def test_what_is_left_of_another_job_does_not_reach_this_one(make_job, monkeypatch):
    for name in ("MS_ROLE", "RANK_ID", "MS_SIMULATION_LEVEL"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("HCCL_CONNECT_TIMEOUT", "7200")
    job = make_job("print(rank, os.environ['HCCL_CONNECT_TIMEOUT'], flush=True)")
    run_job(job)
    assert job.log("0").read_text() == "0 7200\n"  # and the worker had nothing to say of what it leaves out


def test_a_job_is_told_its_run_and_writes_logs_that_can_be_read_in_any_locale(make_job, monkeypatch):
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii",
                        "MOVIEGEN_RUN": "another"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    job = dataclasses.replace(make_job("print(os.environ['MOVIEGEN_RUN'], 'caf\\xe9 \\u5b57 \\udcff')"), run="text-1")
    run_job(job)
    assert job.log("0").read_text(encoding="utf-8") == "text-1 café 字 \\udcff\n"


@pytest.mark.parametrize(
    ("operators", "set_here", "told"),
    [
        ("", {"ONEDNN_MAX_CPU_ISA"}, "None AVX2"),
        ("mindspore", {"ONEDNN_MAX_CPU_ISA"}, "mindspore AVX2"),
        ("compiled", {"ONEDNN_MAX_CPU_ISA"}, "compiled None"),
        ("compiled", set(), "compiled AVX2"),  # the user's
    ],
)
def test_a_job_is_told_which_operators_compute_it(make_job, monkeypatch, operators, set_here, told):
    monkeypatch.delenv("MOVIEGEN_OPERATORS", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setattr(device, "set_here", set_here)
    shown = "print(os.environ.get('MOVIEGEN_OPERATORS'), os.environ.get('ONEDNN_MAX_CPU_ISA'))"
    job = dataclasses.replace(make_job(shown), operators=operators)
    run_job(job)
    assert job.log("0").read_text() == f"{told}\n"


# --- the pieces ----------------------------------------------------------------------------------------------------


def test_tail_waits_for_half_written_lines_and_follows_a_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("old\n")
    tail = watch.Tail(path)
    with path.open("a") as file:
        file.write("one\ntw")
    assert tail.new_lines() == ["one"]
    with path.open("a") as file:
        file.write("o\n")
    assert tail.new_lines() == ["two"]
    path.write_text("old\n")
    assert tail.new_lines() == []
    with path.open("a") as file:
        file.write("two again\n")
    assert tail.new_lines() == ["two again"]


def test_report_errors_leaves_the_traceback_and_raises(tmp_path):
    with pytest.raises(ZeroDivisionError), worker.report_errors(tmp_path, "3"):
        1 / 0  # noqa: B018
    (report,) = tmp_path.iterdir()
    assert report.name == "error_3.txt"
    assert "ZeroDivisionError: division by zero" in report.read_text()


def test_a_traceback_with_a_name_that_is_no_text_is_left_as_well(tmp_path):
    with pytest.raises(ValueError), worker.report_errors(tmp_path, "0"):
        raise ValueError("/clips/\udcff.mp4")
    assert r"/clips/\udcff.mp4" in (tmp_path / "error_0.txt").read_text()


def test_the_scheduler_is_not_rank_0(monkeypatch):
    monkeypatch.setenv("RANK_ID", "0")
    assert worker.rank_name() == "0"
    monkeypatch.setenv("MS_ROLE", "MS_SCHED")
    assert worker.rank_name() == "scheduler"


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "ended with exit code 3"), (-9, "was killed by SIGKILL"), (139, "was killed by SIGSEGV")],
)
def test_exit_codes_in_words(code, words):
    assert watch.how_it_ended(watch.exit_status(code)).startswith(words)


# --- one worker, started directly ----------------------------------------------------------------------------------


def test_progress_arrives_and_a_new_attempt_forgets_the_old_one(make_job):
    seen = []
    job = make_job("progress(step=1, loss=0.5)\nprint('hello', os.environ.get('MS_ROLE'))")
    job.log_dir.mkdir()
    (job.log_dir / "error_0.txt").write_text("of an earlier attempt")
    job.log("0").write_text("earlier")
    job.metrics[0].write_text(json.dumps({"step": 0}) + "\n")
    run_job(job, seen.append)
    assert seen == [{"step": 1, "loss": 0.5}]
    assert job.log("0").read_text() == "hello None\n"
    assert (job.log_dir / "worker_0.log.1").read_text() == "earlier"


def test_a_single_worker_that_exits_shows_its_log(make_job):
    job = make_job("print('--stepz is unknown')\nsys.exit(2)")
    with pytest.raises(WorkerError, match="worker 0 ended with exit code 2") as error:
        run_job(job)
    assert "--stepz is unknown" in str(error.value)
    assert str(job.log("0")) in str(error.value)
    assert error.value.status == 2


def test_a_single_worker_that_is_killed_has_its_signal_for_a_status(make_job):
    with pytest.raises(WorkerError, match="worker 0 was killed by SIGTERM") as error:
        run_job(make_job("os.kill(os.getpid(), signal.SIGTERM)"))
    assert error.value.status == -signal.SIGTERM


def test_a_worker_that_reports_and_does_not_end_has_no_status(make_job):
    job = make_job("""
        with supervised():
            try:
                with supervised():
                    raise ValueError("no clip fits the batch")
            finally:
                time.sleep(600)
        """)
    with pytest.raises(WorkerError, match=r"worker 0 failed \(had not ended\)") as error:
        run_job(job)
    assert error.value.status is None


def test_a_second_job_in_the_same_folder_is_refused_and_the_first_one_ends_well(make_job, tmp_path):
    job = make_job("""
        print("the first", flush=True)
        progress(step=1)
        while not (folder / "go").exists():
            time.sleep(0.05)
        progress(step=2)
        """)
    seen = []

    def start_another(record):
        seen.append(record["step"])
        if record["step"] == 1:
            with pytest.raises(JobBusyError, match=re.escape(str(job.log_dir))):
                run_job(job, stall_timeout=3)
            (tmp_path / "go").touch()

    run_job(job, start_another)
    assert seen == [1, 2]
    assert job.log("0").read_text() == "the first\n"
    run_job(job)  # the folder is free again


def test_a_failing_callback_ends_the_job(make_job):
    def fail(record):
        raise OSError(f"no place for {record}")

    with pytest.raises(OSError, match="no place for"):
        run_job(make_job("progress(step=1)\ntime.sleep(600)"), fail)


def test_what_a_worker_leaves_behind_is_ended_too(make_job):
    job = make_job("""
        import subprocess
        sleep = [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]]
        subprocess.Popen(sleep, start_new_session=True)
        """)
    run_job(job)


def test_a_stalled_job_ends_and_shows_where_it_was(make_job):
    job = make_job("""
        def wait_for_nobody():
            progress(step=1)
            time.sleep(600)
        with supervised():
            wait_for_nobody()
        """)
    with pytest.raises(StalledJobError, match=r"no new line in .*metrics\.jsonl for 3 s") as error:
        run_job(job, stall_timeout=3)
    assert "wait_for_nobody" in str(error.value)


def test_work_that_goes_on_is_no_stall_and_what_waits_for_ever_is(make_job):
    """Validation and compilation, each longer than the timeout in all; then a compilation that hangs."""
    job = make_job("""
        from moviegen.runs import busy, metrics
        busy.LOOK_SECONDS = metrics.PROGRESS_SECONDS = 0.3
        writer = metrics.MetricsWriter(folder / "metrics.jsonl")
        def say(kind):
            writer.progress(kind=kind, step=1)
        def compute(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sum(range(1000))
        with supervised():
            for clip in range(12):
                time.sleep(0.5)
                say("validating")
            with busy.while_busy(lambda: say("compiling")):
                compute(6)
            with busy.while_busy(lambda: say("waiting")):
                time.sleep(600)
        """)
    seen = []
    with pytest.raises(StalledJobError):
        run_job(job, lambda line: seen.append(line["kind"]), stall_timeout=5)
    assert seen.count("validating") >= 3 and seen.count("compiling") >= 3
    assert "waiting" not in seen[:-1]  # the look after the change may still see what was computed before


# --- two workers under msrun ---------------------------------------------------------------------------------------


def test_two_workers_train_together(make_job):
    seen = []
    job = make_job(
        """
        with supervised():
            import mindspore as ms
            from mindspore import communication, ops
            ms.set_device("CPU")
            communication.init()
            total = ops.AllReduce()(ms.Tensor([float(rank) + 1]))
            if rank == "0":
                progress(step=1, total=total.asnumpy().item())
            ops.AllReduce()(total).asnumpy()  # leave together
        """,
        workers=2,
    )
    run_job(job, seen.append)
    assert seen == [{"step": 1, "total": 3.0}]


def test_a_worker_that_raises_is_shown(make_job):
    job = make_job(
        """
        with supervised():
            if rank == "1":
                raise ValueError("no clip fits the batch")
            time.sleep(600)
        """,
        workers=2,
    )
    with pytest.raises(WorkerError, match=r"worker 1 failed \(ended with exit code 1\)") as error:
        run_job(job)
    assert (error.value.rank, error.value.status) == ("1", 1)
    assert "ValueError: no clip fits the batch" in str(error.value)
    assert str(job.log_dir / "worker_1.log") in str(error.value)


def test_a_worker_that_is_killed_is_named_with_its_last_words(make_job):
    job = make_job(
        """
        if rank == "1":
            print("allocating 59GB")
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
        """,
        workers=2,
    )
    with pytest.raises(WorkerError, match="worker 1 was killed by SIGKILL") as error:
        run_job(job)
    assert "allocating 59GB" in str(error.value)
    assert error.value.status == -signal.SIGKILL


@pytest.mark.whole_job
def test_a_stalled_job_shows_the_worker_that_hangs_beside_the_one_that_waits(make_job):
    job = make_job(
        """
        def wait_for_the_other():
            while not (folder / "arrived").exists():
                time.sleep(0.05)
        def hang():
            progress(step=1)
            time.sleep(600)
        with supervised():
            hang() if rank == "1" else time.sleep(600) if rank == "scheduler" else wait_for_the_other()
        """,
        workers=2,
    )
    with pytest.raises(StalledJobError) as error:
        run_job(job, stall_timeout=8)
    first, second = (str(error.value).index(f"The end of {job.log(rank)}:") for rank in "01")
    assert "in wait_for_the_other" in str(error.value)[first:second]
    assert "in hang" in str(error.value)[second:]


# --- the launcher itself ends --------------------------------------------------------------------------------------


PARENT = """
import signal, sys
from pathlib import Path
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have it ignored
log_dir, path, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
command = ("python", "-m", "tiny_worker", str(log_dir))
try:
    run_job(Job(command, log_dir, worker_num=workers, local_worker_num=workers, environment={"PYTHONPATH": path}))
except KeyboardInterrupt:
    sys.exit("KeyboardInterrupt arrived")
"""


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGKILL, 2), (signal.SIGKILL, 1), (signal.SIGTERM, 1), (signal.SIGINT, 1)]
)
def test_nothing_outlives_the_launcher(make_job, tmp_path, number, workers):
    job = make_job("time.sleep(600)", workers)  # unsupervised workers: the guard alone must find them
    arguments = [sys.executable, "-c", PARENT, str(job.log_dir), str(tmp_path), str(workers)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as parent:
        wait_for(lambda: all((tmp_path / f"ready_{rank}").exists() for rank in range(workers)))
        parent.send_signal(number)
        _, errors = parent.communicate(timeout=DEADLINE)
    if number == signal.SIGINT:
        assert "KeyboardInterrupt arrived" in errors
    else:
        assert parent.returncode == -number
    wait_for(lambda: not processes_of(job.log_dir))


CELL = """
from pathlib import Path
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
run_job(Job({command}, Path({log_dir!r}), worker_num=2, local_worker_num=2, environment={environment}))
"""


@pytest.fixture
def run_cell():
    """Returns a function that has a Jupyter kernel begin a cell: the kernel's manager and client, the request's id."""
    started = []

    def run(cell):
        manager, client = start_new_kernel(kernel_name="python3")
        started.append((manager, client))
        return manager, client, client.execute(cell)

    yield run
    for manager, client in started:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def kernel_running_a_job(job, folder, run_cell):
    cell = CELL.format(command=job.command, log_dir=str(job.log_dir), environment=dict(job.environment))
    kernel = run_cell(cell)
    wait_for(lambda: all((folder / f"ready_{rank}").exists() for rank in range(2)))
    return kernel


def test_interrupting_a_kernel_ends_its_job_and_not_the_kernel(make_job, tmp_path, run_cell):
    job = make_job("time.sleep(600)", workers=2)
    manager, client, request = kernel_running_a_job(job, tmp_path, run_cell)
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=DEADLINE)
    while reply["parent_header"]["msg_id"] != request:  # of what was asked while the kernel started
        reply = client.get_shell_msg(timeout=DEADLINE)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert processes_of(job.log_dir) == []
    assert client.execute("1", reply=True, timeout=DEADLINE)["content"]["status"] == "ok"


def test_a_kernel_that_is_killed_leaves_no_job(make_job, tmp_path, run_cell):
    job = make_job("time.sleep(600)", workers=2)
    manager, _, _ = kernel_running_a_job(job, tmp_path, run_cell)
    assert processes_of(job.log_dir)
    os.kill(manager.provisioner.pid, signal.SIGKILL)
    wait_for(lambda: not processes_of(job.log_dir))


def test_workers_die_with_an_msrun_that_is_killed(make_job, tmp_path):
    """The kernel's part, without a guard: as when someone kills an msrun typed by hand."""
    job = make_job("with supervised():\n    print('supervised', flush=True)\n    time.sleep(600)")
    job.log_dir.mkdir()
    msrun = tmp_path / "msrun"
    msrun.write_text(f"import subprocess\nsubprocess.run(['python', '-m', 'tiny_worker', {str(job.log_dir)!r}])")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **job.environment, "PATH": path, "MS_ROLE": "MS_WORKER"}
    with subprocess.Popen([sys.executable, msrun], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "supervised\n"
        process.kill()
    wait_for(lambda: not processes_of(job.log_dir))
