"""`data index` in which every file takes a while: `python -m tests.programs.slow_index DATA`."""

import sys
import time

from moviegen.__main__ import main
from moviegen.data import measuring
from moviegen.launch.pool import map_unordered


def slowly(path):
    """Measures as long as a large file takes."""
    time.sleep(0.1)
    return measuring._measure(path)


if __name__ == "__main__":
    from tests.programs.slow_index import slowly  # by the name that workers find it by

    measuring.map_unordered = lambda function, paths, time_limit, workers: map_unordered(
        slowly, paths, time_limit, workers
    )
    sys.exit(main(["data", "index", "--config", "smoke", "--data.root", sys.argv[1]]))
