"""Worker processes: what hangs, dies or fails costs its own item, and no worker outlives the call or its caller."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from moviegen.launch.pool import Failure, map_unordered


def square(number):
    """Negative numbers are of the kinds that do not come back."""
    if number == -1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == -2:
        time.sleep(1000)
    if number == -3:
        os._exit(7)
    if number == -4:
        raise MemoryError("too large")
    return number**2, os.getpid()


def dies_at_import(number):
    """Replaced by something that cannot be imported elsewhere."""


def workers():
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_an_item_that_hangs_dies_or_fails_costs_only_itself():
    items = [1, -1, 2, -2, -3, 3, -4, 4, 5]
    done = dict(map_unordered(square, items, time_limit=2, workers=2))
    assert sorted(done) == sorted(items)
    assert {item: done[item][0] for item in items if item > 0} == {1: 1, 2: 4, 3: 9, 4: 16, 5: 25}
    reasons = [done[item].reason for item in (-1, -2, -3, -4)]
    assert "SIGSEGV" in reasons[0] and "longer than 2 s" in reasons[1] and "exit code 7" in reasons[2]
    assert reasons[3] == "MemoryError: too large"
    assert not workers()


def test_one_process_does_many_items():
    done = dict(map_unordered(square, range(20), time_limit=100, workers=1))
    assert len({process for _, process in done.values()}) == 1


def test_all_items_may_be_lost():
    assert all(isinstance(answer, Failure) for _, answer in map_unordered(square, [-3] * 3, time_limit=100, workers=2))
    assert list(map_unordered(square, [], time_limit=1, workers=2)) == []


def test_a_worker_that_cannot_start_is_an_error_and_not_a_loss(monkeypatch):
    monkeypatch.setattr(dies_at_import, "__qualname__", "nowhere")
    monkeypatch.setattr(sys.modules[__name__], "nowhere", dies_at_import, raising=False)
    with pytest.raises(RuntimeError, match="could not start"):
        list(map_unordered(dies_at_import, [1], time_limit=100, workers=1))
    assert not workers()


def test_who_stops_listening_leaves_no_worker():
    answers = map_unordered(square, [1, -2, -2], time_limit=1000, workers=2)
    assert next(answers)[0] == 1
    assert workers()
    answers.close()
    assert not workers()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(ending):
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job of a script ignores it
    code += "from moviegen.launch.pool import map_unordered; from tests.launch.test_pool import square\n"
    code += "for item, _ in map_unordered(square, [1, 2, -2, -2], 1000, 2): print(item, flush=True)"
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert sorted([parent.stdout.readline(), parent.stdout.readline()]) == ["1\n", "2\n"]
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        if ending == signal.SIGINT:
            os.killpg(parent.pid, ending)  # as a terminal does: to all
        else:
            parent.kill()
        _, errors = parent.communicate(timeout=60)
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert errors.count("Traceback") == (1 if ending == signal.SIGINT else 0)  # the parent's own
