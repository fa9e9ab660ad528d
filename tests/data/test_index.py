"""The index of a cache: noted while files are written, read in their place, right however ranks came to their end."""

import csv

import numpy as np
import pytest

from moviegen.config import ConfigError
from moviegen.data import index
from moviegen.data.index import Cache, Stored
from moviegen.data.reading import in_threads
from moviegen.runs.arrays import save_npz

MEND = "mend it"


def write(folder, count, ranks=1, noted=True):
    """Files of arrays (i + 1, 3), written by ranks in turn."""
    names = {}
    for number in range(count):
        path, values = folder / "one" / f"{number}.npz", np.zeros((number + 1, 3), np.float16)
        save_npz(path, values=values)
        if noted:
            index.note(folder, number % ranks, path, values)
        names[path] = f'clip {number}, "quoted"'
    return names


def wanted(names):
    return {
        path.relative_to(path.parents[1]).as_posix(): Stored((number + 1, 3), "float16", path.stat().st_size)
        for number, path in enumerate(names)
    }


def headers_read(monkeypatch):
    read, found = index.npz_headers, []
    monkeypatch.setattr(
        index, "npz_headers", lambda path, *names, mend: found.append(path.name) or read(path, *names, mend=mend)
    )
    return found


@pytest.mark.parametrize("ranks", [1, 3])
def test_what_ranks_note_is_the_index_and_no_file_is_opened_for_it(tmp_path, ranks, monkeypatch):
    names, opened = write(tmp_path, 7, ranks), headers_read(monkeypatch)
    assert len(list(tmp_path.glob("index-*.csv"))) == ranks
    index.join(tmp_path, names, "values", MEND)
    assert index.read_index(tmp_path) == wanted(names)
    assert list(tmp_path.glob("index*.csv")) == [tmp_path / "index.csv"]
    with (tmp_path / "index.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(names.values())
    Cache.of(tmp_path, MEND).stored(list(names), "values")
    assert opened == []


def test_what_a_killed_rank_did_not_note_has_its_header_read(tmp_path, monkeypatch):
    names, opened = write(tmp_path, 5, 2), headers_read(monkeypatch)
    (part, other) = sorted(tmp_path.glob("index-*.csv"))
    part.write_text(part.read_text()[:-9])  # the last line, of 4.npz, is cut
    other.unlink()
    index.join(tmp_path, names, "values", MEND)
    assert index.read_index(tmp_path) == wanted(names)
    assert sorted(opened) == ["1.npz", "3.npz", "4.npz"]


def test_a_run_that_goes_on_keeps_what_was_known_and_sees_what_was_made_again(tmp_path, monkeypatch):
    names = write(tmp_path, 4)
    index.join(tmp_path, names, "values", MEND)
    opened = headers_read(monkeypatch)
    again = list(names)[2]
    save_npz(again, values=np.zeros((9, 3), np.float16))
    index.join(tmp_path, names, "values", MEND)
    assert index.read_index(tmp_path)["one/2.npz"].shape == (9, 3)
    assert opened == ["2.npz"]


@pytest.mark.parametrize("looks", [True, False])
def test_without_an_index_headers_are_read_by_the_one_who_looks(tmp_path, looks, monkeypatch):
    names, opened = write(tmp_path, 3, noted=False), headers_read(monkeypatch)
    cache = Cache.of(tmp_path, MEND, looks)
    assert all(map(cache.has, names)) and not cache.has(tmp_path / "one" / "9.npz")
    found = cache.stored(list(names), "values", "values")
    assert found == ({path: ((n + 1, 3), (n + 1, 3)) for n, path in enumerate(names)} if looks else {})
    assert len(opened) == (3 if looks else 0)


def test_a_list_of_before_there_were_shapes_is_no_index(tmp_path):
    (tmp_path / "index.csv").write_text("clip,frames,height,width,file\na.mp4,1,2,3,one/0.npz\n")
    assert index.read_index(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "said"), [("cut", r"has \d+ bytes, and .*index.csv says"), ("gone", "is missing, and")]
)
def test_a_file_that_is_not_as_the_index_says_is_refused_by_the_one_who_looks(tmp_path, change, said):
    names = write(tmp_path, 3)
    index.join(tmp_path, names, "values", MEND)
    path = list(names)[1]
    path.unlink() if change == "gone" else path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=rf"{path} {said} .*mend it"):
        Cache.of(tmp_path, MEND).stored(list(names), "values")
    assert Cache.of(tmp_path, MEND, looks=False).stored(list(names), "values")[path] == ((2, 3),)


def test_threads_keep_the_order_and_raise_the_first_error():
    assert in_threads(lambda number: number * number, range(100)) == [number * number for number in range(100)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 // (number - 3), range(100))
