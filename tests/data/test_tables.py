"""CSV files as spreadsheets, other programs and people write them: read right, or refused by file and line."""

from pathlib import Path

import pytest

from moviegen.data.tables import has_columns, numbered_rows, read_rows

COLUMNS = {"video", "caption"}
GOOD = "video,caption\na.mp4,a man\nb.mp4,café\n"
ROWS = [("a.mp4", "a man"), ("b.mp4", "café")]


def rows(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(row["video"], row["caption"]) for row in numbered_rows(path, COLUMNS, **options).values()]


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        b"\xef\xbb\xbf" + GOOD.encode(),
        b"\xff\xfe" + GOOD.encode("utf-16-le"),
        b"\xfe\xff" + GOOD.encode("utf-16-be"),
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", "|"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.replace("video,caption", "Video, Caption "),
        GOOD.replace("video,caption", '"VIDEO","caption"'),
        GOOD.replace("\n", "\n\n  \n,\n"),
        "\n" + GOOD,
        GOOD.replace("\n", ",,\n"),  # a spreadsheet's empty columns
        GOOD.replace("a man", "a man,"),
        GOOD.replace("a man", '"a man"'),
        GOOD.removesuffix("\n"),
        "caption,frames,video\na man,16,a.mp4\ncafé,8,b.mp4\n",
        "id,video,id,caption\n1,a.mp4,2,a man\n1,b.mp4,2,café\n",
    ],
)
def test_what_is_certain_is_read(tmp_path, content):
    assert rows(tmp_path / "list.csv", content) == ROWS


def test_texts_stay_as_they_are(tmp_path):
    texts = ["007", "1e5", "NA", "null", "nan", "True", "", 'a "big" dog', "an inch: 1\" and '", "two\nlines", "\\n"]
    quoted = "".join(f'{number}.mp4,"{text.replace(chr(34), chr(34) * 2)}"\n' for number, text in enumerate(texts))
    read = rows(tmp_path / "list.csv", "video,caption\n" + quoted)
    assert read == [(f"{number}.mp4", text) for number, text in enumerate(texts)]
    assert rows(tmp_path / "list.csv", 'video,caption\na.mp4,a "big" dog\n') == [("a.mp4", 'a "big" dog')]


def test_spaces_after_a_comma_count_in_tables_of_programs_alone(tmp_path):
    content = 'video,caption\na.mp4, "a man, walking"\n'
    assert rows(tmp_path / "list.csv", content, skipinitialspace=True) == [("a.mp4", "a man, walking")]
    assert rows(tmp_path / "list.csv", "video,caption\n a.mp4, x\n") == [(" a.mp4", " x")]


def test_a_table_that_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    (tmp_path / "list.csv").write_text(GOOD)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    for look in (numbered_rows, has_columns):
        with pytest.raises(ValueError, match=r"list\.csv cannot be read: Permission denied"):
            look(tmp_path / "list.csv", COLUMNS)


def test_rows_are_counted_in_lines(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('video,caption\n\na.mp4,"two\nlines"\nb.mp4,one\n')
    assert list(numbered_rows(path, COLUMNS)) == [3, 5]
    assert [row["video"] for row in read_rows(path, COLUMNS)] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video,caption\na.mp4,a man, walking\n", r", line 2 has 3 fields and the header 2: .* ',' in quotes"),
        ("video;caption\na.mp4;a\nb.mp4;a man; walking\n", r", line 3 has 3 fields .* ';' in quotes"),
        ("video,caption\na.mp4;a man\n", r", line 2 has 1 of the fields \['video', 'caption'\]"),
        ("video,caption,frames\na.mp4,a man\n", r", line 2 has 2 of the fields"),
        ('video,caption\na.mp4,"a man\nb.mp4,a cat\n', r"the quote opened in line 2 is not closed"),
        ('video,caption\na.mp4,"a man\nb.mp4,"a cat"\n', r", line 2: a quote ends before its field does"),
        (
            'video,caption\na.mp4,A\nb.mp4,"a \\"big\\" dog"\n',
            r', line 3: a quote ends .* inside it twice: "a ""big"" ',
        ),
        (
            "video,caption\na.mp4,caf\xe9\n".encode("cp1252"),
            r", line 2: byte 0xe9 is not utf-8: save the file as UTF-8",
        ),
        (b"\xff\xfe" + GOOD.encode("utf-16-le") + b"\n", r", line \d+: byte 0x0a is not utf-16"),
        (GOOD.replace("é", "e").encode("utf-16-le"), r", line 1: .*NUL byte"),
        (GOOD.replace("man", "m\0n"), r", line 2: .*NUL byte"),
        (f"video,caption\na.mp4,{'x' * 140_000}\n", r"the quote opened in line 2 is not closed"),
        ("video,video,caption\na.mp4,b.mp4,A\n", r"two columns 'video'"),
        ("video,text\na.mp4,A\n", r"lacks the columns \['caption'\]; it has \['video', 'text'\]"),
        ("a.mp4,a man\n", r"lacks the columns .* its first line names them"),
        (f"{'v' * 140_000}\n", r"the quote opened in line 1 is not closed"),
        ("", r"is empty: there is no row"),
        ("\n\n", r"is empty: there is no row"),
        ("video,caption\n,\n", r"is empty: there is no row"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"{tmp_path}/list\.csv.*{message}"):
        rows(tmp_path / "list.csv", content)
