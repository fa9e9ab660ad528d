"""The commit and the machine that a manifest names are the result's own, not another repository's or the host's."""

import os
import subprocess
from types import SimpleNamespace

import psutil
import pytest

from moviegen.runs import machine

GIB = 2**30
HERE = len(os.sched_getaffinity(0))
SETTINGS = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null")


def git(folder, *words):
    subprocess.run(("git", *SETTINGS, *words), cwd=folder, check=True, capture_output=True)


def commit(folder):
    """Makes a repository of what lies in a folder; its commit, as the repository's own files have it."""
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return (folder / ".git" / (folder / ".git" / "HEAD").read_text().split()[1]).read_text().strip()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of code that is taken for the project."""
    folder = tmp_path / "around" / "project"
    (folder / "moviegen").mkdir(parents=True)
    (folder / "moviegen" / "code.py").write_text("1")
    (folder / "README.md").write_text("1")
    monkeypatch.setattr(machine, "project_root", lambda: folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


# --- the commit ---


def test_commit_is_gits_own_or_unknown(project):
    assert machine.git_commit() == "unknown"
    head = commit(project)
    assert machine.git_commit() == head
    (project / "moviegen" / "code.py").write_text("2")
    assert machine.git_commit() == head + "+changes"


def test_code_that_git_has_not_seen_is_a_change_and_files_beside_the_code_are_none(project):
    head = commit(project)
    (project / "clips").mkdir()
    for path in ("clips/mine.mp4", "README.md", "params.yaml"):
        (project / path).write_text("mine")
    assert machine.git_commit() == head
    git(project, "config", "status.showUntrackedFiles", "no")
    (project / "moviegen" / "new").mkdir()
    (project / "moviegen" / "new" / "more.py").write_text("")
    assert machine.git_commit() == head + "+changes"


def test_an_unpacked_copy_inside_another_repository_has_no_commit(project):
    commit(project.parent)
    assert machine.git_commit() == "unknown"


def test_a_checkout_inside_another_repository_has_its_own(project):
    head = commit(project)
    commit(project.parent)
    assert machine.git_commit() == head


def test_a_checkout_reached_by_a_link_is_the_same(project, tmp_path, monkeypatch):
    head = commit(project)
    (tmp_path / "link").symlink_to(project)
    monkeypatch.setattr(machine, "project_root", lambda: tmp_path / "link")
    assert machine.git_commit() == head


def test_where_the_users_shell_points_git_does_not_count(project, tmp_path, monkeypatch):
    head, other = commit(project), tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("1")
    assert commit(other) != head
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert machine.git_commit() == head
    monkeypatch.setenv("GIT_WORK_TREE", str(project))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert machine.git_commit() == head


def test_a_checkout_of_another_user_has_its_commit(project, monkeypatch):
    head = commit(project)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refused = subprocess.run(("git", "rev-parse", "HEAD"), cwd=project, capture_output=True)
    assert b"dubious ownership" in refused.stderr, "the control is not refused"
    version = subprocess.run(("git", "version"), capture_output=True, text=True).stdout.split()[2].split(".")
    old = tuple(map(int, version[:2])) < (2, 38)  # asks nobody but the system's and the user's files
    assert machine.git_commit() == ("unknown" if old else head)


def test_without_git_the_commit_is_unknown(project, monkeypatch):
    commit(project)
    monkeypatch.setenv("PATH", "")
    assert machine.git_commit() == "unknown"


# --- the machine ---


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Makes the files by which Linux tells a process of its groups' limits, as on a host of 64 cores and 256 GiB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=256 * GIB))

    def make(own, **limits):
        for place, text in limits.items():
            path = tmp_path / "cgroup" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (tmp_path / "own").write_text("".join(f"{line}\n" for line in own))
        return tmp_path / "cgroup", tmp_path / "own"

    return make


V1 = ("9:cpuset:/pod/me", "5:memory:/pod/me", "4:cpu,cpuacct:/pod/me", "1:name=systemd:/pod/me")
NO_LIMIT = 9223372036854771712  # version 1's


@pytest.mark.parametrize(
    ("own", "limits", "cores", "gib"),
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
def test_a_containers_limits_are_the_machine(container, own, limits, cores, gib):
    places = container(own, **limits)
    assert (machine.cores(*places), machine.memory_bytes(*places)) == (cores, gib * GIB)
    assert isinstance(machine.cores(*places), type(cores))


def test_cores_this_process_may_not_run_on_are_not_its_own(container, monkeypatch):
    places = container(["0::/"], **{"cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 6})
    assert machine.cores(*places) == 3


def test_a_machine_without_groups_is_the_whole(tmp_path):
    assert machine.cores(tmp_path, tmp_path / "none") == HERE
    assert machine.memory_bytes(tmp_path, tmp_path / "none") == psutil.virtual_memory().total
