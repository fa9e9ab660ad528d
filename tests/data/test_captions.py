"""Lists of captions: which clips they name, wherever those lie in the data folder, and what is refused."""

import csv
import os
import unicodedata

import pytest

from moviegen.data.captions import FileFinder, index_mixkit
from moviegen.runs.folders import walk
from tests.data.test_datasets import touch
from tests.mutations import mutations


def write_csv(path, *rows, header=("video", "caption")):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def index(root, listed, folder=""):
    return index_mixkit(listed, FileFinder(walk(root), [root / folder, root]), {})


def test_mixkit_list(tmp_path):
    touch(tmp_path / "mixkit", "a.mp4", "sub/b.mp4")
    rows = [("a.mp4", "A cat, asleep."), ("sub/b.mp4", "Ein Hund läuft."), ("a.mp4", "A sleeping cat.")]
    clips = index(tmp_path, write_csv(tmp_path / "list.csv", *rows), "mixkit")
    assert [(str(clip.path.relative_to(tmp_path / "mixkit")), clip.caption) for clip in clips] == rows
    assert clips[0].group == clips[2].group != clips[1].group  # two captions of one video stay together


def test_a_list_may_say_it_in_other_words(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = [("a.mp4", "A cat, asleep.", "  Some feline at rest \n"), ("b.mp4", "A dog.", "")]
    listed = write_csv(tmp_path / "list.csv", *rows, header=("video", "caption", "paraphrase"))
    assert [(clip.caption, clip.paraphrase) for clip in index(tmp_path, listed)] == [
        ("A cat, asleep.", "Some feline at rest"), ("A dog.", ""),
    ]  # fmt: skip


def test_a_list_without_other_words_has_none(tmp_path):
    touch(tmp_path, "a.mp4")
    (clip,) = index(tmp_path, write_csv(tmp_path / "list.csv", ("a.mp4", "A cat.")))
    assert clip.paraphrase == ""


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mixkit/a.mp4", "a.mp4"),
        ("mixkit/a.mp4", "mixkit/a.mp4"),
        ("mixkit/a.mp4", "./a.mp4"),
        ("mixkit/a.mp4", " a.mp4 "),
        ("mixkit/sub/a.mp4", "sub\\a.mp4"),
        ("mixkit/sub/a.mp4", "other/../sub/a.mp4"),
        ("elsewhere/deep/a.mp4", "a.mp4"),  # the only file of that name
        ("mixkit/ a.mp4", " a.mp4"),
        ("mixkit/sub\\a.mp4", "sub\\a.mp4"),
        ("mixkit/a.WEBM", "a.WEBM"),
        ("mixkit/-a #1 100%?'\"\t😀.mp4", "-a #1 100%?'\"\t😀.mp4"),
        ("mixkit/two\nlines.mp4", "two\nlines.mp4"),
        ("mixkit/" + unicodedata.normalize("NFD", "café.mp4"), unicodedata.normalize("NFC", "café.mp4")),
        ("mixkit/" + unicodedata.normalize("NFC", "café.mp4"), unicodedata.normalize("NFD", "café.mp4")),
        ("mixkit/0003.mp4", "0003.mp4"),
    ],
)
def test_a_video_is_found_by_what_the_list_calls_it(tmp_path, file, name):
    touch(tmp_path, file, "mixkit/other.mp4")
    listed = tmp_path / "list.csv"
    listed.write_text(f'video,caption\n"{name.replace(chr(34), chr(34) * 2)}",A\n', encoding="utf-8")
    assert [(clip.path, clip.caption) for clip in index(tmp_path, listed, "mixkit")] == [(tmp_path / file, "A")]


def test_an_absolute_path_in_the_folder_is_one_of_its_files(tmp_path):
    touch(tmp_path, "a.mp4")
    assert len(index(tmp_path, write_csv(tmp_path / "list.csv", (tmp_path / "a.mp4", "A")))) == 1


def test_a_linked_video_is_found_and_so_is_one_that_is_gone(tmp_path):
    touch(tmp_path / "store", "a.mp4")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.mp4").symlink_to(tmp_path / "store" / "a.mp4")
    (tmp_path / "data" / "gone.mp4").symlink_to(tmp_path / "store" / "gone.mp4")
    listed = write_csv(tmp_path / "data" / "list.csv", ("a.mp4", "A"), ("gone.mp4", "B"))
    assert [clip.path.name for clip in index(tmp_path / "data", listed)] == ["a.mp4", "gone.mp4"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.mp4", "lies outside"),
        ("sub/../../secret.mp4", "lies outside"),
        ("/etc/passwd", "lies outside"),
        ("/home/other/a.mp4", "lies outside"),
        ("C:\\clips\\b.mp4", "lies outside"),
        ("https://example.org/b.mp4", "is an address, and nothing is downloaded"),
        ("s3://bucket/b.mp4", "is an address"),
        ("", "names no video"),
        ("  ", "names no video"),
    ],
)
def test_what_lies_outside_is_refused_with_its_line(tmp_path, name, message):
    touch(tmp_path, "secret.mp4", "data/a.mp4")
    listed = write_csv(tmp_path / "data" / "list.csv", ("a.mp4", "A"), (name, "B"))
    with pytest.raises(ValueError, match=rf"list\.csv, line 3: .*{message}"):
        index(tmp_path / "data", listed)


