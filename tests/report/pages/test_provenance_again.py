"""What the appendix says of a second report, and of training that was killed."""

import pytest

from moviegen.config import outputs_folder
from moviegen.proofs import records
from moviegen.report import sections
from moviegen.report.pages import provenance
from moviegen.runs.files import write_json
from tests.report.making import cells, finished, svg, words

CURVES = {"train": [[1, 2.5], [2, 2.25]], "validation": [[0, 2.5]]}


@pytest.fixture
def record(params):
    """Writes what was found of a job of two steps that was killed once."""

    def write(killed):
        folder = records.folder() / "killed"
        kept = {"undisturbed": {"losses": CURVES}, "killed": {"losses": killed}, "steps": 2, "kills": [{"step": 1}]}
        write_json(folder / records.KEPT, kept)
        records.write(params, "killed", [], 3.0)

    return write


def test_what_was_not_run_is_named_with_its_command(params):
    assert "not run yet: make reproduce SCALE=tiny" in words(provenance.compared(params))
    assert "not run yet: make scale-proof" in words(provenance.killed())
    records.write(params, "killed", [], 3.0)  # it keeps nothing
    assert "not run yet: make scale-proof" in words(provenance.killed())


def test_the_caption_says_whether_all_losses_are_equal(params, record):
    record(CURVES)
    shown = provenance.killed()
    assert "Loss over 1 kills, on the loss over none: all 3 losses are equal to the last bit" in shown.data
    assert "<svg" in svg(shown)
    record(CURVES | {"train": [[1, 2.5], [2, 2.2500000000000004]]})
    assert "1 of 3 losses differ" in provenance.killed().data
    record(CURVES | {"train": [[1, 2.5]]})
    assert "1 of 3 losses differ" in provenance.killed().data


def test_a_comparison_is_shown_and_one_of_other_runs_is_said_to_be_one(params):
    path, run = outputs_folder(params) / sections.COMPARISON, finished(params, "data")
    before = sections.fingerprint(params, sections.find("provenance", None))
    found = {"runs": [run.name], "values": 7339, "pictures": 61, "differing": {}}
    write_json(path, found)
    shown = provenance.compared(params)
    assert list(cells(shown)["count"]) == ["1", "7,339", "61", "0"]
    assert "changed since" not in shown.data
    assert sections.fingerprint(params, sections.find("provenance", None)) != before
    write_json(path, found | {"differing": {"stage1-0": 2, "data.html": 1}})
    assert list(cells(provenance.compared(params))["count"])[-1] == "3: stage1-0 and data.html"
    finished(params, "count")
    assert "changed since" in provenance.compared(params).data
