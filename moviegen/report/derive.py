"""Derives again what a section's notebook shows, from the runs that are on disk, and says which of their files it read.

Nothing is started: only what is current is derived again, and all that its notebook would start is complete.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from moviegen.config import Params, outputs_folder
from moviegen.report import addresses, jupyter, sections
from moviegen.report.notebook import SCREEN, Screen
from moviegen.report.run import parameters

_readers: list[list[Path]] = []  # of those who ask which files are read, what was


@dataclass(frozen=True)
class Derivation:
    """A notebook whose outputs were derived again, and the files of runs that each of its cells read."""

    notebook: Any
    read: tuple[tuple[Path, ...], ...]


def derive(params: Params, section: sections.Section) -> Derivation:
    """Runs the cells of a section's notebook as it is committed, in this process; once, while its runs are the same.

    It must be current, so that nothing is started; see `sections.is_current`.
    """
    with jupyter.as_published():
        return _derived(params.model_dump_json(), section, json.dumps(sections.mark(params, section)))


def forget() -> None:
    """Has all be derived again: files of runs may have been edited, which their marks do not tell."""
    _derived.cache_clear()


@functools.cache
def _derived(content: str, section: sections.Section, mark: str) -> Derivation:
    params = Params.model_validate_json(content)
    made, runs, screen, read = _given(params, section), outputs_folder(params) / "runs", _Gathered(), []
    names: dict[str, Any] = {SCREEN: screen}
    for cell in made.cells:
        with _reading() as files:
            if cell.cell_type == "code":
                cell.outputs = _outputs(cell.source, names, screen)
        read.append(tuple(dict.fromkeys(path for path in files if runs in path.parents)))
    addresses.for_executed(made, section, section.executed(params).parent)
    return Derivation(made, tuple(read))


def _given(params: Params, section: sections.Section) -> Any:
    """The notebook as papermill executes it, without outputs."""
    from papermill.iorw import load_notebook_node  # 1 s to import
    from papermill.parameterize import parameterize_notebook

    made = parameterize_notebook(load_notebook_node(str(section.source)), parameters(params, section))
    executed = load_notebook_node(str(section.executed(params)))
    made.metadata["language_info"] = executed.metadata.get("language_info", {})  # a kernel says it, of itself
    return made


class _Gathered(Screen):
    """What a cell shows, in the place of a notebook that a report executes."""

    is_notebook = True
    is_live = False

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def show(self, content: Any) -> None:
        self.shown.append(content)

    def clear(self) -> None:
        self.shown.clear()


def _outputs(source: str, names: dict[str, Any], screen: _Gathered) -> list[Any]:
    """What a cell displays, and the value of its last expression."""
    screen.clear()
    value, cell = None, ast.parse(source)
    last = cell.body.pop() if cell.body and isinstance(cell.body[-1], ast.Expr) else None
    exec(compile(cell, source, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), source, "eval"), names)
    outputs = [_output("display_data", one) for one in screen.shown]
    return outputs if value is None else [*outputs, _output("execute_result", value)]


def _output(kind: str, shown: Any) -> Any:
    return nbformat.v4.new_output(kind, {"text/html": shown._repr_html_()})


def html_outputs(cell: Any) -> str:
    """What a cell shows, as HTML."""
    shown = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", ())]
    return "".join("".join(content) for content in shown)


@contextmanager
def _reading() -> Iterator[list[Path]]:
    """Gathers the files that Python opens to read meanwhile; a decoder of clips opens its own."""
    _listen()
    files: list[Path] = []
    _readers.append(files)
    try:
        yield files
    finally:
        _readers.remove(files)


@functools.cache
def _listen() -> None:
    sys.addaudithook(_heard)  # once: nothing takes it out again


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _readers and isinstance(arguments[0], str | os.PathLike) and arguments[1] in ("r", "rb"):
        for files in _readers:
            files.append(Path(arguments[0]))
