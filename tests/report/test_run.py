import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import nbformat
import psutil
import pytest

from moviegen import config
from moviegen.report import publish, run, sections


@pytest.fixture
def section(tmp_path, monkeypatch):
    """The data section with a small notebook in its place; returns (params, section, path of the notebook)."""
    source = tmp_path / "02_data.ipynb"
    monkeypatch.setattr(sections.Section, "source", source)
    return config.load("tiny"), sections.SECTIONS[1], source


def write(path, *cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)


def test_an_executed_notebook_holds_its_parameters_and_is_current(section):
    params, data, source = section
    write(source, "sample = None", "print('steps', sample['steps'])")
    run.execute_section(params, data)
    executed = nbformat.read(data.executed(params), as_version=4)
    assert executed.cells[-1].outputs[0].text == f"steps {params.sample.steps}\n"
    assert sections.is_current(params, data)
    write(source, "sample = None", "print('another notebook')")
    assert not sections.is_current(params, data)


def test_a_failing_notebook_is_kept_and_its_error_told(section, capsys):
    params, data, source = section
    write(source, "x = 0", "1 / x")
    with pytest.raises(run.SectionFailed, match="ZeroDivisionError") as error:
        run.execute_section(params, data)
    failed = data.executed(params).with_suffix(".failed.ipynb")
    assert str(failed) in str(error.value)
    assert failed.is_file()
    assert [path.name for path in failed.parent.iterdir()] == [failed.name]


def test_the_report_stops_at_a_failing_section_with_a_status(section, monkeypatch):
    params, _, source = section
    write(source, "x = 0", "1 / x")
    monkeypatch.setattr(publish, "publish", lambda params: pytest.fail("a failed report was published"))
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        run.main(params, Namespace(only_html=False))


ONE_SECTION = """
import sys
from pathlib import Path
from moviegen.__main__ import main
from moviegen.report import sections
sections.Section.source = Path(sys.argv[1])
sections.SECTIONS = sections.SECTIONS[1:2]
sys.exit(main(["report", "--config", "tiny"]))
"""
SLEEPING_JOB = """
from pathlib import Path
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
folder = Path({folder!r})
sleep = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
run_job(Job(("python", "-c", sleep, str(folder / "ready")), folder / "logs"))
"""


def test_a_report_that_is_terminated_leaves_neither_kernel_nor_job(tmp_path):
    source = tmp_path / "02_data.ipynb"
    write(source, "x = 0", SLEEPING_JOB.format(folder=str(tmp_path)))
    with subprocess.Popen(
        [sys.executable, "-c", ONE_SECTION, str(source)],
        env=os.environ | {"MOVIEGEN_OUTPUTS": str(tmp_path / "outputs")},
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    ) as report:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline, "the job did not start"
            assert report.poll() is None, report.stderr.read()
            time.sleep(0.1)
        below = psutil.Process(report.pid).children(recursive=True)
        assert len(below) >= 3  # kernel, guard, worker
        report.send_signal(signal.SIGTERM)
        _, errors = report.communicate(timeout=60)
    _, alive = psutil.wait_procs(below, timeout=10)
    for process in alive:
        process.kill()
    assert alive == []
    assert report.returncode == 130, errors
    assert "interrupted: nothing is left running" in errors


# --- a report with nothing to do ---

UP_TO_DATE = """
import json
from moviegen import config
from moviegen.report import publish, sections
params = config.load("tiny")
for section in sections.SECTIONS:
    metadata = {"moviegen": sections.mark(params, section)}
    content = {"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    section.executed(params).parent.mkdir(parents=True, exist_ok=True)
    section.executed(params).write_text(json.dumps(content))
publish.publish(params)
"""
NOTHING_TO_DO = """
import sys
from moviegen.__main__ import main
assert main(["report", "--config", "tiny"]) == 0
slow = {"IPython", "PIL", "matplotlib", "mindspore", "nbconvert", "nbformat", "pandas", "papermill", "pygments"}
print("slow modules:", *sorted(slow & set(sys.modules)))
"""


def test_nothing_slow_is_imported_where_there_is_nothing_to_do(tmp_path):
    outputs = []
    for program in (UP_TO_DATE, NOTHING_TO_DO):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"MOVIEGEN_OUTPUTS": str(tmp_path / "outputs")},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[1].count(": unchanged\n") == len(sections.SECTIONS)
    assert outputs[1].endswith("slow modules:\n")
