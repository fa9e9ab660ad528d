import pytest


@pytest.fixture(autouse=True)
def outputs(tmp_path_factory, monkeypatch):
    """Hashes of files are remembered in the outputs folder: not in the user's."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
