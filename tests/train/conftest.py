import pytest

from moviegen import device


@pytest.fixture(autouse=True, scope="session")
def graph_mode():
    device.start(0)
