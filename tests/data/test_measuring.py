"""What each file holds: measured once, whatever happens to its name, its place or the process; none ends the rest."""

import json
import os
import shutil
import time

import numpy as np
import pytest

from moviegen import config
from moviegen.config import ConfigError
from moviegen.data import measuring
from moviegen.data.clips import Clip
from moviegen.data.measuring import Unusable, measure
from moviegen.data.videos import VideoInfo, write_video
from moviegen.runs import hashes, patience


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    """An outputs folder of its own; `hashes` remembers one a process."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))


@pytest.fixture
def folder(tmp_path):
    """Two clips of 9 and 12 frames, and of a third one half."""
    for name, frames in (("a", 9), ("b", 12), ("half", 40)):
        greys = np.linspace(0, 255, frames).astype(np.uint8)
        write_video(
            tmp_path / "clips" / f"{name}.mp4",
            np.broadcast_to(greys[:, None, None, None], (frames, 32, 48, 3)).copy(),
            25,
        )
    half = tmp_path / "clips" / "half.mp4"
    half.write_bytes(half.read_bytes()[:300])
    return tmp_path / "clips"


def look(*paths, **overrides):
    params = config.load("smoke", {name.replace("__", "."): value for name, value in overrides.items()})
    found = measure(params, [[Clip(path) for path in paths]])
    return {path.name: verdict for path, verdict in found.items()}


def frames_of(found):
    return {name: found[name].frames for name in sorted(found) if isinstance(found[name], VideoInfo)}


def stub(path):
    """Stands for a decoder that some files hang or kill."""
    if path.stem == "kills":
        os._exit(139)
    if path.stem == "hangs":
        time.sleep(1000)
    if path.stem == "half":
        raise MemoryError("too large a frame")
    return measuring.probe(path), measuring._state(path)


def test_files_that_hang_or_kill_the_decoder_are_set_aside_and_tried_again_next_time(folder, monkeypatch):
    whole = measuring._measure
    monkeypatch.setattr(measuring, "_measure", stub)
    for number, name in enumerate(("kills", "hangs")):
        (folder / f"{name}.mp4").write_bytes((folder / "a.mp4").read_bytes() + bytes([number]))
    paths = [folder / f"{name}.mp4" for name in ("kills", "a", "hangs", "b", "half")]
    found = look(*paths, data__time_limit=1)
    assert frames_of(found) == {"a.mp4": 9, "b.mp4": 12}
    assert found["kills.mp4"].kind == found["hangs.mp4"].kind == "stops the decoder"
    assert "SIGSEGV" in found["kills.mp4"].reason or "139" in found["kills.mp4"].reason
    assert found["hangs.mp4"].reason == "decoding takes longer than data.time_limit, 1 s"
    assert found["half.mp4"] == Unusable("stops the decoder", "MemoryError: too large a frame")
    monkeypatch.setattr(
        measuring, "map_unordered", lambda function, paths, *limits: ((p, whole(p)) for p in list(paths))
    )
    found = look(*paths)
    assert frames_of(found) == {"a.mp4": 9, "b.mp4": 12, "hangs.mp4": 9, "kills.mp4": 9}
    assert found["half.mp4"].kind == "cannot be decoded" and str(folder) not in found["half.mp4"].reason


def test_nothing_is_measured_again_whatever_its_name_and_place(folder, measured, tmp_path):
    first = look(*folder.glob("*.mp4"))
    assert sorted(measured) == ["a.mp4", "b.mp4", "half.mp4"]
    measured.clear()
    hashes._known.cache_clear()  # as another process
    assert look(*folder.glob("*.mp4"), seed=3) == first
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "a.mp4").rename(tmp_path / "copy" / "renamed.mp4")
    assert look(*(tmp_path / "copy").glob("*")) == {
        name.replace("a.mp4", "renamed.mp4"): verdict for name, verdict in first.items()
    }
    assert measured == []


def test_why_a_file_is_set_aside_names_no_other_place_where_it_was_found_before(folder, measured):
    (folder / "first.mp4").write_bytes(b"no video" * 100)
    look(folder / "first.mp4")
    shutil.copy(folder / "first.mp4", folder / "second.mp4")
    verdict = look(folder / "second.mp4")["second.mp4"]
    assert measured == ["first.mp4"]
    assert "Invalid data" in verdict.reason and "first" not in verdict.reason


def test_a_file_of_several_names_and_lists_is_measured_once(folder, measured):
    shutil.copy(folder / "a.mp4", folder / "twin.mp4")
    params = config.load("smoke")
    lists = [[Clip(folder / "a.mp4", caption) for caption in "xy"], [Clip(folder / "twin.mp4")]]
    found = measure(params, lists)
    assert measured == ["a.mp4"] and len(found) == 2 and len(set(found.values())) == 1


def test_a_file_of_other_content_or_measured_by_other_code_is_measured_again(folder, measured, monkeypatch):
    look(folder / "a.mp4")
    shutil.copy(folder / "b.mp4", folder / "a.mp4")
    assert frames_of(look(folder / "a.mp4")) == {"a.mp4": 12}
    monkeypatch.setattr(measuring, "packages", lambda module: {"av": "another"})
    look(folder / "a.mp4")
    assert measured == ["a.mp4"] * 3


def test_what_was_measured_before_the_process_was_killed_is_kept(folder, measured, tmp_path):
    class Killed(BaseException):
        pass

    def tell(done, of):
        assert of == 3
        if done == 2:
            raise Killed

    clips = [Clip(path) for path in sorted(folder.glob("*.mp4"))]
    with pytest.raises(Killed):
        measure(config.load("smoke"), [clips], tell)
    with (tmp_path / "outputs" / "measured.jsonl").open("a") as memory:
        memory.write('{"code": "half a li')
    measured.clear()
    assert frames_of(look(*folder.glob("*.mp4"))) == {"a.mp4": 9, "b.mp4": 12}
    assert measured == ["half.mp4"]


def test_a_damaged_memory_costs_only_what_it_lost(folder, measured, tmp_path):
    look(folder / "a.mp4", folder / "b.mp4")
    memory = tmp_path / "outputs" / "measured.jsonl"
    lines = memory.read_bytes().splitlines(keepends=True)
    memory.write_bytes(b"\0" * 40 + b"\n" + b"5\n" + lines[1])
    measured.clear()
    with pytest.warns(UserWarning, match="line 1 is damaged"):
        assert frames_of(look(folder / "a.mp4", folder / "b.mp4")) == {"a.mp4": 9, "b.mp4": 12}
    assert len(measured) == 1
    assert all(json.loads(line) for line in memory.read_text().splitlines())


def test_what_is_no_file_is_told_and_never_opened(folder, measured):
    (folder / "link.mp4").symlink_to("/nowhere/film.mp4")
    (folder / "good.mp4").symlink_to(folder / "a.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    name = os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(folder / "a.mp4", folder / name)
    names = ("link.mp4", "good.mp4", "loop.mp4", "folder.mp4", "pipe.mp4", "gone.mp4", name)
    found = look(*(folder / name for name in names))
    assert frames_of(found) == {"good.mp4": 9} and measured == ["good.mp4"]
    assert found["link.mp4"] == Unusable("not there", "a link to /nowhere/film.mp4, which is not there")
    assert found["gone.mp4"] == Unusable("not there", "no such file")
    assert found["folder.mp4"] == found["pipe.mp4"] == Unusable("not there", "not a file")
    assert found["loop.mp4"].kind == "not there"
    assert "not UTF-8" in found[name].reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_set_aside(folder, measured):
    (folder / "a.mp4").chmod(0)
    found = look(*folder.glob("[ab].mp4"))
    assert found["a.mp4"] == Unusable("cannot be read", "Permission denied") and frames_of(found) == {"b.mp4": 12}


def test_a_file_that_cannot_be_read_to_its_end_is_set_aside(folder, measured, monkeypatch):
    checksum = hashes.checksum

    def damaged(path):
        if path.name == "a.mp4":
            raise OSError(5, "Input/output error", str(path))
        return checksum(path)

    monkeypatch.setattr(hashes, "checksum", damaged)
    hashes._known.cache_clear()
    found = look(*folder.glob("[ab].mp4"))
    assert found["a.mp4"] == Unusable("cannot be read", "Input/output error") and frames_of(found) == {"b.mp4": 12}


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 5000)])
def test_a_file_that_changes_while_it_is_measured_is_set_aside_and_not_remembered(
    folder, measured, monkeypatch, change
):
    whole = measuring.probe

    def probe(path):
        info = whole(path)
        if path.name == "b.mp4":
            change(path)
        return info

    monkeypatch.setattr(measuring, "probe", probe)
    content = (folder / "b.mp4").read_bytes()
    found = look(*folder.glob("[ab].mp4"))
    assert found["b.mp4"].kind == "changed meanwhile" and frames_of(found) == {"a.mp4": 9}
    monkeypatch.setattr(measuring, "probe", whole)
    (folder / "b.mp4").write_bytes(content)
    assert frames_of(look(*folder.glob("[ab].mp4"))) == {"a.mp4": 9, "b.mp4": 12}


def test_more_files_than_one_wants_to_wait_for_are_refused_early(folder, measured, monkeypatch):
    now = [0.0]
    for number in range(50):
        (folder / f"{number}.mp4").write_bytes(b"no video" + bytes([number]))
    monkeypatch.setattr(patience, "monotonic", lambda: now[0])

    def slow(path):
        now[0] += 200
        return Unusable("cannot be decoded", "slow"), measuring._state(path)

    monkeypatch.setattr(measuring, "_measure", slow)
    with pytest.raises(ConfigError, match=r"measuring the clips takes 2\.\d hours more.*data\.max_clips to 1\d "):
        look(*(folder / f"{number}.mp4" for number in range(50)), data__patience_hours=1)
    assert len(measured) < 10


@pytest.mark.parametrize(("share", "workers"), [(0.25, 1), (1, 1), (2.5, 2), (64, 64)])
def test_as_many_workers_as_the_container_has_time_for(folder, monkeypatch, share, workers):
    """On a host of many cores each of too many would be late for `data.time_limit`, and its file set aside."""
    asked = []

    def each(function, paths, limit, workers):
        asked.append(workers)
        yield from ((path, function(path)) for path in list(paths))

    monkeypatch.setattr(measuring, "map_unordered", each)
    monkeypatch.setattr(measuring, "cores", lambda: share)
    look(folder / "a.mp4")
    assert asked == [workers]
