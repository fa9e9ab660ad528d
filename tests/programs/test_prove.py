"""The scale proof: topics are measured once, kept as they are done, and what does not hold is said."""

import importlib
import sys
import types

import pytest

from moviegen import __main__, config
from moviegen.programs.prove import prove
from moviegen.proofs import records
from moviegen.proofs.proof import Proof, within


def proof(measured, predicted=100.0, share=0.1):
    return Proof("it fits", f"memory at {measured}", measured, predicted, *within(predicted, share), "MiB")


@pytest.fixture
def topics(tmp_path, monkeypatch):
    """Two topics of this test's; each counts how often it is measured, and what it yields can be set."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(records, "code", lambda topic: f"code of {topic}")
    monkeypatch.setattr(records, "TOPICS", {"one": "First", "two": "Second"})
    modules = {}
    for name in records.TOPICS:
        module = types.ModuleType(f"moviegen.proofs.{name}")
        module.found, module.asked = [proof(95.0)], 0

        def proofs(params, folder, module=module):
            assert not list(folder.iterdir())
            module.asked += 1
            for one in module.found:
                if isinstance(one, BaseException):
                    raise one
                yield one

        module.proofs = proofs
        monkeypatch.setitem(sys.modules, module.__name__, module)
        modules[name] = module
    return modules


@pytest.mark.parametrize(("measured", "holds"), [(90.0, True), (110.0, True), (111.0, False), (float("nan"), False)])
def test_a_claim_holds_within_its_bounds_and_never_where_nothing_was_measured(measured, holds):
    assert proof(measured).holds is holds
    assert ("does not hold" in str(proof(measured))) is not holds


def test_a_stopped_proof_goes_on_with_the_topic_that_was_not_done(topics):
    params = config.load("tiny")
    topics["two"].found = [proof(95.0), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        prove(params, records.TOPICS)
    assert records.read("two") is None
    topics["two"].found = [proof(120.0), proof(101.0)]
    assert [failed.measured for failed in prove(params, records.TOPICS)] == [120.0]
    assert topics["one"].asked == 1
    assert [one["holds"] for one in records.read("two")["proofs"]] == [False, True]


def test_a_topic_is_measured_again_for_other_code_and_other_parameters(topics, monkeypatch):
    params = config.load("tiny")
    prove(params, ["one"])
    prove(config.load("tiny", {"seed": 7}), ["one"])
    monkeypatch.setattr(records, "code", lambda topic: "changed")
    prove(config.load("tiny", {"seed": 7}), ["one"])
    assert topics["one"].asked == 3


def test_the_command_fails_and_names_what_does_not_hold(topics, capfd):
    assert __main__.main(["prove", "--assets", "none"]) == 0
    topics["two"].found = [proof(120.0)]
    records.path("two").unlink()
    assert __main__.main(["prove", "--assets", "none"]) == 2
    assert "memory at 120.0: 120 MiB, foretold 100; does not hold: it must be 90 to 110" in capfd.readouterr().err


def test_every_topic_is_a_module_that_measures():
    for topic in records.TOPICS:
        assert callable(importlib.import_module(f"moviegen.proofs.{topic}").proofs)
