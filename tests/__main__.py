"""`python -m tests [paths] [pytest's options]`: every folder of tests in a process of its own, two at a time.

MindSpore's compiler has crashed in a process that had compiled some hundred graphs. Without `--all` the tests of whole
jobs, which take minutes, are left out (see conftest.py).
"""

import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

TESTS = Path(__file__).parent
ELSEWHERE = ("parity",)  # in an environment of its own: `make parity`
AT_A_TIME = 2
PASSED = (0, 5)  # pytest's exit codes: all passed; none was selected


def parts() -> list[Path]:
    """Every folder with tests: those of whole jobs first, the one with the most to run first, so that none is last."""
    files = [path for path in TESTS.rglob("test_*.py") if not set(ELSEWHERE) & set(path.parts)]
    sizes: dict[Path, tuple[int, int]] = {}
    for path in files:
        folder = path.parent if path.parent != TESTS else path  # those of no folder go one by one
        jobs, size = sizes.get(folder, (0, 0))
        jobs = max(jobs, int("whole_job" in path.read_text(encoding="utf-8")))
        sizes[folder] = jobs, size + path.stat().st_size
    return sorted(sizes, key=lambda folder: sizes[folder], reverse=True)


def run(part: Path, options: Iterable[str]) -> tuple[Path, int, str]:
    """One process; what it printed comes whole, so that two of them do not mix."""
    command = (sys.executable, "-m", "pytest", str(part.relative_to(Path.cwd())), *options)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return part, done.returncode, done.stdout


def main(arguments: list[str]) -> int:
    """Runs all parts, or the paths that are named; the exit status is that of the first failure."""
    named = [Path(word).resolve() for word in arguments if Path(word.partition("::")[0]).exists()]
    options = [word for word in arguments if not Path(word.partition("::")[0]).exists()]
    started, status = time.monotonic(), 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        jobs = [pool.submit(run, part, options) for part in named or parts()]
        for job in as_completed(jobs):
            part, code, output = job.result()
            print(f"{part.relative_to(TESTS.parent)}\n{output}", flush=True)
            status = status or (0 if code in PASSED else code)
    print(f"{len(jobs)} processes, {time.monotonic() - started:.0f} s", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
