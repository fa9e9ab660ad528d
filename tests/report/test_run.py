from argparse import Namespace

import nbformat
import pytest

from moviegen import config
from moviegen.report import publish, run, sections


@pytest.fixture
def section(tmp_path, monkeypatch):
    """The data section with a small notebook in its place; returns (params, section, path of the notebook)."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr("moviegen.programs.code_hash", lambda module: module)
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
