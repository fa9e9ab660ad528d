"""UCF-101 as published: its classes and counts, the split this report ships, and what a folder lacks of it.

`params/ucf101_split.csv` (`class,test_groups`) is what `datasets.split_ucf101` gives for the published folder with seed
42 and a test share of 0.2 by group. It is shipped because NumPy does not promise the same shuffle for ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moviegen.config import project_root
from moviegen.data.clips import Clip
from moviegen.data.tables import read_rows
from moviegen.runs.folders import listed

CLIPS = 13_320
GROUPS = 25  # of every class, numbered from 1
ALL_GROUPS = set(range(1, GROUPS + 1))
SPLIT_FILE = "params/ucf101_split.csv"


def shipped_split() -> dict[str, list[int]]:
    """Each of the 101 published classes, in alphabetical order, with the groups held out of it for testing.

    Raises FileNotFoundError without the shipped file.
    """
    rows = read_rows(project_root() / SPLIT_FILE, {"class", "test_groups"})
    return {row["class"]: [int(group) for group in row["test_groups"].split()] for row in rows}


def held_out_groups(train: Iterable[Clip], test: Iterable[Clip]) -> dict[str, list[int]]:
    """Each class of either list with the groups that only `test` has; a group divided between both is not held out."""
    kept, tested = ({(clip.label, clip.group) for clip in clips} for clips in (train, test))
    classes = sorted({label for label, _ in kept | tested})
    return {name: sorted(group for label, group in tested - kept if label == name) for name in classes}


def is_shipped(held_out: Mapping[str, list[int]]) -> bool:
    """Whether each class of `held_out` (as `held_out_groups` gives it) is split as in the shipped file."""
    shipped = shipped_split()
    return all(shipped.get(label) == groups for label, groups in held_out.items())


def compare(clips: Sequence[Clip], root: Path) -> dict[str, Any] | None:
    """What the data folder `root` lacks of UCF-101; `clips` is its index (`layouts.find_layout`), not yet checked.

    Not yet checked, because a clip too short for a recipe is still there: who has all files has all of UCF-101.

    Returns:
        None where `root` is not UCF-101 as published: not all clips lie in folders of published classes, side by side
        in `root` or in one folder below it.
        Otherwise `clips` and `of` (numbers of files), the names `missing_classes` (no folder), `empty_classes` (a
        folder without videos) and `partial_classes` (not all 25 groups), and whether it is `complete`.

    Raises:
        FileNotFoundError: without the shipped file.
    """
    folders = {clip.path.parent.parent for clip in clips}
    folder = folders.pop()
    if folders or not folder.is_relative_to(root):
        return None
    groups: dict[str, set[int]] = {label: set() for label in shipped_split()}
    for clip in clips:
        if clip.label not in groups or clip.path.parent != folder / clip.label:
            return None
        groups[clip.label].add(clip.group)
    lacking = {
        "missing_classes": [label for label in groups if not (folder / label).is_dir()],
        "empty_classes": [label for label, numbers in groups.items() if not numbers and (folder / label).is_dir()],
        "partial_classes": [label for label, numbers in groups.items() if numbers and ALL_GROUPS - numbers],
    }
    return {"clips": len(clips), "of": CLIPS, **lacking, "complete": len(clips) == CLIPS and not any(lacking.values())}


def describe(official: Mapping[str, Any]) -> str:
    """What `compare` found, and `shipped_split` (whether the split is the shipped one), in one line of plain text."""
    parts = [f"{official['clips']:,} of {official['of']:,} clips"]
    for key, what in (("missing", "missing"), ("empty", "empty"), ("partial", f"without all {GROUPS} groups")):
        if names := official[f"{key}_classes"]:
            parts.append(f"classes {what}: {len(names)} ({listed(names)})")
    parts.append(f"split {'as in' if official['shipped_split'] else 'other than'} {SPLIT_FILE}")
    return "; ".join(parts)
