import pytest

from moviegen.device import compiled


@pytest.fixture(params=[compiled.COMPILED, compiled.MINDSPORE])
def form(request, eager, monkeypatch):
    """Cells made from now on compute in this form."""
    if request.param == compiled.COMPILED and not compiled.is_compiled():
        pytest.skip("MindSpore's own operators are chosen")
    monkeypatch.setenv(compiled.CHOICE, request.param)
    return request.param
