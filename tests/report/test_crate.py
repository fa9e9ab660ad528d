"""What RO-Crate 1.1 and the Process Run Crate profile ask for: https://www.researchobject.org/ro-crate/1.1/structure"""

import json

import pytest
from IPython.display import HTML

from moviegen.report import crate, publish
from tests.report.making import finished, sampled, write_executed

PROFILE = "https://w3id.org/ro/wfrun/process/0.1"
MACHINE = {"cpu": "a CPU", "cores": 2, "memory_bytes": 2**30, "system": "Linux"}


@pytest.fixture
def described(params):
    """The graph by `@id`, of a site with two runs."""
    data = finished(
        params,
        "data",
        started="2025-12-31T23:59:00Z",
        commit="abc",
        parameters={"data": {"fps": None}},
        machine=MACHINE,
        seconds=60.0,
        versions={"numpy": "1.26.4"},
    )
    sample = sampled(params)
    manifest = json.loads((sample.folder / "manifest.json").read_text())
    manifest |= {"started": "2025-12-31T00:00:00Z", "upstream": {"data": data.name}}
    (sample.folder / "manifest.json").write_text(json.dumps(manifest))
    write_executed(params, "data", HTML("<p>1</p>"))
    publish.publish(params)
    content = json.loads(crate.write(params).read_text())
    assert content["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    return {entity["@id"]: entity for entity in content["@graph"]}, content["@graph"], data, sample


def references(value):
    if isinstance(value, list):
        return [name for one in value for name in references(one)]
    return [value["@id"]] if isinstance(value, dict) and set(value) == {"@id"} else []


def test_the_descriptor_names_the_root_and_the_version(described):
    graph, *_ = described
    assert graph["ro-crate-metadata.json"] == {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }
    root = graph["./"]
    assert root["@type"] == "Dataset"
    assert all(root[name] for name in ("name", "description", "datePublished", "license"))
    assert root["conformsTo"] == {"@id": PROFILE}
    assert graph[PROFILE]["@type"] == "CreativeWork"


def test_entities_are_flat_named_once_and_there(described):
    graph, entities, *_ = described
    assert len(graph) == len(entities)
    for entity in entities:
        assert entity["@type"]
        for name in (one for value in entity.values() for one in references(value)):
            assert name in graph or name == "https://w3id.org/ro/crate/1.1", f"{entity['@id']}: {name}"
        nested = [one for value in entity.values() for one in (value if isinstance(value, list) else [value])]
        assert all(set(one) == {"@id"} for one in nested if isinstance(one, dict))


def test_every_file_of_the_site_is_a_part(described, params):
    graph, *_ = described
    site = publish.publish(params).parent
    there = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    parts = references(graph["./"]["hasPart"])
    assert set(parts) == there - {"ro-crate-metadata.json"}
    assert {graph[name]["@type"] for name in parts} == {"File"}


def test_each_action_says_with_what_from_what_and_when(described):
    graph, entities, data, sample = described
    actions = [entity for entity in entities if entity["@type"] == "CreateAction"]
    assert sorted(references(graph["./"]["mentions"])) == sorted(one["@id"] for one in actions)
    for action in actions:
        (instrument,) = references(action["instrument"])
        assert graph[instrument]["@type"] == "SoftwareApplication"
        assert references(action["result"])
        assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
        if action["@id"].startswith("#run-"):
            assert action["startTime"] < action["endTime"] == "2026-01-01T00:00:00Z"
            assert references(action["object"])
    made = graph[f"#run-{sample.name}"]
    assert f"#{data.name}" in references(made["object"])
    assert references(made["result"]) == [f"#{sample.name}"]
    assert references(graph["#page-data"]["object"]) == [f"#{data.name}"]
    assert references(graph["#page-data"]["result"]) == ["data.html"]


def test_a_runs_seed_parameters_machine_and_inputs_are_there(described):
    graph, _, data, _ = described
    assert json.loads(graph[f"#{data.name}/parameters"]["value"]) == {"seed": 42, "data": {"fps": None}}
    assert json.loads(graph[f"#{data.name}/machine"]["value"]) == MACHINE
    assert graph[f"#{data.name}/seconds"]["value"] == "60.0"
    used = [graph[name] for name in references(graph[f"#run-{data.name}"]["object"])]
    (film,) = (one for one in used if one["name"] == "params/big_buck_bunny.csv")
    assert len(film["identifier"]) >= 16
    assert graph["#program-data"]["softwareVersion"] == "abc"


def test_the_same_runs_are_described_by_the_same_bytes(described, params):
    path = publish.publish(params).parent / crate.FILE
    before = path.read_bytes()
    path.unlink()
    assert crate.write(params).read_bytes() == before
