import pytest

from moviegen import config, programs, runs
from moviegen.report import sections


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    monkeypatch.setattr("moviegen.programs.code_hash", lambda module: module)


def changed(overrides):
    """Names of the sections whose fingerprint these overrides change."""
    before, after = config.load("tiny"), config.load("tiny", overrides)
    return {
        section.name
        for section in sections.SECTIONS
        if sections.fingerprint(before, section) != sections.fingerprint(after, section)
    }


def test_sampling_parameters_change_sampling_and_what_shows_parameters():
    names = changed({"sample.steps": 10})
    assert "sampling" in names
    assert not names & {"data", "tae-training", "tae-evaluation", "training-1", "training-2", "training-3"}


def test_a_stages_parameters_change_that_stage_and_the_ones_after_it():
    names = changed({"stages.2.train.steps": 7})
    assert {"training-2", "training-3", "sampling"} <= names
    assert not names & {"data", "tae-training", "tae-evaluation", "training-1"}


def test_every_program_is_launched_by_the_report_and_each_section_names_only_programs():
    launched = {name for section in sections.SECTIONS for name in section.launches}
    assert launched == set(programs.PROGRAMS)
    assert {name for section in sections.SECTIONS for name in section.reads} <= launched


def test_programs_are_launched_after_those_they_build_on():
    launched = []
    for section in sections.execution_order():
        for name in section.launches:
            assert set(programs.find(name).upstream) <= {*launched, *section.launches}
            launched.append(name)
        assert set(section.reads) <= set(launched)


def test_a_section_is_current_until_a_run_it_shows_changes():
    params, section = config.load("tiny"), sections.SECTIONS[1]
    assert not sections.is_current(params, section)
    runs.write_json(section.executed(params), {"metadata": {"moviegen": sections.mark(params, section)}})
    assert sections.is_current(params, section)
    runs.write_json(runs.find(params, "data").folder / "manifest.json", {"status": "complete", "finished": "now"})
    assert not sections.is_current(params, section)


def test_unknown_notebooks_are_refused():
    with pytest.raises(KeyError, match="no notebook 'dta'"):
        sections.find("dta", None)
