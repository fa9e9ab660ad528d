import pytest

from moviegen import config, runs
from moviegen.data.datasets import Clip, save_index

CAPTIONS = ("a red car turns left", "a dog", "Ein Bär läuft")


@pytest.fixture
def text_run(tmp_path, monkeypatch):
    """A text run, not yet done, over a data run of three captions, one of them in both splits."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    params = config.load("smoke")
    root = tmp_path / "outputs" / "smoke" / "data"
    clips = [Clip(root / f"{i}.mp4", caption=caption) for i, caption in enumerate(CAPTIONS)]
    with runs.record(runs.find(params, "data")) as data:
        save_index(data.folder / "mixkit_train.csv", clips, root)
        save_index(data.folder / "mixkit_val.csv", clips[:1], root)
    return runs.find(params, "text")