@pytest.mark.parametrize("caption", ["", "  "])
def test_a_row_without_a_caption_is_refused(tmp_path, caption):
    touch(tmp_path, "a.mp4", "b.mp4")
    listed = write_csv(tmp_path / "list.csv", ("a.mp4", "A"), ("b.mp4", caption))
    with pytest.raises(ValueError, match=r"list\.csv, line 3: b\.mp4 has no caption"):
        index(tmp_path, listed)


def test_a_caption_that_swallows_rows_is_refused(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    listed = tmp_path / "list.csv"
    listed.write_text('video,caption\na.mp4,"a man\nb.mp4,a cat\nc.mp4,"\n')
    with pytest.raises(
        ValueError, match=r"line 2: the caption of a\.mp4 goes on to the row of b\.mp4: close its quote"
    ):
        index(tmp_path, listed)
    listed.write_text('video,caption\na.mp4,"a man,\na cat, and\nmany more"\n')
    assert [clip.caption for clip in index(tmp_path, listed)] == ["a man,\na cat, and\nmany more"]


def test_mixkit_missing_files_are_counted_and_named(tmp_path):
    touch(tmp_path, "a.mp4", "d.dat")
    listed = write_csv(tmp_path / "list.csv", ("a.mp4", "A"), ("b.mp4", "B"), ("c.mp4", "C"), ("d.dat", "D"))
    with pytest.warns(UserWarning, match=r"3 of 4 missing: b\.mp4, c\.mp4, d\.dat \(no video by its suffix\)"):
        assert [clip.caption for clip in index(tmp_path, listed)] == ["A"]
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(ValueError, match="none of the 4 videos"):
        index(tmp_path, listed)
    many = write_csv(tmp_path / "many.csv", *((f"{number}.mp4", "A") for number in range(1000)), ("7.mp4", "B"))
    touch(tmp_path, "7.mp4")
    with pytest.warns(UserWarning, match=r"999 of 1001 missing: 0\.mp4, .* and 989 more"):
        assert len(index(tmp_path, many)) == 2


def test_a_name_that_two_files_share_is_neither(tmp_path):
    touch(tmp_path, "one/a.mp4", "two/a.mp4", "b.mp4")
    with pytest.warns(UserWarning, match=r"1 of 2 missing: a\.mp4"):
        assert len(index(tmp_path, write_csv(tmp_path / "list.csv", ("a.mp4", "A"), ("b.mp4", "B")))) == 1


def test_rows_that_repeat_another_are_counted_once(tmp_path):
    touch(tmp_path, "a.mp4")
    listed = write_csv(tmp_path / "list.csv", ("a.mp4", "A"), ("a.mp4", "B"), ("a.mp4", "A"))
    with pytest.warns(UserWarning, match=r"1 of 3 listed again: a\.mp4 \(line 4 as line 2\)"):
        assert [clip.caption for clip in index(tmp_path, listed)] == ["A", "B"]


def test_bad_caption_lists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv.*'caption', 'video'"):
        index(tmp_path, tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match=r"list\.csv is empty"):
        index(tmp_path, write_csv(tmp_path / "list.csv"))


@pytest.mark.filterwarnings("ignore:.*(missing|listed again)")
def test_a_damaged_list_is_refused_by_name_or_read_as_it_says(tmp_path):
    names = [f"{letter}.mp4" for letter in "abcdefgh"]
    touch(tmp_path, *names)
    captions = ["a man, walking", "a cat", 'a "big" dog', "café", "two\nlines", "x" * 60, "007", "ein Hund; läuft"]
    good = write_csv(tmp_path / "list.csv", *zip(names, captions, strict=True)).read_bytes()
    read = 0
    for damaged in mutations(good, 60, seed=3):
        (tmp_path / "list.csv").write_bytes(damaged)
        try:
            clips = index(tmp_path, tmp_path / "list.csv")
        except ValueError as error:
            assert f"{tmp_path}/list.csv" in str(error) and "Error" not in str(error)
            continue
        read += 1
        text = damaged.decode().replace("\r\n", "\n")
        for clip in clips:
            row = [clip.path.name, clip.caption.replace("\r\n", "\n")]
            quoted = [f'"{field.replace(chr(34), chr(34) * 2)}"' for field in row]
            spellings = [f"{video},{caption}" for video in (row[0], quoted[0]) for caption in (row[1], quoted[1])]
            assert any(spelling in text for spelling in spellings), (spellings, text)
    assert 0 < read < 60


def test_the_folder_may_be_named_from_where_one_stands(tmp_path, monkeypatch):
    touch(tmp_path, "data/a.mp4")
    listed = write_csv(tmp_path / "data" / "list.csv", ("a.mp4", "A"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", os.fspath(tmp_path / "outputs"))
    assert [clip.path.as_posix() for clip in index(listed.parent.relative_to(tmp_path), listed)] == ["data/a.mp4"]
