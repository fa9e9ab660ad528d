"""CITATION.cff and codemeta.json say of the project what pyproject.toml says."""

import json
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CODEMETA = json.loads((ROOT / "codemeta.json").read_text())


def test_they_agree_with_the_project_and_each_other():
    assert CITATION["version"] == CODEMETA["version"] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]
    assert CODEMETA["license"] == f"https://spdx.org/licenses/{PROJECT['license']}"
    assert CITATION["abstract"] == CODEMETA["description"] == PROJECT["description"]
    assert CODEMETA["identifier"] == PROJECT["name"]
    readme = (ROOT / CODEMETA["readme"]).read_text()
    assert CITATION["title"] == CODEMETA["name"] == readme.splitlines()[0].removeprefix("# ")
    (cited,), referred = CITATION["references"], CODEMETA["referencePublication"]
    assert (cited["title"], cited["url"]) == (referred["name"], referred["url"])
    for link in (referred["url"], "CITATION.cff", "LICENSE"):
        assert f"]({link})" in readme, link
    assert [one["name"] for one in CITATION["authors"]] == [one["name"] for one in CODEMETA["author"]]
    assert CITATION["keywords"] == CODEMETA["keywords"]
    assert f"=={CODEMETA['programmingLanguage']['version']}.*" == PROJECT["requires-python"]
    (mindspore,) = (one for one in PROJECT["dependencies"] if one.startswith("mindspore=="))
    assert CODEMETA["runtimePlatform"] == f"MindSpore {mindspore.removeprefix('mindspore==')}"


def test_they_have_what_their_schemas_ask_for():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert {"message", "title", "authors"} <= set(CITATION)
    assert CODEMETA["@context"] == "https://w3id.org/codemeta/3.0"
    assert CODEMETA["@type"] == "SoftwareSourceCode"
