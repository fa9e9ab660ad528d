import hashlib
from pathlib import Path

import nbformat
import pytest

from moviegen.config import project_root
from moviegen.report import markup, published
from moviegen.report.derive import Derivation
from moviegen.report.pages import provenance, sampling
from moviegen.runs import hashes
from tests.report.making import cells, finished, sampled, section, write_executed


def test_the_appendix_lists_what_was_shown(params):
    run = sampled(params)
    write_executed(params, "sampling", sampling.clips(run, None, "unseen"))
    listed = provenance.figures_and_runs(params).data
    assert run.name in listed
    assert "Generated clips beside the clip of the same caption" in listed
    shown = provenance.details([run, None]).data
    assert f'id="{run.name}" open>' in shown  # what links to the run must not end at something folded


def test_published_numbers_of_the_text_are_listed_with_their_sources():
    shown = cells(provenance.facts()).set_index("words")["source"]
    assert shown["100 clips of up to 1080p"] == published.ORIGINAL
    assert set(shown.index) <= {fact.words for fact in published.FACTS}


def test_a_run_is_listed_with_the_operators_that_computed_it(params):
    run = finished(params, "text", operators="compiled (x86-64-v4, 2 threads)")
    assert "<dt>operators</dt><dd>compiled (x86-64-v4, 2 threads)</dd>" in provenance.details([run]).data
    older = finished(params, "data")  # computes nothing
    assert "<dt>operators</dt><dd>-</dd>" in provenance.details([older]).data


@pytest.mark.parametrize(
    ("facts", "said"),
    [({"deterministic": True}, "asked for"), ({"deterministic": False}, "not asked for: on cards"), ({}, "-")],
)
def test_a_run_says_whether_its_bits_were_to_repeat(facts, said, params):
    run = finished(params, "text", **facts)
    assert f"<dt>deterministic</dt><dd>{said}" in provenance.details([run]).data


def test_a_run_is_listed_with_its_inputs_seed_and_how_to_compute_it_again(params):
    details = provenance.details([finished(params, "data", commit="abc")]).data
    film = hashes.file_hash(project_root() / "params" / "big_buck_bunny.csv")
    assert f"<dt>inputs</dt><dd>params/big_buck_bunny.csv ({film})</dd><dt>seed</dt><dd>42</dd>" in details
    assert "<pre>git checkout abc\nmake setup\n.venv/bin/python -m moviegen report --config tiny</pre>" in details
    assert hashlib.sha256((project_root() / "requirements.lock").read_bytes()).hexdigest() in details


def test_numbers_are_counted_where_they_come_out_again(params, monkeypatch):
    write_executed(params, "data", markup.card("<td>0.5</td><td>1.25</td>", "one"), markup.card("<td>7</td>", "two"))
    again = nbformat.read(section("data").executed(params), as_version=4)
    again.cells[2].outputs[0].data["text/html"] = markup.card("<td>8</td>", "two").data
    monkeypatch.setattr(provenance.sections, "is_current", lambda params, section: section.name == "data")
    file = Path("runs/data-0/summary.json")
    monkeypatch.setattr(provenance, "derive", lambda *_: Derivation(again, ((), (file,), ())))
    counted = provenance.numbers(params)
    assert "2 of 3 numbers traced" in counted.data
    assert cells(counted).set_index("page").filter(like="Data", axis=0)["numbers"].item() == "2 of 3"
    others = cells(counted).set_index("page")["numbers"].drop(cells(counted)["page"][1])
    assert all(said.startswith("not run yet: open 0") for said in others)


def test_a_page_that_was_not_derived_says_why(params, monkeypatch):
    def said():
        rows = cells(provenance.numbers(params)).set_index("page")
        return rows.filter(like="Data", axis=0)["numbers"].item()

    assert said() == "not run yet: open 02_data.ipynb"
    finished(params, "data")
    assert said() == "older than its runs: open 02_data.ipynb"
    section("data").failed(params).parent.mkdir(parents=True)
    section("data").failed(params).write_text('{"cells": []}')
    assert said() == "failed: its page says where"


def test_of_a_failed_section_what_its_page_shows_is_listed(params):
    write_executed(params, "data", markup.card("<td>1</td>", "of an earlier run"))
    section("data").executed(params).rename(section("data").failed(params))
    write_executed(params, "data", markup.card("<td>1</td>", "that came before"))
    listed = provenance.figures_and_runs(params).data
    assert "of an earlier run" in listed and "that came before" not in listed


def test_figures_name_the_files_that_were_read_and_the_cell(params, monkeypatch):
    run = sampled(params)
    write_executed(params, "sampling", sampling.clips(run, None, "unseen"))
    monkeypatch.setattr(provenance.sections, "is_current", lambda params, section: section.name == "sampling")
    read = (
        (),
        (
            run.folder / "samples.csv",
            run.folder / "latents/00.npz",
            run.folder / "manifest.json",
            Path("runs/other-0/x.csv"),
        ),
    )
    monkeypatch.setattr(provenance, "derive", lambda *_: Derivation(None, read))
    (row,) = cells(provenance.figures_and_runs(params)).to_dict("records")
    assert row["runs, and the files read"].endswith("</a> (samples.csv, latents/00.npz)")
    assert row["cell"] == "07_sampling.ipynb, show"


def test_the_appendix_does_not_follow_from_an_earlier_one(params):
    write_executed(params, "sampling", markup.card("<td>1</td>", "of sampling"))
    before = provenance.figures_and_runs(params).data, provenance.numbers(params).data
    write_executed(params, "provenance", markup.card("<td>2</td>", "of the appendix"))
    assert (provenance.figures_and_runs(params).data, provenance.numbers(params).data) == before
    assert "of sampling" in before[0]
