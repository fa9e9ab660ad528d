"""Clips that turn out to be damaged while a run goes on."""

import os
from pathlib import Path

import pytest

from moviegen.data.clips import Clip
from moviegen.data.quarantine import Quarantine
from moviegen.data.videos import BrokenVideo

CLIPS = [Clip(Path(f"{name}.avi")) for name in "abcd"]


def reader(*broken):
    def view(clip):
        if clip.path.stem in broken:
            raise BrokenVideo(clip.path, "half a file")
        return clip.path.stem.upper()

    return view


def test_a_sound_clip_is_read_and_nothing_is_written(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.csv")
    assert quarantine.read(CLIPS, 2, reader()) == (CLIPS[2], "C")
    assert len(quarantine) == 0
    assert not quarantine.path.exists()


@pytest.mark.parametrize(("index", "broken", "taken"), [(1, "b", 2), (1, "bc", 3), (3, "d", 0), (2, "cda", 1)])
def test_the_next_sound_clip_takes_the_place_of_a_damaged_one(index, broken, taken, tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.csv")
    with pytest.warns(UserWarning, match="half a file"):
        clip, view = quarantine.read(CLIPS, index, reader(*broken))
    assert (clip, view) == (CLIPS[taken], clip.path.stem.upper())
    assert len(quarantine) == len(broken)


def test_a_clip_set_aside_is_not_opened_again_also_by_a_resumed_run(tmp_path):
    path = tmp_path / "run" / "quarantine.csv"
    with pytest.warns(UserWarning, match="set aside"):
        Quarantine(path).read(CLIPS, 0, reader("a"))
    assert path.read_text() == "path,reason\na.avi,half a file\n"
    resumed = Quarantine(path)
    assert CLIPS[0] in resumed
    assert resumed.read(CLIPS, 0, reader()) == (CLIPS[1], "B")  # though it could be read by now


def test_a_name_that_is_not_utf8_is_listed_and_known_again(tmp_path):
    clip = Clip(Path(os.fsdecode(b"caf\xe9.avi")))
    with pytest.warns(UserWarning, match=r"caf\\udce9\.avi is set aside"):
        Quarantine(tmp_path / "quarantine.csv").add(clip, "half a file")
    assert (tmp_path / "quarantine.csv").read_text(encoding="utf-8") == "path,reason\ncaf\\udce9.avi,half a file\n"
    assert clip in Quarantine(tmp_path / "quarantine.csv")


def test_without_any_sound_clip_the_run_ends_naming_the_list(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.csv")
    with pytest.warns(UserWarning, match="set aside"), pytest.raises(BrokenVideo, match="every other of 4 clips"):
        quarantine.read(CLIPS, 1, reader(*"abcd"))
