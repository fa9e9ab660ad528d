"""Tables of clips: CSV files with a header, as spreadsheets and other programs write them.

What has one meaning is read: a byte order mark, UTF-16 that has one, other delimiters and line ends, column names in
capitals or between spaces. What may have several, such as a row of more fields than the header, is refused by file and
line.
"""

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

DELIMITERS = ",;\t|"
MAX_FIELD = 100_000  # characters of one field; the csv module has a limit too, which other packages move
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
QUOTING_HELP = 'put a text that holds quotes in quotes, and write each of those inside it twice: "a ""big"" dog"'


def read_rows(path: Path, columns: set[str]) -> list[dict[str, str]]:
    """The rows of a table that a program here wrote, by column; raises what `numbered_rows` does."""
    return list(numbered_rows(path, columns).values())


def numbered_rows(path: Path, columns: set[str], skipinitialspace: bool = False) -> dict[int, dict[str, str]]:
    """The rows of a CSV file by the line they begin in, each a mapping by column; rows without text are left out.

    Args:
        columns: what it must have; others may be there too.
        skipinitialspace: spaces after a delimiter do not count, as people write them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is not UTF-8, lacks columns or rows, has a row of more or fewer fields than the
            header, or a quote that is not closed; the message names file, line and what to write.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no list of clips {path}; expected a CSV with the columns {sorted(columns)}")
    text = _text(path)
    delimiter = _delimiter(text, columns)
    records = _records(path, text, delimiter, skipinitialspace)
    _, header = next(records, (0, []))
    names = _names(header)
    if header and not columns <= set(names):
        raise ValueError(
            f"{path} lacks the columns {sorted(columns - set(names))}; it has {header}: its first line names them"
        )
    if repeated := sorted(name for name in columns if names.count(name) > 1):
        raise ValueError(f"{path} has two columns {repeated[0]!r}: rename the one that is not meant")
    rows = {line: _row(path, line, fields, names, delimiter) for line, fields in records}
    if not rows:
        raise ValueError(f"{path} is empty: there is no row below a header")
    return rows


def has_columns(path: Path, columns: set[str]) -> bool:
    """Whether the first line of a CSV file names these columns, whatever comes after it."""
    text = _decoded(_content(path), errors="replace")
    return columns <= set(_header(text, _delimiter(text, columns)))


def _text(path: Path) -> str:
    content = _content(path)
    try:
        text = _decoded(content)
    except UnicodeDecodeError as error:
        line, byte = content[: error.start].count(b"\n") + 1, error.object[error.start]
        raise ValueError(
            f"{path}, line {line}: byte 0x{byte:02x} is not {error.encoding}: save the file as UTF-8 (spreadsheets "
            f"call it CSV UTF-8)"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path}, line {line}: it holds a NUL byte, and so is no UTF-8 text: save the file as UTF-8")
    return text


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _decoded(content: bytes, errors: str = "strict") -> str:
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors)


def _delimiter(text: str, columns: set[str]) -> str:
    """What stands between the names of the columns."""
    fitting = (delimiter for delimiter in DELIMITERS if columns <= set(_header(text, delimiter)))
    return next(fitting, DELIMITERS[0])


def _header(text: str, delimiter: str) -> list[str]:
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    try:
        return _names(next(csv.reader([first], delimiter=delimiter), []))
    except csv.Error:  # a line too long to be a header
        return []


def _names(header: list[str]) -> list[str]:
    names = [name.strip().casefold() for name in header]
    while names and not names[-1]:  # a spreadsheet's empty columns
        names.pop()
    return names


def _records(path: Path, text: str, delimiter: str, skipinitialspace: bool) -> Iterator[tuple[int, list[str]]]:
    """Each record that holds any text, and the line it begins in."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=skipinitialspace, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}{_explained(str(error), line)}") from None
        if fields is None:
            return
        if any(len(field) > MAX_FIELD for field in fields):
            raise ValueError(f"{path}{_explained('field limit', line)}")
        if any(field.strip() for field in fields):
            yield line, fields


def _explained(error: str, line: int) -> str:
    if "unexpected end" in error or "field limit" in error:
        return f": the quote opened in line {line} is not closed: close it where the text ends; {QUOTING_HELP}"
    if "expected after" in error:
        return (
            f", line {line}: a quote ends before its field does, or was not closed in an earlier line: {QUOTING_HELP}"
        )
    return f", line {line}: {error}"


def _row(path: Path, line: int, fields: list[str], names: list[str], delimiter: str) -> dict[str, str]:
    if any(field.strip() for field in fields[len(names) :]):
        raise ValueError(
            f"{path}, line {line} has {len(fields)} fields and the header {len(names)}: put a caption that holds "
            f"{delimiter!r} in quotes"
        )
    if len(fields) < len(names):
        raise ValueError(
            f"{path}, line {line} has {len(fields)} of the fields {names}: write all, with {delimiter!r} between them"
        )
    return dict(zip(names, fields, strict=False))
