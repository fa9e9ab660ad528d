"""MindSpore is loaded after moviegen has set its environment, and before any test loads decord (see data/videos.py)."""
# ruff: noqa: I001

import moviegen
import mindspore  # noqa: F401
import pytest


@pytest.fixture(autouse=True, scope="session")
def graph_mode():
    """Every test that computes does so as the programs do; MindSpore takes its device once."""
    moviegen.device.start(0)
