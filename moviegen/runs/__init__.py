"""What was computed: by which program, from what, and where it lies."""

from moviegen.runs.metrics import MetricsWriter
from moviegen.runs.run import Run, RunBusy, check_same, differences, find, record

__all__ = ["MetricsWriter", "Run", "RunBusy", "check_same", "differences", "find", "record"]
