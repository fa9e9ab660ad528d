"""The table of the film's shots, and clips that are cut by it."""

import csv
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from moviegen.data import assets, film, videos
from moviegen.data.film import Shot
from moviegen.data.streams import BrokenVideo

SHOTS = (
    Shot("a meadow", 2, 5, "train", "a rabbit in the grass", "a bunny on a lawn"),
    Shot("a tree", 9, 13, "val", "a squirrel on a branch", "a rodent on a bough"),
)


@pytest.fixture
def source(tmp_path):
    """20 frames of 64x32, each of one grey that says its number."""
    path = tmp_path / "film.mp4"
    numbers = np.arange(20, dtype=np.uint8)[:, None, None, None]
    videos.write_video(path, np.broadcast_to(10 + 12 * numbers, (20, 32, 64, 3)).copy(), film.FPS)
    return path


def greys(path):
    info = videos.probe(path)
    return [round((float(frame.mean()) - 10) / 12) for frame in videos.read_frames(path, range(info.frames))]


def test_clips_hold_the_frames_of_their_shots_at_half_the_size(source, tmp_path):
    folder = film.cut(source, tmp_path / "clips", SHOTS)
    assert greys(folder / "mixkit" / "a-meadow-00002.mp4") == [2, 3, 4]
    assert greys(folder / "mixkit" / "a-tree-00009.mp4") == [9, 10, 11, 12]
    info = videos.probe(folder / "mixkit" / "a-tree-00009.mp4")
    assert (info.width, info.height, info.fps) == (32, 16, 24)


def test_captions_lie_beside_them_by_split(source, tmp_path):
    folder = film.cut(source, tmp_path / "clips", SHOTS)
    for shot in SHOTS:
        with (folder / f"video_caption_{shot.split}.csv").open(encoding="utf-8", newline="") as file:
            assert list(csv.reader(file)) == [["video", "caption"], [shot.name, shot.caption]]


def test_a_clip_that_is_there_stays_and_one_that_is_gone_comes_back(source, tmp_path):
    folder = film.cut(source, tmp_path / "clips", SHOTS)
    kept, gone = (folder / "mixkit" / shot.name for shot in SHOTS)
    content = gone.read_bytes()
    kept.write_bytes(b"one's own")
    gone.unlink()
    film.cut(source, folder, SHOTS)
    assert kept.read_bytes() == b"one's own"
    assert gone.read_bytes() == content


def test_a_film_that_ends_too_early_leaves_no_half_clip(source, tmp_path):
    long = replace(SHOTS[1], end=40)
    with pytest.raises(BrokenVideo, match="it has 20 frames"):
        film.cut(source, tmp_path / "clips", (SHOTS[0], long))
    assert [path.name for path in (tmp_path / "clips").rglob("*") if path.is_file()] == [SHOTS[0].name]


def test_the_table_is_of_shots_one_after_the_other():
    shots = film.shots()
    assert len(shots) >= 100
    assert all(before.end <= after.start for before, after in pairwise(shots))
    assert all(shot.end - shot.start >= 40 for shot in shots)
    assert shots[0].start > 20 * film.FPS and shots[-1].end < 490 * film.FPS  # neither titles nor credits
    assert len({shot.name for shot in shots}) == len(shots)


def test_no_scene_is_in_two_splits_and_each_split_has_some():
    scenes = {split: {shot.scene for shot in film.shots() if shot.split == split} for split in film.SPLITS}
    assert not scenes["train"] & scenes["val"]
    assert min(map(len, scenes.values())) >= 10
    assert {shot.split for shot in film.shots()} == set(film.SPLITS)


def test_captions_differ_and_paraphrases_say_it_in_other_words():
    shots = film.shots()
    texts = [text for shot in shots for text in (shot.caption, shot.paraphrase)]
    assert len(set(texts)) == len(texts)
    for shot in shots:
        assert shot.caption == shot.caption.strip() and shot.caption.isascii()
        common = set(shot.caption.split()) & set(shot.paraphrase.split())
        assert len(common) < 0.7 * len(shot.paraphrase.split()), shot


def test_the_film_is_the_one_that_is_fetched():
    (member,) = assets.FILM.members
    assert member.name == "bbb.mp4" and "Blender Foundation" in assets.FILM.attribution
