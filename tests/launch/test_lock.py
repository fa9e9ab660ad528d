"""One process at a time in a folder, whatever its file system knows of locks; one that is gone keeps nobody out."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOLDER = """
import fcntl, pathlib, sys
error = int(sys.argv[2])
def flock(*_):
    raise OSError(error, "no locks here")
if error:
    fcntl.flock = flock
from moviegen.launch.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("error", [0, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_second_process_is_refused_until_the_first_ends_or_is_killed(tmp_path, error):
    command = (sys.executable, "-W", "ignore", "-c", HOLDER, str(tmp_path), str(error))
    options = {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, stdin=subprocess.PIPE, **options) as first:
        assert first.stdout.readline() == "locked\n"
        second = subprocess.run(command, input="", stderr=subprocess.PIPE, **options)
        assert "FolderInUse: wait for it, or end it" in second.stderr
        assert second.stdout == ""
        first.kill()
    for _ in range(2):
        assert subprocess.run(command, input="", **options).stdout == "locked\n"


def test_another_error_is_not_taken_for_a_missing_lock(tmp_path):
    command = (sys.executable, "-c", HOLDER, str(tmp_path), str(errno.EIO))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, input="", capture_output=True, text=True)
    assert "OSError: [Errno 5] no locks here" in done.stderr
