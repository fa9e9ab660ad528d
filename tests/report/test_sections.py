import functools
import importlib

import grimp
import pytest

from moviegen import config, runs
from moviegen.report import provenance, sections
from moviegen.runs import files, fingerprint, hashes, registry
from tests.report.making import finished


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


def test_what_is_used_in_the_place_of_a_program_counts_and_the_program_does_not(tmp_path):
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.npz").write_bytes(b"the same latents")
    one, another = (
        config.load("tiny", {"stages.2.dataset.tae_latent_folder": str(tmp_path / name)}) for name in ("one", "another")
    )
    same = config.load("tiny", {"stages.2.dataset.tae_latent_folder": str(tmp_path / "one"), "tae.mixkit.steps": 9})
    first, second, third = (section for section in sections.SECTIONS if section.topic == "training")
    assert "latents" in first.programs(one)
    assert second.programs(one) == ("text", "stage2")
    assert runs.find(one, "stage2").name == runs.find(another, "stage2").name
    assert sections.fingerprint(one, second) != sections.fingerprint(another, second)  # its page names the folder
    assert sections.fingerprint(one, third) == sections.fingerprint(another, third)
    assert runs.find(one, "latents").name != runs.find(same, "latents").name
    assert set(sections.state(one, second)) == {runs.find(one, name).name for name in ("text", "stage2")}


def test_a_program_without_anything_to_do_is_no_part_of_a_page():
    sampling, appendix = (
        next(one for one in sections.SECTIONS if one.name == name) for name in ("sampling", "provenance")
    )
    weights = {"shipped.tae": "tae.safetensors", "shipped.transformer": "transformer.safetensors"}
    named, without = config.load("tiny", weights), config.load("tiny", dict.fromkeys(weights, ""))
    for section in (sampling, appendix):
        assert "shipped" in section.programs(named)
        assert set(section.programs(named)) - set(section.programs(without)) == {"shipped"}
    assert sections.fingerprint(named, sampling) != sections.fingerprint(without, sampling)


def test_content_of_shipped_weights_changes_sampling_and_no_training(tmp_path):
    before = after = None
    for content in (b"one", b"another"):
        for name in ("tae", "transformer"):
            (tmp_path / name).write_bytes(content)
        fingerprint.forget()
        params = config.load("tiny", {f"shipped.{name}": str(tmp_path / name) for name in ("tae", "transformer")})
        found = {section.name: sections.fingerprint(params, section) for section in sections.SECTIONS}
        before, after = after, found
    assert {name for name in after if after[name] != before[name]} == {"overview", "sampling", "provenance"}


@pytest.mark.parametrize("topic", sorted({section.topic for section in sections.SECTIONS} - {"provenance"}))
def test_code_of_a_page_changes_that_page_and_the_appendix(monkeypatch, params, topic):
    before = {section.name: sections.fingerprint(params, section) for section in sections.SECTIONS}
    edited = f"moviegen.report.pages.{topic}"
    code_hash = functools.cache(lambda module, without=(): f"{module}, edited" if module == edited else module)
    monkeypatch.setattr(fingerprint, "code_hash", code_hash)
    changed = {
        section for section in sections.SECTIONS if sections.fingerprint(params, section) != before[section.name]
    }
    assert {section.topic for section in changed} == {topic, "provenance"}  # which lists what all others show


def test_a_card_that_is_described_otherwise_changes_every_page(monkeypatch, params):
    before = [sections.fingerprint(params, section) for section in sections.SECTIONS]
    real = hashes.file_hash
    monkeypatch.setattr(hashes, "file_hash", lambda path: "edited" if path.name == "cards.yaml" else real(path))
    after = [sections.fingerprint(params, section) for section in sections.SECTIONS]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_code_of_a_page_is_its_own_module_and_what_is_shared():
    graph, pages = grimp.build_graph("moviegen", cache_dir=None), {section.code for section in sections.SECTIONS}
    parts = graph.find_children("moviegen.report.pages") - pages
    assert graph.find_children("moviegen.report.pages") >= pages
    assert {part.rpartition("_")[0] for part in parts} <= pages  # a page's parts begin with its name
    assert not graph.find_upstream_modules(sections.NOTEBOOK_CODE) & pages
    for page in pages:
        importlib.import_module(page)
        assert not graph.find_upstream_modules(page) & pages


def test_every_program_is_launched_by_the_report_and_each_section_names_only_programs():
    launched = {name for section in sections.SECTIONS for name in section.launches}
    assert launched == set(registry.PROGRAMS)
    assert {name for section in sections.SECTIONS for name in section.reads} <= launched


def test_programs_are_launched_after_those_they_build_on():
    launched = []
    for section in sections.execution_order():
        for name in section.launches:
            assert set(registry.find(name).upstream) <= {*launched, *section.launches}
            launched.append(name)
        assert set(section.reads) <= set(launched)


def test_a_section_is_current_until_a_run_it_shows_changes():
    params, section = config.load("tiny"), sections.SECTIONS[1]
    assert not sections.is_current(params, section)
    files.write_json(section.executed(params), {"metadata": {"moviegen": sections.mark(params, section)}})
    assert sections.is_current(params, section)
    files.write_json(runs.find(params, "data").folder / "manifest.json", {"status": "complete", "finished": "now"})
    assert not sections.is_current(params, section)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"metadata": 3}'])
def test_a_damaged_notebook_is_not_current(params, content):
    section = sections.SECTIONS[0]
    path = section.executed(params)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    assert not sections.is_current(params, section)


def test_unknown_notebooks_are_refused():
    with pytest.raises(KeyError, match="no notebook 'dta'"):
        sections.find("dta", None)


def test_what_is_not_there_names_its_notebook_or_the_lack_of_cards(params):
    assert provenance.why_absent(params, "data") == "not run yet: open 02_data.ipynb"
    assert provenance.why_absent(params, "stage3") == "not run yet: open 06_training.ipynb, stage 3"
    assert provenance.why_absent(config.load("5B"), "stage3") == "not run here"
    given = config.load("tiny", {"tae.tae_checkpoint": "mine.safetensors"})
    assert provenance.why_absent(given, "tae-opl-on") == "mine.safetensors is used instead"
    assert provenance.why_absent(params, "stage3", finished(params, "stage3")) == "not recorded"
