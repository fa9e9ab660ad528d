import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from moviegen import config
from moviegen.data.checking import check_clips
from moviegen.data.clips import Clip, load_index, save_index
from moviegen.data.datasets import batch_indices, epoch_order, index_ucf101, split_ucf101
from moviegen.data.layouts import find_layout
from moviegen.data.measuring import measure
from moviegen.runs.folders import is_video, walk

CLIPS = Path(__file__).parents[2] / ".." / "shared" / "clips"


def touch(folder, *names):
    """Indexing looks at names only, so empty files do."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def index(folder):
    """The clips of the class folders in a folder."""
    return index_ucf101(folder, filter(is_video, walk(folder)))


def ucf101_clips(classes=3, groups=10, per_group=2):
    return [
        Clip(Path(f"{label}/v_{label}_g{group:02d}_c{number:02d}.avi"), label=label, group=group)
        for label in "ABC"[:classes]
        for group in range(1, groups + 1)
        for number in range(1, per_group + 1)
    ]


def test_ucf101_names_are_parsed(tmp_path):
    touch(tmp_path, "Surf_Ing/v_Surf_Ing_g03_c12.avi", "Archery/v_Archery_g25_c01.avi", "Archery/.v_half_g01_c01.avi")
    touch(tmp_path, "Archery/notes.txt", ".cache/v_Archery_g01_c01.avi")
    clips = [(clip.path.name, clip.label, clip.group) for clip in index(tmp_path)]
    assert clips == [("v_Archery_g25_c01.avi", "Archery", 25), ("v_Surf_Ing_g03_c12.avi", "Surf_Ing", 3)]


def test_files_of_other_names_get_groups_of_their_own(tmp_path):
    touch(tmp_path, "Cats/a.mp4", "Cats/b.MOV", "Cats/v_Cats_g04_c01.avi", "Dogs/x.mkv")
    assert [(clip.path.name, clip.group) for clip in index(tmp_path)] == [
        ("a.mp4", 5),
        ("b.MOV", 6),
        ("v_Cats_g04_c01.avi", 4),
        ("x.mkv", 1),
    ]


def test_ucf101_folder_missing_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; expected .*<Class>/v_<Class>_gXX_cYY"):
        index_ucf101(tmp_path / "nowhere", [])
    with pytest.raises(ValueError, match="no video in"):
        index(tmp_path)


def test_class_without_videos_is_reported(tmp_path):
    touch(tmp_path, "Cats/a.mp4", "Empty/readme.txt")
    with pytest.warns(UserWarning, match="Empty holds no video"):
        assert len(index(tmp_path)) == 1


@pytest.mark.parametrize("by", ["group", "random"])
def test_split_divides_every_class_eight_to_two(by):
    clips = ucf101_clips()
    train, test = split_ucf101(clips, seed=4, by=by)
    assert sorted(train + test, key=clips.index) == clips
    assert Counter(clip.label for clip in test) == {"A": 4, "B": 4, "C": 4}
    assert (train, test) == split_ucf101(clips, seed=4, by=by)
    assert test != split_ucf101(clips, seed=5, by=by)[1]


def test_split_by_group_keeps_the_same_groups_out_of_every_class():
    train, test = split_ucf101(ucf101_clips())
    assert not {clip.group for clip in train} & {clip.group for clip in test}
    assert len({clip.group for clip in test}) == 2


def test_random_split_divides_groups():
    train, test = split_ucf101(ucf101_clips(), by="random")
    assert {(clip.label, clip.group) for clip in train} & {(clip.label, clip.group) for clip in test}


def test_split_reaches_every_group_over_the_seeds():
    held_out = {clip.group for seed in range(60) for clip in split_ucf101(ucf101_clips(1, 4), seed=seed)[1]}
    assert held_out == {1, 2, 3, 4}


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_two_groups_give_one_to_each_side(share):
    train, test = split_ucf101(ucf101_clips(1, 2), share)
    assert len(train) == len(test) == 2


def test_a_class_of_one_group_is_divided_by_clip_with_a_warning():
    with pytest.warns(UserWarning, match="'A' has a single group"):
        train, test = split_ucf101(ucf101_clips(1, 1, 5))
    assert (len(train), len(test)) == (4, 1)


def test_classes_of_one_clip_are_held_out_whole():
    train, test = split_ucf101(ucf101_clips(3, 1, 1))
    assert (len(train), len(test)) == (2, 1)


@pytest.mark.parametrize("by", ["group", "random"])
def test_a_single_file_is_trained_on_and_tested(by):
    """Of how many captions ever: without it on both sides there is nothing to train on, or nothing to test."""
    clips = [replace(clip, caption=caption) for clip in ucf101_clips(1, 1, 1) for caption in ("one", "two")]
    with pytest.warns(UserWarning, match=r"is the only clip: it is trained on and tested"):
        assert split_ucf101(clips, by=by) == (clips, clips)


def test_split_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="cannot split 0 clips"):
        split_ucf101([])
    with pytest.raises(ValueError, match=r"cannot split off 1\.5"):
        split_ucf101(ucf101_clips(), 1.5)
    with pytest.raises(ValueError, match="'groups'"):
        split_ucf101(ucf101_clips(), by="groups")


@pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no real clips at {CLIPS}")
def test_loose_real_clips_are_both_layouts_and_bad_ones_are_set_aside():
    with pytest.warns(UserWarning, match="file or class names stand in"):
        found = find_layout(CLIPS)
    assert {clip.label for clip in found["ucf101"]} == {"clips"} and len(found["ucf101"]) == 5
    good, bad = check_clips(found["train"], measure(config.load("smoke"), [found["train"]]), min_frames=32)
    assert [(clip.caption, clip.frames, clip.height, clip.width, clip.fps) for clip in good] == [
        ("demo", 280, 256, 427, 28.0),
        ("pancake", 310, 240, 426, 30.0),
        ("part 0", 32, 256, 455, 30.0),
    ]
    assert {path.name: unusable.kind for path, unusable in bad.items()} == {
        "corrupted.mp4": "cannot be decoded",
        "unordered.mov": "too short",
    }
    train, val = split_ucf101(good)
    assert (len(train), len(val)) == (2, 1)


def test_index_survives_a_move(tmp_path):
    clips = [Clip(tmp_path / "old/UCF-101/a.avi", 'He said "go", then\nleft', "A", 3, 40, 240, 320, 29.97)]
    clips.append(Clip(tmp_path / "old/b.mp4", "1e5", fps=25.0, paraphrase='0003, "or so"'))
    save_index(tmp_path / "index.csv", clips, tmp_path / "old")
    shutil.copy(tmp_path / "index.csv", tmp_path / "copy.csv")
    assert load_index(tmp_path / "index.csv", tmp_path / "old") == clips
    moved = load_index(tmp_path / "copy.csv", tmp_path / "new")
    assert moved[0].path == tmp_path / "new/UCF-101/a.avi" and moved[0].fps == 29.97
    with pytest.raises(ValueError, match="lacks the columns"):
        (tmp_path / "other.csv").write_text("video,caption\na.mp4,A\n")
        load_index(tmp_path / "other.csv", tmp_path)


def test_epoch_order_is_a_permutation_of_its_own():
    orders = [tuple(epoch_order(20, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len(set(orders)) == 4 and orders[0] == tuple(epoch_order(20, 0, 0))


@pytest.mark.parametrize(("num_clips", "batch_size", "world"), [(10, 3, 1), (10, 3, 2), (7, 2, 4), (3, 5, 2)])
def test_ranks_and_steps_together_take_each_clip_once_an_epoch(num_clips, batch_size, world):
    steps = 3 * num_clips  # whole epochs, whatever the batch
    taken = [
        clip
        for step in range(steps)
        for rank in range(world)
        for clip in batch_indices(num_clips, batch_size, step, 5, rank, world)
    ]
    assert len(taken) == steps * batch_size * world
    for start in range(0, len(taken), num_clips):
        assert sorted(taken[start : start + num_clips]) == list(range(num_clips))
    assert taken[:num_clips] != taken[num_clips : 2 * num_clips] or num_clips < 5


def test_cards_do_not_change_the_global_batch():
    one = batch_indices(10, 6, step=4, seed=2)
    assert one == [clip for rank in (0, 1, 2) for clip in batch_indices(10, 2, 4, 2, rank, 3)]


def test_no_clips_no_batch():
    with pytest.raises(ValueError, match="there are no clips"):
        batch_indices(0, 2, 0, 0)
