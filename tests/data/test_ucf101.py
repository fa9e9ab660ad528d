"""UCF-101 as published: the shipped split, a folder of the published names, and what is said of a folder that lacks."""

import csv
import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.data import ucf101
from moviegen.data.clips import Clip, load_index
from moviegen.data.datasets import index_ucf101, split_ucf101
from moviegen.data.layouts import find_layout
from moviegen.data.videos import write_video
from moviegen.programs import index_data
from moviegen.report.pages.data import clips as clips_table
from moviegen.runs import registry
from moviegen.runs.folders import walk

SHIPPED = Path(__file__).parents[2] / "params" / "ucf101_split.csv"
NUMBERS = range(1, 26)


def rows():
    """The shipped file, read without the code under test."""
    with SHIPPED.open(newline="") as file:
        return list(csv.reader(file))


CLASSES = [name for name, _ in rows()[1:]]


def file_name(label, group, number):
    """As published, with its one quirk: the files of HandstandPushups spell it HandStandPushups."""
    spelling = {"HandstandPushups": "HandStandPushups"}.get(label, label)
    return f"{label}/v_{spelling}_g{group:02d}_c{number:02d}.avi"


def clips_of(folder, clips_a_group=1):
    """Clips of the published names below `folder`, which are not made."""
    return [
        Clip(folder / file_name(label, group, number), label=label, group=group)
        for label in CLASSES
        for group in NUMBERS
        for number in range(1, clips_a_group + 1)
    ]


