"""What a process may take of a machine: its containers' limits hold, and the workers of a job share the rest."""

import os
from types import SimpleNamespace

import psutil
import pytest

from moviegen import config
from moviegen.device import limits

GIB = 2**30
HERE = len(os.sched_getaffinity(0))


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Makes the files by which Linux tells a process of its groups' limits, as on a host of 64 cores and 256 GiB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=256 * GIB))

    def make(own, **files):
        for place, text in files.items():
            path = tmp_path / "cgroup" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (tmp_path / "own").write_text("".join(f"{line}\n" for line in own))
        return tmp_path / "cgroup", tmp_path / "own"

    return make


V1 = ("9:cpuset:/pod/me", "5:memory:/pod/me", "4:cpu,cpuacct:/pod/me", "1:name=systemd:/pod/me")
NO_LIMIT = 9223372036854771712  # version 1's


@pytest.mark.parametrize(
    ("own", "files", "cores", "gib"),
    [
        (["0::/"], {}, 64, 256),
        (["0::/"], {"cpu.max": "200000 100000", "memory.max": 8 * GIB}, 2, 8),
        (["0::/a/b.slice"], {"a/b.slice/cpu.max": "max 100000", "a/b.slice/memory.max": "max"}, 64, 256),
        (["0::/a/b"], {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000", "a/memory.max": 4 * GIB}, 1.5, 4),
        (["0::/a/b"], {"a/cpu.max": "800000 100000", "a/b/cpu.max": "400000 100000", "a/memory.max": 9 * GIB,
                       "a/b/memory.max": 3 * GIB, "other/memory.max": GIB, "other/cpu.max": "1 100000"}, 4, 3),
        (["0::/a/b"], {"a/memory.max": 3 * GIB, "a/b/memory.max": 9 * GIB}, 64, 3),
        (["0::/../../only/on/the/host"], {"cpu.max": "300000 100000", "memory.max": 5 * GIB}, 3, 5),
        (["0::/"], {"memory.max": 512 * GIB, "cpu.max": "9600000 100000"}, 64, 256),
        (V1, {"cpu,cpuacct/pod/me/cpu.cfs_quota_us": -1, "cpu,cpuacct/pod/me/cpu.cfs_period_us": 100000,
              "memory/pod/me/memory.limit_in_bytes": NO_LIMIT}, 64, 256),
        (V1, {"cpu,cpuacct/pod/cpu.cfs_quota_us": 50000, "cpu,cpuacct/pod/cpu.cfs_period_us": 100000,
              "cpu,cpuacct/pod/me/cpu.cfs_quota_us": -1, "cpu,cpuacct/pod/me/cpu.cfs_period_us": 100000,
              "memory/pod/me/memory.limit_in_bytes": NO_LIMIT, "memory/memory.limit_in_bytes": 2 * GIB}, 0.5, 2),
        (["4:cpuacct,cpu:/docker/x"], {"cpu/cpu.cfs_quota_us": 100000, "cpu/cpu.cfs_period_us": 50000}, 2, 256),
        (["5:memory:/x", "0::/x"], {"memory/memory.limit_in_bytes": GIB, "unified/cpu.max": "1 100000"}, 64, 1),
    ],
)  # fmt: skip
def test_a_containers_limits_are_the_machine(container, own, files, cores, gib):
    places = container(own, **files)
    assert (limits.cores(*places), limits.memory_bytes(*places)) == (cores, gib * GIB)
    assert isinstance(limits.cores(*places), type(cores))


def test_cores_this_process_may_not_run_on_are_not_its_own(container, monkeypatch):
    places = container(["0::/"], **{"cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 6})
    assert limits.cores(*places) == 3


def test_a_machine_without_groups_is_the_whole(tmp_path):
    assert limits.cores(tmp_path, tmp_path / "none") == HERE
    assert limits.memory_bytes(tmp_path, tmp_path / "none") == psutil.virtual_memory().total


# --- threads ---

JOB = config.load("smoke").launch  # two workers on this host


def in_a_job(monkeypatch, workers):
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    monkeypatch.setenv("MS_WORKER_NUM", str(workers))


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (0.5, 1), (2, 2), (3.5, 3), (64, 64)])
def test_a_program_alone_has_all_cores(monkeypatch, cores, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(limits, "cores", lambda: cores)
    assert limits.threads() == limits.threads(JOB) == threads


@pytest.mark.parametrize(
    ("cores", "workers", "job", "threads"),
    [
        (2, 2, JOB, 1),
        (1, 2, JOB, 1),
        (16, 2, JOB, 8),
        (16, 4, JOB, 4),  # a program that any number of workers computes
        (16, 8, JOB.model_copy(update={"worker_num": 8, "local_worker_num": 4}), 4),  # two hosts
        (4, 2, JOB.model_copy(update={"bind_core": True}), 4),  # which msrun gave each worker
    ],
)
def test_workers_share_the_cores_of_their_host(monkeypatch, cores, workers, job, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(limits, "cores", lambda: cores)
    in_a_job(monkeypatch, workers)
    assert limits.threads(job) == threads


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("3,2", 3), ("", 2), ("all", 2), ("0", 2)])
def test_the_user_may_ask_for_another_number(monkeypatch, asked, threads):
    monkeypatch.setattr(limits, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    in_a_job(monkeypatch, 2)
    assert limits.threads(JOB) == threads
