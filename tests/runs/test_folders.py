"""The walk over a folder: links are followed, loops end, and what is hidden or made here is not there."""

import os

import pytest

from moviegen.runs.folders import listed, subfolders, walk


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "folder" / "outputs"))
    made = tmp_path / "folder"
    for name in ("b.mp4", "a/c.mp4", "a/d/e.txt", "outputs/tiny/f.mp4", ".hidden.mp4", ".cache/g.mp4"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).touch()
    return made


def names(folder):
    return [path.relative_to(folder).as_posix() for path in walk(folder)]


def test_files_at_any_depth_but_what_is_hidden_or_made_here(folder):
    assert names(folder) == ["a/c.mp4", "a/d/e.txt", "b.mp4"]
    assert [path.name for path in subfolders(folder)] == ["a"]


def test_what_lies_in_the_outputs_folder_itself_is_walked(folder):
    assert names(folder / "outputs") == ["tiny/f.mp4"]


def test_links_are_followed_and_loops_are_not(folder, tmp_path):
    (tmp_path / "store" / "deep").mkdir(parents=True)
    (tmp_path / "store" / "deep" / "h.mp4").touch()
    (tmp_path / "store" / "back").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "store")
    (folder / "again").symlink_to(tmp_path / "store")
    (folder / "a" / "up").symlink_to("..")
    (folder / "a" / "d" / "up").symlink_to("..")
    (folder / "itself").symlink_to("itself")
    (folder / "gone.mp4").symlink_to("/nowhere/gone.mp4")
    (folder / "one.mp4").symlink_to(folder / "b.mp4")
    expected = [
        "a/c.mp4",
        "a/d/e.txt",
        "again/deep/h.mp4",
        "b.mp4",
        "gone.mp4",
        "itself",
        "linked/deep/h.mp4",
        "one.mp4",
    ]
    assert names(folder) == expected


def test_outputs_behind_a_link_are_not_there(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results").symlink_to(folder / "outputs")
    assert walk(tmp_path / "other") == [] == subfolders(tmp_path / "other")


def test_what_is_no_file_is_not_there(folder):
    os.mkfifo(folder / "pipe.mp4")
    assert "pipe.mp4" not in names(folder)


def test_a_folder_that_may_not_be_looked_into_is_named(folder, monkeypatch):
    scandir = os.scandir

    def guarded(place):
        if str(place).endswith("/a"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.warns(UserWarning, match=r"cannot look into .*/a \(Permission denied\): what is in it is left out"):
        assert names(folder) == ["b.mp4"]


def test_a_long_list_is_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