def touch(clips):
    """Indexing looks at names only, so empty files do."""
    for clip in clips:
        clip.path.parent.mkdir(parents=True, exist_ok=True)
        clip.path.touch()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A data folder with as many clips, classes and groups as the published one: (its top, its clips)."""
    root = tmp_path_factory.mktemp("published")
    clips = clips_of(root / "UCF-101", clips_a_group=6)
    sixth = [clip for clip in clips if clip.path.stem.endswith("c06")]  # groups have no equal number of clips
    surplus = set(sixth[: len(clips) - 13_320])
    clips = [clip for clip in clips if clip not in surplus]
    touch(clips)
    return root, sorted(clips, key=lambda clip: clip.path)


# --- the shipped file ---


def test_shipped_classes_are_the_published_ones():
    assert rows()[0] == ["class", "test_groups"]
    assert len(set(CLASSES)) == len(CLASSES) == 101
    assert sorted(CLASSES) == CLASSES and (CLASSES[0], CLASSES[-1]) == ("ApplyEyeMakeup", "YoYo")
    assert {"HandstandPushups", "HandstandWalking", "Shotput", "Skijet", "TaiChi", "YoYo"} <= set(CLASSES)
    assert all(name.isalpha() and name[0].isupper() for name in CLASSES)


def test_every_shipped_class_holds_out_a_fifth_of_its_groups():
    for name, groups in rows()[1:]:
        numbers = [int(group) for group in groups.split(" ")]
        assert sorted(set(numbers)) == numbers, name
        assert set(numbers) < set(NUMBERS), name
        assert len(numbers) / 25 == 0.2, name


def test_shipped_split_is_the_computed_one():
    train, test = split_ucf101(clips_of(Path("UCF-101"), 2), test_share=0.2, seed=42, by="group")
    computed = [
        [name, " ".join(str(group) for group in sorted({clip.group for clip in test if clip.label == name}))]
        for name in CLASSES
    ]
    assert computed == rows()[1:]
    assert not {(clip.label, clip.group) for clip in train} & {(clip.label, clip.group) for clip in test}
    assert len(test) / (len(train) + len(test)) == 0.2


@pytest.mark.parametrize("scale", ["smoke", "tiny"])  # the others keep the original report's random split
def test_scales_that_split_by_group_give_the_shipped_split(scale):
    params = config.load(scale)
    assert (params.seed, params.data.split, params.data.test_share) == (42, "group", 0.2)


def test_shipped_split_is_recognised():
    shipped = {name: [int(group) for group in groups.split()] for name, groups in rows()[1:]}
    assert ucf101.shipped_split() == shipped
    assert ucf101.is_shipped(shipped) and ucf101.is_shipped({"YoYo": shipped["YoYo"]})
    assert not ucf101.is_shipped(shipped | {"YoYo": shipped["YoYo"][:-1]})
    assert not ucf101.is_shipped({"PanLeft": [1]})


# --- a folder of the published names ---


def test_published_folder_is_indexed_split_and_complete(published):
    root, clips = published
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="class folder")
        warnings.filterwarnings("ignore", message=".*no captions")
        found = find_layout(root)["ucf101"]
    assert found == clips and len(found) == 13_320
    assert {(clip.label, clip.group) for clip in found} == {(name, group) for name in CLASSES for group in NUMBERS}
    train, test = split_ucf101(found, 0.2, 42, "group")
    assert ucf101.is_shipped(ucf101.held_out_groups(train, test))
    assert not ucf101.is_shipped(ucf101.held_out_groups(*split_ucf101(found, 0.2, 43, "group")))
    comparison = ucf101.compare(found, root)
    assert comparison == {
        "clips": 13_320,
        "of": 13_320,
        "missing_classes": [],
        "empty_classes": [],
        "partial_classes": [],
        "complete": True,
    }
    line = ucf101.describe(comparison | {"shipped_split": True})
    assert line == "13,320 of 13,320 clips; split as in params/ucf101_split.csv"


def test_random_split_divides_groups_of_every_class(published):
    _, clips = published
    train, test = split_ucf101(clips, 0.2, 42, "random")
    sizes, held_out = Counter(clip.label for clip in clips), Counter(clip.label for clip in test)
    assert held_out == {name: round(0.2 * size) for name, size in sizes.items()}
    divided = {(clip.label, clip.group) for clip in train} & {(clip.label, clip.group) for clip in test}
    assert {label for label, _ in divided} == set(CLASSES)
    assert not ucf101.is_shipped(ucf101.held_out_groups(train, test))


def test_files_of_handstand_pushups_are_spelt_otherwise(tmp_path):
    touch([clip for clip in clips_of(tmp_path) if clip.label.startswith("Handstand")])
    found = index_ucf101(tmp_path, walk(tmp_path))
    assert (tmp_path / "HandstandPushups/v_HandStandPushups_g25_c01.avi").is_file()
    assert [(clip.label, clip.group) for clip in found] == [
        (label, group) for label in ("HandstandPushups", "HandstandWalking") for group in NUMBERS
    ]


# --- what a folder lacks ---


@pytest.mark.filterwarnings("ignore:.*(no captions|ucfTrainTestlist)")
@pytest.mark.parametrize("top", ["", "UCF-101", "UCF101/UCF-101"])
def test_missing_empty_and_partial_classes_are_named(tmp_path, top):
    folder = tmp_path / top
    left_out = {"Archery", "Rafting", "YoYo"}
    clips = [clip for clip in clips_of(folder) if clip.label not in left_out]
    touch([clip for clip in clips if (clip.label, clip.group) != ("Surfing", 25)])
    (folder / "Rafting").mkdir()
    (folder / "Rafting/.v_Rafting_g01_c01.avi").touch()  # half copied
    (folder / "ucfTrainTestlist").mkdir()  # the published lists, often unpacked beside the classes
    with pytest.warns(UserWarning, match="Rafting holds no video"):
        found = find_layout(tmp_path)["ucf101"]
    comparison = ucf101.compare(found, tmp_path)
    assert comparison == {
        "clips": 98 * 25 - 1,
        "of": 13_320,
        "missing_classes": ["Archery", "YoYo"],
        "empty_classes": ["Rafting"],
        "partial_classes": ["Surfing"],
        "complete": False,
    }
    assert ucf101.describe(comparison | {"shipped_split": False}) == (
        "2,449 of 13,320 clips; classes missing: 2 (Archery, YoYo); classes empty: 1 (Rafting); "
        "classes without all 25 groups: 1 (Surfing); split other than params/ucf101_split.csv"
    )


def test_one_clip_fewer_is_not_complete(published):
    root, clips = published
    twin = clips[0]  # its group has other clips: no class is partial
    comparison = ucf101.compare([clip for clip in clips if clip != twin], root)
    assert (comparison["clips"], comparison["complete"], comparison["partial_classes"]) == (13_319, False, [])


def test_long_lists_of_names_are_cut_short(tmp_path):
    touch(clips := clips_of(tmp_path)[:25])
    line = ucf101.describe(ucf101.compare(clips, tmp_path) | {"shipped_split": True})
    assert "classes missing: 100 (ApplyLipstick, " in line and " and 90 more)" in line


@pytest.mark.parametrize(
    "files",
    [
        ["UCF-101/PanLeft/v_PanLeft_g01_c01.avi"],  # the rendered sample set
        ["UCF-101/Archery/v_Archery_g01_c01.avi", "UCF-101/Cats/a.mp4"],
        ["a.mp4", "b.mp4"],
    ],
)
def test_other_folders_are_not_compared(tmp_path, files):
    root = tmp_path / "Archery"  # loose clips are labelled by their folder, whatever its name
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    with pytest.warns(UserWarning, match="no captions"):
        found = find_layout(root)["ucf101"]
    assert "Archery" in {clip.label for clip in found} or len(files) == 1
    assert ucf101.compare(found, root) is None


# --- the data run ---


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two published classes of five groups, one damaged file among them, and an empty class."""
    root = tmp_path_factory.mktemp("videos")
    for label in ("Archery", "HandstandPushups"):
        for group in range(1, 6):
            for number in (1, 2):
                path = root / "UCF-101" / file_name(label, group, number)
                write_video(path, np.full((16, 32, 32, 3), 40 * group, np.uint8), 25, "mpeg4")
    whole = root / "UCF-101/Archery/v_Archery_g03_c02.avi"
    whole.write_bytes(whole.read_bytes()[:200])
    (root / "UCF-101/YoYo").mkdir()
    return root


