import io

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
    bar({"kind": "state", "step": 0})
    deadline = progress.time.monotonic() + 10
    told = ""
    while told.count("compiling, 00:") < 3:
        told += capsys.readouterr().out
        assert progress.time.monotonic() < deadline
        progress.time.sleep(0.02)
    bar({"kind": "train", "step": 3, "steps": 10, "loss": 0.5})
    bar.close()
    assert "3/10" in capsys.readouterr().out
