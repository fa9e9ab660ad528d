import numpy as np
import pytest

from moviegen import config
from moviegen.data import clips, videos
from moviegen.report.pages import data
from tests.report.making import finished


@pytest.mark.parametrize(
    "show",
    [
        lambda: data.clips(None),
        lambda: data.quarantine(None),
        lambda: data.stills(None, "mixkit_train.csv", 3, "Clips"),
    ],
)
def test_without_a_run_the_page_says_so(show):
    assert "not run here" in show().data


def test_stills_find_the_clips_in_the_data_folder(tmp_path):
    folder = tmp_path / "clips"
    videos.write_video(folder / "one.mp4", np.zeros((20, 32, 48, 3), np.uint8), 25)
    run = finished(config.load("tiny", {"data.root": str(folder)}), "data")
    clip = clips.Clip(folder / "one.mp4", caption="A black clip.", frames=20, height=32, width=48, fps=25.0)
    clips.save_index(run.folder / "mixkit_train.csv", [clip], folder)
    shown = data.stills(run, "mixkit_train.csv", 3, "Clips").data
    assert "data:image/jpeg" in shown
    assert "A black clip." in shown
    assert "cannot read" not in shown
