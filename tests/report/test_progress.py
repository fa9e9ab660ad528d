import io
import re

from moviegen.report import progress
from moviegen.report.progress import ProgressLines

BAR = "\rstage1-ab:  20%|██        | 2/10 [00:12<00:48, loss=0.5]"


def test_without_a_terminal_a_line_now_and_then_tells_what_remains(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    target = io.StringIO()
    lines = ProgressLines(target, "[ 6/12] Training")
    for clock[0] in (110.0, 129.0, 131.0, 140.0, 162.0):
        lines.write(BAR)
        lines.write("\r   \r")
        lines.write("")
    assert target.getvalue() == 2 * "[ 6/12] Training: stage1-ab:  20% 2/10 [00:12<00:48, loss=0.5]\n"


def test_a_bar_tells_that_a_silent_program_compiles(monkeypatch, capsys):
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)
    bar = progress.Progress("stage1-ab")
    bar({"kind": "loading", "step": 0})
    assert "stage1-ab: loading, 00:" in capsys.readouterr().out
    bar({"kind": "state", "step": 0})
    deadline = progress.time.monotonic() + 10
    told = ""
    while told.count("compiling, 00:") < 3:
        told += capsys.readouterr().out
        assert progress.time.monotonic() < deadline
        progress.time.sleep(0.02)
    bar({"kind": "validating", "step": 0})
    bar({"kind": "validation", "step": 0, "steps": 10, "loss": 0.5})
    capsys.readouterr()
    progress.time.sleep(0.1)
    assert "stage1-ab: compiling, 00:" in capsys.readouterr().out
    bar({"kind": "compile", "step": 1, "seconds": 9.0})  # which has ended, and is followed by the step it was for
    told = capsys.readouterr().out
    assert "it [" not in told and "it/s" not in told
    bar({"kind": "train", "step": 3, "steps": 10, "loss": 0.5})
    bar({"kind": "validating", "step": 3})
    bar({"kind": "train", "step": 4, "steps": 10, "loss": 0.5})
    bar.close()
    told = capsys.readouterr().out
    assert "stage1-ab:  30%" in told and "stage1-ab: validating:  30%" in told
    assert re.findall(r"stage1-ab:  *(\d+)%", told)[-1] == "40"
