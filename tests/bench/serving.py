"""The child's side of `workers`: it times prepared work when asked to.

Nothing of moviegen is imported here: `moviegen.device` sets oneDNN's instruction set for MindSpore, and a PyTorch
process that imported it would compute by AVX2 alone.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Work = Callable[[], Any]
TURN = 0.25  # seconds of calls that a turn lasts, at least


def serve(build: Callable[..., Work]) -> None:
    """Answers a `workers.Worker`: JSON lines in, JSON lines out; whatever else prints goes to stderr.

    An answer is the seconds of a call, or the words of the error that ended it.

    Args:
        build: turns a request's arguments into the work to be timed, which returns when it is done.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    prepared: dict[str, Work] = {}
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            if arguments is None:
                answer: float | str = turn(prepared[name])
            else:
                prepared[name] = build(**arguments)
                answer = seconds(prepared[name])
        except Exception as error:  # the parent decides whether the others go on without it
            traceback.print_exc()
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), file=answers)


def turn(work: Work) -> float:
    """Seconds of a call, the median of as many as fill a turn.

    Steps follow each other without a pause. What comes first after another process's turn has cold caches and sleeping
    threads; of short work it would be all that is seen.
    """
    times, end = [], time.perf_counter() + TURN
    while not times or time.perf_counter() < end:
        times.append(seconds(work))
    return statistics.median(times)


def seconds(work: Work) -> float:
    """Of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