@pytest.fixture
def index(tmp_path):
    """Indexes a folder as `python -m moviegen data index` does; every call has a run folder of its own."""

    def run(root, name, **overrides):
        params = config.load("smoke", {"data.root": str(root), **overrides})
        made = runs.Run(registry.find("data"), params, name, tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            index_data.index(made)
        return made

    return run


def read(run, name):
    return json.loads((run.folder / name).read_text())


def test_data_run_records_its_split(index, videos):
    run = index(videos, "one", seed=7)
    record = read(run, "split.json")
    test = load_index(run.folder / "ucf101_test.csv", videos)
    groups = {label: sorted({clip.group for clip in test if clip.label == label}) for label in record["test_groups"]}
    assert record == {"seed": 7, "by": "group", "test_share": 0.2, "test_groups": groups}
    assert {label: len(found) for label, found in groups.items()} == {"Archery": 1, "HandstandPushups": 1}


def test_same_seed_and_folder_give_the_same_bytes(index, videos):
    names = ("split.json", "ucf101_train.csv", "ucf101_test.csv")
    written = [
        [(run.folder / name).read_bytes() for name in names]
        for run in (index(videos, "one"), index(videos, "two"), index(videos, "other", seed=43))
    ]
    assert written[0] == written[1]
    assert written[0][0] != written[2][0]


def test_a_folder_that_is_divided_is_split_as_it_is(index, videos, tmp_path):
    for path in sorted((videos / "UCF-101/HandstandPushups").iterdir()):
        part = "val" if "_g02_" in path.name or "_g05_" in path.name else "train"
        copy = tmp_path / "mine" / part / "YoYo" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    run = index(tmp_path / "mine", "divided")
    for split in ("ucf101", "mixkit"):
        parts = {"train": f"{split}_train.csv", "val": f"{split}_{'test' if split == 'ucf101' else 'val'}.csv"}
        clips = {part: load_index(run.folder / name, tmp_path / "mine") for part, name in parts.items()}
        assert {part: {clip.group for clip in found} for part, found in clips.items()} == {
            "train": {1, 3, 4},
            "val": {2, 5},
        }
        assert all(part in clip.path.parts for part, found in clips.items() for clip in found)
    assert read(run, "split.json") == {"by": "folder"}
    assert read(run, "summary.json")["ucf101"] == {"train": 6, "test": 4, "classes": 1}


def test_random_split_records_no_groups(index, videos):
    record = read(index(videos, "random", **{"data.split": "random", "data.test_share": 0.3}), "split.json")
    assert record == {"seed": 42, "by": "random", "test_share": 0.3}


def test_class_divided_by_clip_holds_out_no_group():
    clips = [Clip(Path(f"A/{number}.avi"), label="A", group=1) for number in range(5)]
    assert ucf101.held_out_groups(clips[:4], clips[4:]) == {"A": []}
    assert ucf101.held_out_groups(clips, [Clip(Path("B/1.avi"), label="B", group=3)]) == {"A": [], "B": [3]}


def test_data_run_says_what_the_folder_lacks(index, videos, capsys):
    run = index(videos, "one")
    summary = read(run, "summary.json")
    official = summary["official"]
    assert summary["quarantined"] == 1 and summary["ucf101"]["train"] + summary["ucf101"]["test"] == 19
    assert (official["clips"], official["of"], official["complete"]) == (20, 13_320, False)  # damaged, but there
    assert len(official["missing_classes"]) == 98 and official["empty_classes"] == ["YoYo"]
    assert official["partial_classes"] == ["Archery", "HandstandPushups"] and official["shipped_split"] is False
    said = "20 of 13,320 clips; classes missing: 98 (ApplyEyeMakeup, ApplyLipstick, BabyCrawling, "
    assert f"UCF-101 as published: {said}" in capsys.readouterr().out
    assert said in clips_table(run).data
    assert "v_Archery_g03_c02.avi" in (run.folder / "quarantine.csv").read_text()


def test_data_run_compares_no_other_folder(index, videos, tmp_path, capsys):
    loose = tmp_path / "YoYo"
    loose.mkdir()
    for path in sorted((videos / "UCF-101/HandstandPushups").iterdir())[:3]:
        (loose / path.name).write_bytes(path.read_bytes())
    run = index(loose, "loose")
    assert read(run, "summary.json")["official"] is None
    assert "published" not in capsys.readouterr().out + clips_table(run).data
