import pytest

from moviegen.report import published
from moviegen.report.pages import provenance, sampling
from tests.report.making import cells, finished, sampled, write_executed


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
