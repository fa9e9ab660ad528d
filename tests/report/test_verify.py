from argparse import Namespace

import nbformat
import pytest

from moviegen import config
from moviegen.config import ConfigError
from moviegen.report import crate, publish, run, sections, verify
from moviegen.report.derive import derive
from tests.report.making import section

SHOW = """
import json
from IPython.display import HTML
from moviegen.config import outputs_root
def shown(name):
    value = json.loads((outputs_root() / "tiny" / "runs" / "data-0" / name).read_text())["loss"]
    return HTML(f'<figure class="card" data-runs="data-0"><table><tr><td>{value:.2f}</td></tr></table></figure>')
"""


@pytest.fixture
def site(params, tmp_path, monkeypatch):
    """A published site of one section, whose notebook shows a number of a run; returns (folder, the run's file)."""
    data, source = section("data"), tmp_path / "02_data.ipynb"
    for module in (sections, publish):
        monkeypatch.setattr(module, "SECTIONS", (data,))
    monkeypatch.setattr(sections.Section, "source", source)
    cells = ("seed = None", SHOW, 'shown("summary.json")', "assert seed == 42")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells.append(nbformat.v4.new_markdown_cell("# A kernel\n\nIt is of 3 x 3."))
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, source)
    file = config.outputs_folder(params) / "runs" / "data-0" / "summary.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"loss": 0.127}')
    run.execute_section(params, data)
    return publish.publish(params).parent, file


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def verified(params, capsys):
    """What is printed, and whether it failed."""
    try:
        verify.main(params, Namespace(against=None))
    except SystemExit as error:
        return capsys.readouterr().out + str(error), True
    return capsys.readouterr().out, False


def test_numbers_are_traced_to_the_run_and_what_was_edited_is_found(site, params, capsys):
    folder, file = site
    page = folder / "data.html"
    assert verified(params, capsys) == (
        "data.html: 1 of 1 numbers, 0 of 0 pictures and clips traced\nall pages: 1 of 1 numbers traced\n",
        False,
    )
    assert derive(params, section("data")).read[3] == (file,)  # parameters, papermill's, what it imports: before it

    for edited, old, new, said in (
        (page, "<td>0.13</td>", "<td>0.12</td>", "'0.12' is, derived again, '0.13'"),
        (file, "0.127", "0.134", "'0.13' is, derived again, '0.13'"),  # rounds to the same: nothing that is shown
        (file, "0.127", "0.137", "'0.13' is, derived again, '0.14'"),
        (page, "3 x 3", "5 x 5", "5 x 5"),
        (folder / "style.css", "h2, h3 { break-after: avoid; }", "", "style.css"),
    ):
        before = edited.read_text()
        edit(edited, old, new)
        printed, failed = verified(params, capsys)
        assert failed == (new != "0.134"), said
        assert not failed or (said in printed and "error: " in printed)
        edited.write_text(before)

    crate.write(params)
    assert not verified(params, capsys)[1]
    for name in ("left.html", "media/left.mp4"):
        left = folder / name
        left.parent.mkdir(exist_ok=True)
        left.touch()
        printed, failed = verified(params, capsys)
        assert failed and f"{left} is not there when the site is made again" in printed
        left.unlink()

    executed = section("data").executed(params)
    edit(executed, "<td>0.13</td>", "<td>0.11</td>")  # the page says so too
    publish.publish(params)
    assert "'0.11' is, derived again, '0.13'" in verified(params, capsys)[0]

    page.unlink()
    with pytest.raises(ConfigError, match="no page is published"):
        verify.verify(params)


def test_what_is_older_than_its_notebook_is_refused(site, params):
    edit(section("data").source, "3 x 3", "1 x 1")
    with pytest.raises(ConfigError, match=r"Data: older .* run `make report`"):
        verify.verify(params)
