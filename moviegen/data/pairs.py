"""Which files a command names, and where the result of each goes."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from moviegen.config import ConfigError
from moviegen.runs.folders import walk


def pairs_of(inputs: Sequence[str], output: Path, is_wanted: Callable[[Path], bool], suffix: str) -> dict[Path, Path]:
    """Each file that was asked for, and where its result goes.

    A single file's goes to `output`. Of several, or of folders and patterns, results go into the folder `output`, under
    the names that the files have below the folder that was named, with another suffix.

    Args:
        inputs: files, folders, of which all files are taken that are wanted, and patterns as a shell knows them.

    Raises:
        ConfigError: a folder or pattern has no such file, or two results would have one name.
    """
    found = {file: name for one in inputs for file, name in _files_of(one, is_wanted)}
    if len(inputs) == 1 and list(found) == [Path(inputs[0])]:
        return {Path(inputs[0]): output}
    sources: dict[Path, Path] = {}
    for file, name in found.items():
        target = output / name.with_suffix(suffix)
        if other := sources.get(target):
            raise ConfigError(f"--input: {other} and {file} would both become {target}: rename one, or give them apart")
        sources[target] = file
    return {file: target for target, file in sources.items()}


def _files_of(given: str, is_wanted: Callable[[Path], bool]) -> list[tuple[Path, Path]]:
    """The files that one word names, and what each is called below the folder that it names."""
    path = Path(given)
    if path.is_dir():
        files, root = [file for file in walk(path) if is_wanted(file)], path
    elif path.exists() or not glob.has_magic(given):
        return [(path, Path(path.name))]  # one that is not there is named when it is opened
    else:
        files = [file for file in map(Path, sorted(glob.glob(given, recursive=True))) if file.is_file()]
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    if not files:
        raise ConfigError(f"--input: {given} has no file to take")
    return [(file, file.relative_to(root)) for file in files]
