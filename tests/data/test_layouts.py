"""What is taken for a clip, a class, a list and a held-out clip in the folders that people have, and what is named."""

import os
import warnings
from collections import Counter

import pytest

from moviegen.data.clips import load_index, save_index
from moviegen.data.layouts import find_layout
from tests.data.test_captions import write_csv
from tests.data.test_datasets import touch

NO_WORDS = "ignore:.*(no captions|no UCF-101 classes)"
UCF = ("Archery/v_Archery_g01_c01.avi", "YoYo/v_YoYo_g02_c01.avi")


def names(clips):
    return [clip.path.name for clip in clips]


def found(folder):
    """The names in each list that is not empty."""
    return {key: names(clips) for key, clips in find_layout(folder).items() if clips}


def said(folder):
    """The layout, and the warning of what is left out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layout = find_layout(folder)
    return layout, [text for warning in caught if " left out" in (text := str(warning.message))]


# --- the layouts ---


def test_layout_of_the_sample_set_needs_no_warning(tmp_path):
    touch(tmp_path, "UCF-101/Pan/v_Pan_g01_c01.avi", "mixkit/a.mp4", "mixkit/b.mp4")
    write_csv(tmp_path / "video_caption_train.csv", ("a.mp4", "A"))
    write_csv(tmp_path / "video_caption_val.csv", ("b.mp4", "B"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(tmp_path) == {"ucf101": ["v_Pan_g01_c01.avi"], "train": ["a.mp4"], "val": ["b.mp4"]}


def test_class_folders_alone_are_captioned_by_class(tmp_path):
    touch(tmp_path, "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "BandMarching/v_BandMarching_g01_c01.avi")
    with pytest.warns(UserWarning, match="no captions"):
        layout = find_layout(tmp_path)
    assert [clip.caption for clip in layout["train"]] == ["apply eye makeup", "band marching"]
    assert names(layout["ucf101"]) == names(layout["train"]) and layout["val"] == layout["ucf101_test"] == []


def test_captions_alone_are_one_class(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_csv(tmp_path / "captions.csv", ("a.mp4", "A"), ("b.mp4", "B"))
    with pytest.warns(UserWarning, match="no UCF-101 classes"):
        layout = find_layout(tmp_path)
    assert [clip.caption for clip in layout["train"]] == ["A", "B"]
    assert {clip.label for clip in layout["ucf101"]} == {"mixkit"} and names(layout["ucf101"]) == ["a.mp4", "b.mp4"]


def test_mixkit_is_never_a_class(tmp_path):
    touch(tmp_path, "Cats/a.mp4", "mixkit/b.mp4")
    write_csv(tmp_path / "video_caption_train.csv", ("b.mp4", "B"))
    assert found(tmp_path) == {"ucf101": ["a.mp4"], "train": ["b.mp4"]}


def test_layouts_that_cannot_be_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data folder .*nowhere; expected a UCF-101 folder"):
        find_layout(tmp_path / "nowhere")
    touch(tmp_path, "mixkit/a.mp4", "mixkit/b.mp4")
    with pytest.raises(ValueError, match=r"0 CSV files and none is video_caption_train\.csv"):
        find_layout(tmp_path)
    for name in ("one.csv", "two.csv"):
        write_csv(tmp_path / name, ("a.mp4", "A"))
    with pytest.raises(ValueError, match=r"2 CSV files .*: give that name to the one that does"):
        find_layout(tmp_path)


@pytest.mark.filterwarnings(NO_WORDS)
@pytest.mark.parametrize(
    "top",
    ["", "UCF-101", "UCF101", "ucf_101", "UCF101/UCF-101", "archive/UCF-101", "download", "videos/UCF101/UCF-101"],
)
def test_ucf101_is_found_however_deep_its_archive_unpacked(tmp_path, top):
    touch(tmp_path / top, *UCF)
    layout = find_layout(tmp_path)
    assert [(clip.label, clip.group) for clip in layout["ucf101"]] == [("Archery", 1), ("YoYo", 2)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("home", ["", "mixkit-100videos"])
def test_the_original_reports_folders_side_by_side(tmp_path, home):
    touch(tmp_path / "UCF101" / "UCF-101", *UCF)
    touch(tmp_path / home / "mixkit", "a.mp4", "b.mp4")
    write_csv(tmp_path / home / "video_caption_train.csv", ("a.mp4", "A"))
    write_csv(tmp_path / home / "video_caption_val.csv", ("b.mp4", "B"))
    assert found(tmp_path) == {
        "ucf101": ["v_Archery_g01_c01.avi", "v_YoYo_g02_c01.avi"],
        "train": ["a.mp4"],
        "val": ["b.mp4"],
    }


def test_two_folders_of_one_kind_are_refused(tmp_path):
    touch(tmp_path, *(f"{top}/UCF-101/{name}" for name in UCF for top in ("one", "two")))
    with pytest.raises(ValueError, match=r"several folders of UCF-101, .*one/UCF-101, .*two/UCF-101"):
        find_layout(tmp_path)
    for home in ("one", "two"):
        write_csv(tmp_path / home / "video_caption_train.csv", ("a.mp4", "A"))
    with pytest.raises(ValueError, match=r"several (files video_caption_train\.csv|folders)"):
        find_layout(tmp_path)


@pytest.mark.filterwarnings(NO_WORDS)
@pytest.mark.parametrize("top", ["", "UCF-101/", "kinetics/"])
@pytest.mark.parametrize("held_out", [("val",), ("test",), ("Validation", "Test")])
def test_train_and_val_folders_are_the_split_and_no_classes(tmp_path, top, held_out):
    classes = [f"{top}{part}/{label}/{part}.mp4" for part in ("train", *held_out) for label in ("JumpRope", "YoYo")]
    touch(tmp_path, *classes)
    layout = find_layout(tmp_path)
    assert [(clip.path.stem, clip.label) for clip in layout["ucf101"]] == [("train", "JumpRope"), ("train", "YoYo")]
    assert Counter((clip.path.stem, clip.label) for clip in layout["ucf101_test"]) == Counter(
        (part, label) for part in held_out for label in ("JumpRope", "YoYo")
    )
    assert [clip.caption for clip in layout["train"]] == ["jump rope", "yo yo"]
    assert {clip.caption for clip in layout["val"]} == {"jump rope", "yo yo"}
    assert names(layout["val"]) == names(layout["ucf101_test"])


@pytest.mark.filterwarnings(NO_WORDS)
def test_train_and_val_folders_of_loose_clips_are_captioned_by_their_names(tmp_path):
    touch(tmp_path / "mine", "train/a_cat.mp4", "train/a_dog.mp4", "val/a_bird.mp4")
    layout = find_layout(tmp_path / "mine")
    assert [(clip.label, clip.caption) for clip in layout["train"]] == [("mine", "a cat"), ("mine", "a dog")]
    assert [(clip.label, clip.caption) for clip in layout["val"]] == [("mine", "a bird")]
    assert names(layout["ucf101_test"]) == ["a_bird.mp4"]


@pytest.mark.filterwarnings(NO_WORDS)
@pytest.mark.parametrize("name", ["train", "videos", "Clips"])
def test_a_folder_that_is_called_after_no_class_is_none(tmp_path, name):
    touch(tmp_path / "mine", f"{name}/a_cat.mp4", f"{name}/a_dog.mp4")
    layout = find_layout(tmp_path / "mine")
    assert [(clip.label, clip.caption) for clip in layout["train"]] == [("mine", "a cat"), ("mine", "a dog")]


@pytest.mark.filterwarnings(NO_WORDS)
@pytest.mark.parametrize("folder", ["", "videos/", "part_1/batch/"])
def test_a_list_beside_the_folder_of_its_videos(tmp_path, folder):
    touch(tmp_path, f"{folder}a.mp4", f"{folder}b.mp4")
    write_csv(tmp_path / "OpenVid.csv", ("a.mp4", "A", "7"), ("b.mp4", "B", "8"), header=("video", "caption", "frame"))
    layout = find_layout(tmp_path)
    assert [(clip.path.name, clip.caption) for clip in layout["train"]] == [("a.mp4", "A"), ("b.mp4", "B")]


def test_another_table_beside_class_folders_is_no_list(tmp_path):
    touch(tmp_path, *UCF)
    write_csv(tmp_path / "train.csv", ("v_YoYo_g02_c01", "/train/YoYo", "YoYo"), header=("clip_name", "path", "label"))
    layout, (left,) = said(tmp_path)
    assert [clip.caption for clip in layout["train"]] == ["archery", "yo yo"]
    assert "left out are 1 other files (1 .csv)" in left


@pytest.mark.filterwarnings(NO_WORDS)
def test_a_hidden_list_is_not_there(tmp_path):
    touch(tmp_path, "a.mp4", "._a.mp4", "__MACOSX/._a.mp4")
    write_csv(tmp_path / "captions.csv", ("a.mp4", "A"))
    (tmp_path / "._captions.csv").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    assert found(tmp_path) == {"ucf101": ["a.mp4"], "train": ["a.mp4"]}


@pytest.mark.filterwarnings("ignore:.*no UCF-101 classes")
def test_a_video_in_both_lists_is_said_to_be_no_held_out_one(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_csv(tmp_path / "video_caption_train.csv", ("a.mp4", "A"), ("b.mp4", "B"))
    write_csv(tmp_path / "video_caption_val.csv", ("b.mp4", "B"))
    with pytest.warns(UserWarning, match=r"1 videos are in both lists, .*: b\.mp4"):
        find_layout(tmp_path)


def test_two_videos_of_one_name_in_two_folders_are_not_one(tmp_path):
    touch(tmp_path, "train/1.mp4", "val/1.mp4")
    write_csv(tmp_path / "video_caption_train.csv", ("train/1.mp4", "A"))
    write_csv(tmp_path / "video_caption_val.csv", ("val/1.mp4", "B"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*both lists")
        find_layout(tmp_path)


def test_videos_of_two_lists_are_numbered_together(tmp_path):
    """As one class they are split, and their scores weighed, by group: two videos must not share a number."""
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    write_csv(tmp_path / "video_caption_train.csv", ("a.mp4", "A"), ("b.mp4", "B"))
    write_csv(tmp_path / "video_caption_val.csv", ("c.mp4", "C"), ("c.mp4", "Another of C"))
    with pytest.warns(UserWarning, match="no UCF-101 classes"):
        layout = find_layout(tmp_path)
    assert [clip.group for clip in layout["ucf101"]] == [1, 2, 3, 3]


# --- what is a clip, and what is left out ---


@pytest.mark.filterwarnings("error", NO_WORDS)
@pytest.mark.parametrize(
    "suffix",
    ["avi", "mp4", "mkv", "mov", "webm", "m4v", "mpg", "mpeg", "wmv", "ts", "gif", "flv", "3gp", "ogv", "MP4", "y4m"],
)
def test_whatever_is_decoded_is_a_clip(tmp_path, suffix):
    touch(tmp_path, f"a.{suffix}")
    assert found(tmp_path)["ucf101"] == [f"a.{suffix}"]


def test_what_is_left_out_is_counted_and_named(tmp_path):
    touch(
        tmp_path,
        "Running/a.mp4",
        "loose.mp4",
        "other.webm",
        "Running/deeper/b.mp4",
        "Running/a.JPG",
        "b.jpg",
        "d.zip",
        "e.txt",
        "c.TXT",
        "LICENSE",
    )
    layout, (left,) = said(tmp_path)
    assert names(layout["ucf101"]) == ["a.mp4"]
    assert "3 videos that lie in no class folder and in no list (Running/deeper/b.mp4, loose.mp4, other.webm)" in left
    assert "3 other files (2 .jpg, 1 .zip)" in left


def test_clips_that_a_list_does_not_name_are_named(tmp_path):
    touch(tmp_path, *(f"mixkit/{number}.mp4" for number in range(20)))
    write_csv(tmp_path / "video_caption_train.csv", ("0.mp4", "A"))
    _, (left,) = said(tmp_path)
    assert "19 videos that lie in no class folder and in no list (mixkit/1.mp4, " in left and " and 9 more)" in left


def test_nothing_is_said_where_nothing_is_left_out(tmp_path):
    touch(tmp_path, *UCF)
    assert said(tmp_path)[1] == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"no videos found in .*, which is empty; expected a UCF-101 folder"),
        (["a.jpg", "deep/b.JPG", "c.png"], r"no videos found in .*, but 2 \.jpg, 1 \.png; expected"),
        (["UCF101.rar"], r"no videos found in .*, but 1 \.rar: unpack UCF101\.rar first"),
        (["a.zip", "b.tar.gz", "notes.txt"], r"unpack a\.zip, b\.tar\.gz first"),
        (["one/two/three/a.mp4", "other/five/six/b.mp4"], r"where they are looked for in .*, but .*three/a\.mp4"),
    ],
)
def test_a_folder_without_clips_says_what_it_holds(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        find_layout(tmp_path)


# --- names ---


@pytest.mark.filterwarnings(NO_WORDS)
@pytest.mark.parametrize(
    "name",
    [
        "0003",
        "1e5",
        "NA",
        "-a",
        "a #1 %20?",
        " a ",
        "two\nlines",
        "tab\there",
        "'\"",
        "😀",
        "字" * 80,
        "a,b;c|d",
        "a\\b",
    ],
)
def test_any_name_comes_back_from_the_index_as_it_is(tmp_path, name):
    touch(tmp_path, f"{name}/{name}.mp4", f"{name}/other.mp4")
    clips = find_layout(tmp_path)["ucf101"]
    assert [clip.label for clip in clips] == [name, name] and f"{name}.mp4" in names(clips)
    save_index(tmp_path / "index.csv", clips, tmp_path)
    assert load_index(tmp_path / "index.csv", tmp_path) == clips


@pytest.mark.filterwarnings(NO_WORDS)
def test_a_name_that_is_not_utf_8_is_left_out_and_named(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).touch()
    touch(tmp_path / os.fsdecode(b"\xff"), "b.mp4")
    layout, (left,) = said(tmp_path)
    assert names(layout["ucf101"]) == ["a.mp4"]
    assert r"2 files are left out, as their names are not UTF-8: rename caf\udce9.mp4, \udcff/b.mp4" in left
    left.encode()
