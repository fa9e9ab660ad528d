"""A trace of a few training steps, which MindStudio Insight and the tracing page of Chromium open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

from moviegen.device import target


class StepTrace:
    """Records steps `first` to `last` with MindSpore's profiler; a step that raises ends the record.

    Leaves `*/ASCEND_PROFILER_OUTPUT/trace_view.json` in `folder`, and on CPU `*/FRAMEWORK/cpu_op_*.csv`, the time of
    each kind of operator. A run that is resumed after `first` records nothing.
    """

    def __init__(self, folder: Path, first: int, last: int, rank: int) -> None:
        self.folder, self.first, self.last = folder, first, last
        self.worker = f"rank{rank}"
        self._profile: profile | None = None

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """The step of this number happens inside."""
        if number == self.first:
            activities = [ProfilerActivity.CPU] + ([ProfilerActivity.NPU] if target() == "Ascend" else [])
            handler = tensorboard_trace_handler(str(self.folder), worker_name=self.worker)
            self._profile = profile(activities=activities, on_trace_ready=handler)
            self._profile.start()
        try:
            yield
        except BaseException:
            self._stop()
            raise
        if number == self.last:
            self._stop()

    def _stop(self) -> None:
        if self._profile:
            self._profile.stop()
            self._profile = None
