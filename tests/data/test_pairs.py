"""Which files a command names, and where the result of each goes."""

from pathlib import Path

import pytest

from moviegen.config import ConfigError
from moviegen.data.pairs import pairs_of
from moviegen.runs.folders import is_video


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.MOV", "notes.txt", "deep/c.mp4", "deep/er/d.avi", "[1].mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def results(*inputs, output="out"):
    pairs = pairs_of(inputs, Path(output), is_video, ".npz")
    return {str(file): str(target) for file, target in pairs.items()}


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        (["a.mp4"], {"a.mp4": "out"}),
        (["[1].mp4"], {"[1].mp4": "out"}),  # a file of that name is no pattern
        (["missing.mp4"], {"missing.mp4": "out"}),  # named when it is opened
        (["a.mp4", "notes.txt"], {"a.mp4": "out/a.npz", "notes.txt": "out/notes.npz"}),  # whoever names a file wants it
        (["deep"], {"deep/c.mp4": "out/c.npz", "deep/er/d.avi": "out/er/d.npz"}),
        (["?.*"], {"a.mp4": "out/a.npz", "b.MOV": "out/b.npz"}),
        (["deep/**/*.avi"], {"deep/er/d.avi": "out/er/d.npz"}),
        (["deep", "deep/c.mp4"], {"deep/c.mp4": "out/c.npz", "deep/er/d.avi": "out/er/d.npz"}),
    ],
)
def test_results_are_named_below_the_folder_that_was_named(inputs, wanted):
    assert results(*inputs) == wanted


@pytest.mark.usefixtures("there")
def test_what_names_nothing_or_one_result_twice_is_refused():
    Path("empty").mkdir()
    for given in ("empty", "*.webm"):
        with pytest.raises(ConfigError, match="has no file to take"):
            results(given)
    Path("deep/a.mov").touch()
    with pytest.raises(ConfigError, match=r"a\.mp4 and .*a\.mov would both become .*a\.npz"):
        results("a.mp4", "deep")
