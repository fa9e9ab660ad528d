"""The commit that a manifest names is the result's own, and so is the memory."""

import subprocess
import sys

import pytest

from moviegen.runs import machine

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


def test_a_process_reports_its_own_peak_and_not_that_of_who_started_it():
    """A process of little memory, started by one of 600 MB."""
    child = "from moviegen.runs.machine import peak_memory; print(peak_memory())"
    parent = (
        "import subprocess, sys; ballast = b'x' * 600_000_000; "
        f"print(subprocess.run([sys.executable, '-c', {child!r}], capture_output=True, text=True, check=True).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < 500e6


def test_growth_is_of_what_is_done_and_not_of_what_was_there_before():
    """40 MB in a process that took and freed 400 before."""
    child = """
from moviegen.runs.machine import memory_growth
before = bytearray(400_000_000)
before[::4096] = b"x" * len(before[::4096])
del before
def work():
    now = bytearray(40_000_000)
    now[::4096] = b"x" * len(now[::4096])
print(memory_growth(work), memory_growth(lambda: None))
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    grown, nothing = map(int, done.stdout.split())
    assert 39e6 < grown < 45e6
    assert nothing < 5e6
