"""`data index` on small folders: what is set aside or left out, how clips are taken, and what a killed one keeps."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.data.splits import SPLITS, load_split
from moviegen.data.videos import write_video
from moviegen.programs import index_data
from moviegen.report.pages import data as page
from moviegen.runs import hashes
from tests.report.making import words

FRAMES = 20  # a smoke recipe needs 16


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    hashes._known.cache_clear()


def film(path, grey, frames=FRAMES, fps=25):
    write_video(path, np.full((frames, 32, 48, 3), grey, np.uint8), fps)


@pytest.fixture
def root(tmp_path):
    """Two classes of four groups, and one list of six captioned videos."""
    for place, label in enumerate(("Jump", "Walk")):
        for group in range(1, 5):
            film(tmp_path / f"set/UCF-101/{label}/v_{label}_g{group:02d}_c01.avi.mp4", 20 * group + 10 * place)
    for number in range(6):
        film(tmp_path / f"set/mixkit/{number}.mp4", 120 + 20 * number)
    rows = [(f"{number}.mp4", f"number {number}") for number in range(6)]
    with (tmp_path / "set" / "video_caption_train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption"), *rows])
    return tmp_path / "set"


def index(root, **overrides):
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    run = runs.find(config.load("smoke", {"data.root": str(root), **named}), "data")
    with runs.record(run):
        index_data.index(run)
    return run


def summary(run):
    return json.loads((run.folder / "summary.json").read_text())


def clips(run, name):
    return sorted(clip.path.name for clip in load_split(run, name))


def test_the_sound_clips_are_split_and_the_others_are_told_by_kind(root):
    film(root / "mixkit" / "0.mp4", 3, frames=15)
    (root / "mixkit" / "1.mp4").write_bytes(b"no video")
    (root / "UCF-101" / "Jump" / "v_Jump_g09_c01.mp4").symlink_to("/nowhere/film.mp4")
    run = index(root)
    assert len(clips(run, "mixkit_train") + clips(run, "mixkit_val")) == 4
    assert len(clips(run, "ucf101_train") + clips(run, "ucf101_test")) == 8
    found = summary(run)
    assert found["set_aside"] == {"not there": 1, "too short": 1, "cannot be decoded": 1} and found["quarantined"] == 3
    with (run.folder / "quarantine.csv").open() as file:
        assert [(Path(row["path"]).name, row["kind"]) for row in csv.DictReader(file)] == [
            ("v_Jump_g09_c01.mp4", "not there"), ("0.mp4", "too short"), ("1.mp4", "cannot be decoded"),
        ]  # fmt: skip
    assert [line["step"] for line in run.metrics()] == list(range(1, 15))  # the link is not measured
    shown = words(page.clips(run)) + words(page.quarantine(run))
    assert "1 not there" in shown and "a link to /nowhere/film.mp4" in shown and "25" in shown


def test_a_single_sound_clip_is_used_and_all_that_is_odd_is_said_on_the_page_too(tmp_path, measured, capsys):
    film(tmp_path / "loose" / "a.mp4", 3)
    (tmp_path / "loose" / "gone.mp4").symlink_to("/nowhere/gone.mp4")
    (tmp_path / "loose" / "poster.psd").write_bytes(b"")
    run = index(tmp_path / "loose")
    assert "a link to /nowhere/gone.mp4" in (run.folder / "quarantine.csv").read_text()
    assert [clips(run, name) for name in SPLITS] == [["a.mp4"]] * 4
    said, shown = capsys.readouterr().err, words(page.clips(run))
    for note in ("holds no captions", "1 other files (1 .psd)", "a.mp4 is the only clip"):
        assert said.count(note) == 1 and note in shown


def test_a_list_without_any_sound_clip_is_refused_with_reasons(root, measured):
    for number in range(6):
        film(root / "mixkit" / f"{number}.mp4", number, frames=15)
    with pytest.raises(ConfigError, match=r"none of 6 clips .*at least 16 .*0\.mp4: 15 frames, the recipe needs 16"):
        index(root)


def test_a_held_out_copy_of_what_is_trained_on_is_told(root, measured, capsys):
    for number in (4, 5):
        (root / f"mixkit/{number}.mp4").write_bytes((root / "mixkit" / "0.mp4").read_bytes())
    (root / "video_caption_train.csv").write_text("video,caption\n0.mp4,a\n1.mp4,b\n0.mp4,another of a\n")
    (root / "video_caption_val.csv").write_text("video,caption\n2.mp4,c\n4.mp4,d\n4.mp4,another of d\n5.mp4,e\n")
    run = index(root)
    (note,) = [note for note in summary(run)["notes"] if "are copies of" in note]
    assert note.startswith("mixkit: 2 held-out files are copies of files trained on") and "mixkit/5.mp4" in note
    assert note in capsys.readouterr().err


def test_copies_on_one_side_of_the_split_are_nothing_to_tell(root, measured):
    (root / "mixkit/1.mp4").write_bytes((root / "mixkit/0.mp4").read_bytes())
    (root / "video_caption_train.csv").write_text("video,caption\n0.mp4,a\n1.mp4,b\n")
    (root / "video_caption_val.csv").write_text("video,caption\n2.mp4,c\n")
    assert not [note for note in summary(index(root))["notes"] if "are copies of" in note]


def test_at_most_so_many_clips_of_each_list_are_measured_and_the_rest_is_told(root, measured):
    run = index(root, data__max_clips=4)
    splits = {name: load_split(run, name) for name in SPLITS}
    ucf101 = splits["ucf101_train"] + splits["ucf101_test"]
    assert sorted(clip.label for clip in ucf101) == ["Jump", "Jump", "Walk", "Walk"]
    assert len(splits["mixkit_train"] + splits["mixkit_val"]) == 4
    assert summary(run)["left_out"] == {"UCF-101": 4, "mixkit": 2}
    assert run.metrics()[-1]["steps"] == 8
    assert "4 of UCF-101 and 2 of mixkit, for data.max_clips 4" in words(page.clips(run))
    again = index(root, data__max_clips=5)
    assert again.folder != run.folder
    assert 0 < again.metrics()[-1]["steps"] < 8  # what the first one had measured is known


def test_clips_of_other_rates_are_told_and_brought_to_one(root, measured):
    film(root / "mixkit" / "5.mp4", 5, frames=100, fps=60)
    run = index(root)
    assert any(note.startswith("train: clips of 25 to 60 frames a second") for note in summary(run)["notes"])
    assert summary(run)["rates"] == {"ucf101": [25, 25, 25], "mixkit": [25, 25, 60]}
    shown = words(page.clips(run))
    assert "25 to 60" in shown and "data.fps 25" in shown
    evened = index(root, data__fps=25)
    taken = {clip.path.name: (clip.stride, clip.frames, clip.fps) for clip in load_split(evened, "mixkit_train")}
    taken |= {clip.path.name: (clip.stride, clip.frames, clip.fps) for clip in load_split(evened, "mixkit_val")}
    assert taken["5.mp4"] == (2, 50, 30) and taken["1.mp4"] == (1, FRAMES, 25)
    assert summary(evened)["notes"] == []


def test_a_changed_parameter_measures_nothing_again(root, measured):
    assert len(index(root).metrics()) == 14
    run = index(root, seed=7, data__test_share=0.5)
    assert run.metrics() == [] and len(clips(run, "ucf101_test")) == 4


def test_a_killed_index_goes_on_where_it_was(root, tmp_path):
    command = [sys.executable, "-m", "tests.programs.slow_index", str(root)]
    memory = tmp_path / "outputs" / "measured.jsonl"
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        deadline = time.monotonic() + 60
        while (not memory.exists() or memory.read_text().count("\n") < 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    kept = memory.read_text().count("\n")
    assert 3 <= kept < 14
    run = index(root)
    assert run.metrics()[-1]["steps"] == 14 - kept
    contents = [json.loads(line)["content"] for line in memory.read_text().splitlines()]
    assert len(contents) == len(set(contents)) == 14
