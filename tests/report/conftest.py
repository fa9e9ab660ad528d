"""Each test has an outputs folder of its own, where a module's code counts as its name; nothing is fetched into it."""

import functools

import pytest

from moviegen import config
from moviegen.report import notebook
from moviegen.runs import fingerprint


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(fingerprint, "code_hash", functools.cache(lambda module, without=(): module))
    monkeypatch.setattr(fingerprint, "packages", functools.cache(lambda module: {}))
    monkeypatch.setattr(notebook, "provided", lambda read: read())
    fingerprint.forget()
    yield tmp_path
    fingerprint.forget()  # other tests' modules count by their code


@pytest.fixture
def params():
    return config.load("tiny")
