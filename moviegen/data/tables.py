"""Tables of clips: CSV files with a header."""

import csv
from pathlib import Path


def read_rows(path: Path, columns: set[str]) -> list[dict[str, str]]:
    """The rows of a CSV file, by column.

    Raises FileNotFoundError without the file, ValueError without its columns or without rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no list of clips {path}; expected a CSV with the columns {sorted(columns)}")
    with path.open(newline="", encoding="utf-8-sig") as file:  # -sig: spreadsheets write a byte order mark
        reader = csv.DictReader(file, restval="")
        header, rows = reader.fieldnames or [], list(reader)
    if header and not columns <= set(header):
        raise ValueError(f"{path} lacks the columns {sorted(columns - set(header))}; it has {header}")
    if not rows:
        raise ValueError(f"{path} is empty: it lists no clip")
    return rows
