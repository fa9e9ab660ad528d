"""The table of the film's shots, and clips that are cut by it."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from moviegen.config import ConfigError, project_root
from moviegen.data import assets, film, videos
from moviegen.data.film import Shot
from moviegen.data.streams import BrokenVideo
from moviegen.runs.files import write_csv

TABLE = project_root() / "params/big_buck_bunny.csv"
SHOTS = (
    Shot("a meadow", "Walk", 2, 5, "train", "a rabbit in the grass", "a bunny on a lawn"),
    Shot("a tree", "Look", 9, 14, "val", "a squirrel on a branch", "a rodent on a bough"),
)
CAPTIONED, CLASSED = zip(*film.paths(Path(), SHOTS).values(), strict=True)


@pytest.fixture
def source(tmp_path):
    """20 frames of 96x48, each of one grey that says its number, white left and right of a middle of 4:3."""
    path = tmp_path / "film.mp4"
    numbers = np.arange(20, dtype=np.uint8)[:, None, None, None]
    frames = np.broadcast_to(10 + 12 * numbers, (20, 48, 96, 3)).copy()
    frames[:, :, :16] = frames[:, :, 80:] = 255
    videos.write_video(path, frames, film.FPS)
    return path


def greys(path):
    """The numbers that a clip's frames say in their middle."""
    info = videos.probe(path)
    frames = videos.read_frames(path, range(info.frames))
    return [round((float(frame[:, 2 * info.width // 5 : 3 * info.width // 5].mean()) - 10) / 12) for frame in frames]


def test_clips_hold_every_second_frame_of_their_shots(source, tmp_path):
    folder = film.cut(source, tmp_path / "clips", SHOTS)
    for captioned, classed, frames in zip(CAPTIONED, CLASSED, ([2, 4], [9, 11, 13]), strict=True):
        assert greys(folder / captioned) == greys(folder / classed) == frames


def test_captioned_clips_are_half_the_film_s_size_and_classed_ones_its_middle_in_4_to_3(source, tmp_path):
    folder = film.cut(source, tmp_path / "clips", SHOTS)
    wide, narrow = (videos.probe(folder / paths[1]) for paths in (CAPTIONED, CLASSED))
    assert (wide.width, wide.height, wide.fps) == (48, 24, 12)
    assert (narrow.width, narrow.height, narrow.fps) == (22, 16, 12)  # 64x48, a third of it rounded up to even
    (frame,) = videos.read_frames(folder / CLASSED[1], [0])
    assert frame.max() < 250  # no white of the sides


def test_clips_lie_in_both_layouts_a_group_a_shot(source, tmp_path):
    more = (*SHOTS, replace(SHOTS[0], start=15, end=17))
    lie = film.paths(Path(), more)
    assert [str(captioned) for captioned, _ in lie.values()] == [
        "mixkit/a-meadow-00002.mp4", "mixkit/a-tree-00009.mp4", "mixkit/a-meadow-00015.mp4",
    ]  # fmt: skip
    assert [str(classed) for _, classed in lie.values()] == [
        "UCF-101/train/Walk/v_Walk_g01_c01.avi", "UCF-101/test/Look/v_Look_g01_c01.avi",
        "UCF-101/train/Walk/v_Walk_g02_c01.avi",
    ]  # fmt: skip


def test_a_clip_that_is_there_stays_and_one_that_is_gone_comes_back(source, tmp_path):
    folder = film.cut(source, tmp_path / "clips", SHOTS)
    kept, gone = folder / CAPTIONED[0], folder / CLASSED[1]
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
    there = {path.relative_to(tmp_path / "clips") for path in (tmp_path / "clips").rglob("*") if path.is_file()}
    assert there == {CAPTIONED[0], CLASSED[0]}


@pytest.mark.parametrize(
    ("name", "value"), [("start", "five"), ("end", "2"), ("split", "test"), ("action", "to walk"), ("action", "../x")]
)
def test_a_line_that_is_no_shot_is_named(tmp_path, name, value):
    row = {key: str(entry) for key, entry in vars(SHOTS[0]).items()}
    table = tmp_path / "shots.csv"
    write_csv(table, row, [row.values(), (row | {name: value}).values()])
    with pytest.raises(ConfigError, match=f"{table}, shot 2: .*{re.escape(value)}"):
        film.shots(table)
    write_csv(table, row, [row.values()])
    assert film.shots(table) == SHOTS[:1]


def test_the_table_is_of_shots_one_after_the_other():
    shots = film.shots(TABLE)
    assert len(shots) >= 100
    assert all(before.end <= after.start for before, after in pairwise(shots))
    assert all(shot.end - shot.start >= 40 for shot in shots)
    assert shots[0].start > 20 * film.FPS and shots[-1].end < 490 * film.FPS  # neither titles nor credits
    assert len({shot.name for shot in shots}) == len(shots)


def test_no_scene_is_in_two_splits_and_each_split_has_some():
    scenes = {split: {shot.scene for shot in film.shots(TABLE) if shot.split == split} for split in film.SPLITS}
    assert not scenes["train"] & scenes["val"]
    assert min(map(len, scenes.values())) >= 10
    assert {shot.split for shot in film.shots(TABLE)} == set(film.SPLITS)


def test_captions_differ_and_paraphrases_say_it_in_other_words():
    shots = film.shots(TABLE)
    texts = [text for shot in shots for text in (shot.caption, shot.paraphrase)]
    assert len(set(texts)) == len(texts)
    for shot in shots:
        assert shot.caption == shot.caption.strip() and shot.caption.isascii()
        common = set(shot.caption.split()) & set(shot.paraphrase.split())
        assert len(common) < 0.75 * len(shot.paraphrase.split()), shot


def test_the_film_is_the_one_that_is_fetched():
    (member,) = assets.FILM.members
    assert member.name == "bbb.mp4" and "Blender Foundation" in assets.FILM.attribution
