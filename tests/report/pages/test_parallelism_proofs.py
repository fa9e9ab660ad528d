"""Proofs on the parallelism page."""

import pytest

from moviegen.proofs import records
from moviegen.proofs.proof import Proof
from moviegen.report import sections
from moviegen.report.pages import parallelism
from tests.report.making import cells

PROOFS = [
    Proof("a tile is enough", "peak memory at 64 frames", 812.4, 800.0, 720.0, 880.0, "MiB"),
    Proof("a tile is enough", "peak memory at 128 frames", 1612.0, 800.0, 720.0, 880.0, "MiB"),
    Proof("workers agree", "largest difference", 0.0, None, 0.0, 1e-5),
]


@pytest.fixture(autouse=True)
def one_topic(monkeypatch):
    monkeypatch.setattr(records, "TOPICS", {"tiles": "Tiles"})
    monkeypatch.setattr(records, "code", lambda topic: topic)


def test_without_a_record_nothing_is_claimed_and_the_command_is_named():
    page = parallelism.proven()
    assert list(cells(page)["measured"]) == ["not run yet: make scale-proof"]
    assert "make scale-proof" in page.data


def test_measured_foretold_and_verdict_stand_in_a_row_and_a_claim_once(params):
    records.write(params, "tiles", PROOFS, 75.0)
    page = parallelism.proven()
    rows = cells(page)
    assert "2 of 3 hold, measured in 1 min 15 s" in page.data
    assert list(rows["claim"].fillna("")) == ["a tile is enough", "", "workers agree"]
    assert list(rows["measured"]) == ["812 MiB", "1,612 MiB", "0"]
    assert list(rows["foretold"]) == ["800 MiB", "800 MiB", "-"]
    assert list(rows["must be"]) == ["720 to 880", "720 to 880", "0 to 1.00e-05"]
    assert list(rows["verdict"]) == ["holds", "does not hold", "holds"]


def test_a_record_of_other_code_is_said_to_be_one(params, monkeypatch):
    records.write(params, "tiles", PROOFS, 75.0)
    assert "has changed" not in parallelism.proven().data
    monkeypatch.setattr(records, "code", lambda topic: "another")
    assert "the code has changed since" in parallelism.proven().data


def test_the_page_is_stale_once_something_was_measured(params):
    section = sections.find("parallelism", None)
    before = sections.fingerprint(params, section)
    records.write(params, "tiles", PROOFS, 75.0)
    assert sections.fingerprint(params, section) != before


def test_what_only_cards_can_tell_is_named_beside_what_stands_for_it():
    rows = cells(parallelism.only_on_cards())
    assert len(rows) >= 6 and (rows["what stands for it"].str.len() > 20).all()
