import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from moviegen import config
from moviegen.data import clips, videos
from moviegen.report import media
from moviegen.report.pages import data
from moviegen.runs import files
from tests.report.making import cells, finished, words


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


def test_stills_of_a_clip_with_a_stride_span_all_of_it(tmp_path):
    folder = tmp_path / "clips"
    frames = np.repeat(np.linspace(0, 255, 30).astype(np.uint8), 32 * 48 * 3).reshape(30, 32, 48, 3)
    videos.write_video(folder / "one.mp4", frames, 60)
    whole = clips.Clip(folder / "one.mp4", frames=30, height=32, width=48, fps=60.0)
    taken = clips.Clip(folder / "one.mp4", frames=10, height=32, width=48, fps=20.0, stride=3)
    spans = []
    for clip in (whole, taken):
        data_uri = re.search(r"base64,([^\"]+)", media.strip(clip, 2))[1]
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data_uri))).convert("L"), float)
        spans.append(image[:, -20:].mean() - image[:, :20].mean())
    assert spans[0] > 240 and spans[1] > 200  # the last frame taken is the 28th of 30


SUMMARY = {
    "source": "clips",
    "ucf101": {"train": 8000, "test": 2000, "classes": 101},
    "mixkit": {"train": 80, "val": 20},
    "left_out": {"UCF-101": 3320, "mixkit": 0},
    "quarantined": 14,
    "set_aside": {"too short": 13, "not there": 1},
    "rates": {"ucf101": [25.0, 25.0, 29.97], "mixkit": []},
    "readers": {"decord": 10, "pyav": 9000},
    "notes": ["train: clips of 12 to 60 <frames>"],
    "official": None,
}


def indexed(summary, rows):
    run = finished(config.load("tiny", {"data.max_clips": 10_000}), "data")
    files.write_json(run.folder / "summary.json", summary)
    files.write_csv(run.folder / "quarantine.csv", ("path", "kind", "reason"), rows)
    return run


def test_what_is_not_among_the_clips_is_told():
    run = indexed(SUMMARY, [])
    shown = data.clips(run).data
    table = cells(data.clips(run)).set_index("data set")
    assert table.loc["UCF-101", "frames a second"] == "25 to 29.97, half of them up to 25"
    assert table.loc["mixkit", "frames a second"] == "not stated"
    assert table.loc["set aside", "note"] == "13 too short, 1 not there"
    assert table.loc["left out", "note"] == "3,320 of UCF-101, for data.max_clips 10,000"
    assert table.loc["read by", "note"] == "decord: 10, pyav: 9,000"
    assert "12 to 60 &lt;frames&gt;" in shown
    plain = SUMMARY | {"left_out": {"UCF-101": 0}, "set_aside": {}, "readers": {"pyav": 1}, "notes": []}
    assert list(cells(data.clips(indexed(plain, [])))["data set"]) == ["UCF-101", "mixkit", "set aside"]


def test_many_files_set_aside_are_shown_by_some_of_each_kind():
    rows = [(f"{number}.mp4", "too short", f"{number} frames") for number in range(13)]
    few = cells(data.quarantine(indexed(SUMMARY, rows[:12])))
    assert list(few["path"]) == [f"{number}.mp4" for number in range(12)]
    many = data.quarantine(indexed(SUMMARY, [*rows, ("gone.mp4", "not there", "no such file")]))
    assert list(cells(many)["path"]) == ["0.mp4", "1.mp4", "2.mp4", "gone.mp4"]
    assert "Some of 14 files set aside" in words(many)
