import os
import pwd
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import nbformat
import psutil
import pytest

import moviegen
from moviegen import config
from moviegen.report import publish, run, sections
from moviegen.report.pages import sampling


@pytest.fixture
def section(tmp_path, monkeypatch):
    """The data section with a small notebook in its place; returns (params, section, path of the notebook).

    Both folders are named so that papermill would look for a parameter of that name.
    """
    source = tmp_path / "{a checkout}" / "02_data.ipynb"
    source.parent.mkdir()
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "{0}"))
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


def test_a_kernel_that_is_killed_is_named_and_its_notebook_kept(section):
    params, data, source = section
    write(source, "x = 0", "print('so far')", "import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(run.SectionFailed, match=r"the kernel of 02_data\.ipynb is gone \(Kernel died\)") as error:
        run.execute_section(params, data)
    assert "memory ran out" in str(error.value)
    failed = data.executed(params).with_suffix(".failed.ipynb")
    assert str(failed) in str(error.value)
    assert nbformat.read(failed, as_version=4).cells[2].outputs[0].text == "so far\n"
    assert not sections.is_current(params, data)


START_UP = "print('a start-up file'); sample = None"


@pytest.fixture
def own_jupyter(tmp_path, monkeypatch):
    """A reader's Jupyter, IPython and matplotlib: a `python3`, start-up files, a style and a back end of theirs."""
    home = tmp_path / "home"
    kernels, profile = home / "jupyter" / "kernels" / "python3", home / ".ipython" / "profile_default"
    for folder in (kernels, profile / "startup"):
        folder.mkdir(parents=True)
    (kernels / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "mine", "language": "python"}')
    (profile / "startup" / "mine.py").write_text(START_UP)
    (profile / "ipython_config.py").write_text(f"get_config().InteractiveShellApp.exec_lines = [{START_UP!r}]")
    (home / "python_startup.py").write_text(START_UP)
    (home / "matplotlibrc").write_bytes(b"axes.facecolor: black # \xff, which is not UTF-8\n")
    (home / "file").touch()
    variables = {
        "HOME": home,
        "IPYTHONDIR": home / ".ipython",
        "JUPYTER_PATH": home / "jupyter",
        "JUPYTER_PREFER_ENV_PATH": 0,
        "JUPYTER_RUNTIME_DIR": home / "file" / "no-folder",
        "MATPLOTLIBRC": home / "matplotlibrc",
        "MPLBACKEND": "none of matplotlib's",
        "MPLCONFIGDIR": home / "file" / "no-folder",
        "PYTHONSTARTUP": home / "python_startup.py",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_a_notebook_is_executed_by_this_interpreter_and_knows_nothing_of_the_readers_own(section, own_jupyter):
    params, data, source = section
    draw = "from moviegen.report import notebook\nfrom moviegen.report.pages import sampling\n"
    draw += "print(sampling.schedules(sample['steps']).data)"
    own = "import sys, moviegen\nprint(sys.executable, moviegen.__file__)"
    write(source, "sample = None", own, draw)
    run.execute_section(params, data)
    *_, interpreter, figure = nbformat.read(data.executed(params), as_version=4).cells
    assert [output.text for output in interpreter.outputs] == [f"{sys.executable} {moviegen.__file__}\n"]
    assert [output.text for output in figure.outputs] == [f"{sampling.schedules(params.sample.steps).data}\n"]


FAILING = """
from moviegen.launch.watch import WorkerError
from pathlib import Path
said = 'Traceback:\\n  File "a.py", line 1, in main\\n\\x1b[31mValueError: no <such> clip\\x1b[0m'
print("\\r" + "|" * 3)
raise WorkerError("0", "failed", said, Path("worker_0.log"), 1)
"""


def test_a_report_with_a_failing_section_is_published_names_the_place_and_ends_with_a_status(
    section, monkeypatch, capsys
):
    params, data, source = section
    monkeypatch.setattr(publish, "SECTIONS", (data,))
    monkeypatch.setattr(sections, "SECTIONS", (data,))
    write(source, "x = 0", FAILING)
    with pytest.raises(
        SystemExit, match=r"02_data\.ipynb, In \[3\]: from moviegen\.launch.*\nValueError: no <such> clip\n"
    ):
        run.main(params, Namespace(only_html=False))
    assert "Data: FAILED in 02_data.ipynb, In [3]" in capsys.readouterr().out
    page = (config.outputs_folder(params) / "html" / data.page).read_text()
    assert "<pre><b>ValueError: no &lt;such&gt; clip</b></pre>" in page
    assert "\x1b" not in page
    assert "papermill" not in page.lower()
    assert "|||" not in page  # a bar
    write(source, "x = 0", "print('mended')")
    monkeypatch.setattr(sections, "waiting", lambda params, section: {})
    run.main(params, Namespace(only_html=False))
    page = (config.outputs_folder(params) / "html" / data.page).read_text()
    assert "mended" in page
    assert "ValueError" not in page
    assert not data.failed(params).exists()


DAMAGED = """
from pathlib import Path
from types import SimpleNamespace
from moviegen.report import results
results.read_csv(SimpleNamespace(folder=Path({folder!r})), "quarantine.csv")
"""


def test_a_damaged_table_is_named_in_the_place_of_its_card_and_the_rest_of_its_page_is_there(
    section, monkeypatch, capsys
):
    params, data, source = section
    for module in (publish, sections):
        monkeypatch.setattr(module, "SECTIONS", (data,))
    (source.parent / "quarantine.csv").write_text("path,kind,reason\na.mp4,<mixkit>\n")
    write(source, "x = 0", "print('before')", DAMAGED.format(folder=str(source.parent)), "print('after')")
    said = r"In \[4\]: from pathlib import Path\nDamagedFile: .*quarantine\.csv is damaged \(line 2 has 2 of 3 values\)"
    with pytest.raises(SystemExit, match=said):
        run.main(params, Namespace(only_html=False))
    page = (config.outputs_folder(params) / "html" / data.page).read_text()
    assert page.index("before") < page.index("This cannot be shown:") < page.index("after")
    assert page.count("line 2 has 2 of 3 values") == 1
    assert "This section failed" not in page and "Traceback" not in page
    assert not sections.is_current(params, data)


def test_a_user_without_a_home_folder_has_a_report(section, monkeypatch, capsys):
    params, data, source = section
    write(source, "x = 0", "import pathlib\nprint(pathlib.Path.home())")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda user: {}[user])
    monkeypatch.setattr(sections, "SECTIONS", [data])
    publish._exporter.cache_clear()
    run.main(params, Namespace(only_html=False))
    assert "moviegen-home-" in nbformat.read(data.executed(params), as_version=4).cells[-1].outputs[0].text
    assert "HOME" not in os.environ


ONE_SECTION = """
import sys
from pathlib import Path
from moviegen.__main__ import main
from moviegen.report import sections
sections.Section.source = Path(sys.argv[1])
sections.SECTIONS = sections.SECTIONS[1:2]
sys.exit(main(["report", "--config", "tiny", "--assets", "none"]))
"""
SLEEPING_JOB = """
from pathlib import Path
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
folder = Path({folder!r})
sleep = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
run_job(Job(("python", "-c", sleep, str(folder / "ready")), folder / "logs"))
"""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (signal.SIGTERM, 130),
        pytest.param(signal.SIGHUP, 130, marks=pytest.mark.whole_job),  # its terminal was closed
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.whole_job),
    ],
)
def test_a_report_that_is_ended_leaves_neither_kernel_nor_job(sent, status, tmp_path):
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
        report.send_signal(sent)
        _, errors = report.communicate(timeout=60)
    _, alive = psutil.wait_procs(below, timeout=10)
    for process in alive:
        process.kill()
    assert alive == []
    assert report.returncode == status, errors
    assert ("interrupted: nothing is left running" in errors) == (status == 130)


# --- a report with nothing to do ---

UP_TO_DATE = """
import json
from moviegen import config, runs
from moviegen.report import publish, sections
from moviegen.runs import files, registry
params = config.load("tiny", {"assets": "none"})
for name in registry.PROGRAMS:
    files.write_json(runs.find(params, name).folder / "manifest.json", {"status": "complete", "finished": "now"})
for section in sections.SECTIONS:
    metadata = {"moviegen": sections.mark(params, section)}
    content = {"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    section.executed(params).parent.mkdir(parents=True, exist_ok=True)
    section.executed(params).write_text(json.dumps(content))
publish.publish(params)
publish.publish_scales()
"""
NOTHING_TO_DO = """
import sys
from moviegen.__main__ import main
assert main(["report", "--config", "tiny", "--assets", "none"]) == 0
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
