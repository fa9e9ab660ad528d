"""A section that failed: what is said of it, on the terminal and on its page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moviegen.launch.watch import last_lines
from moviegen.report.sections import Section
from moviegen.report.templates import filled
from moviegen.report.wording import in_checkout

if TYPE_CHECKING:  # half a second to import: not for a report without failures
    from nbformat import NotebookNode

SHOWN_LINES, SHOWN_WIDTH = 12, 400  # of an error; the rest is folded
PAPERMILLS_MARK = "papermill-error-cell-tag"  # of the cells that it puts around an error
DAMAGED = "DamagedFile"  # the error that its own cell alone shows: all others of the page are executed
HIDDEN = "parameters"  # the tag of the one cell that a page leaves out
# what terminals take for colours, titles and cursors
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CALL = re.compile(r'^\s+File ".*", line \d+')
_LOG = re.compile(r"^Its log: (.+)$", re.MULTILINE)
_NATIVE = re.compile(r"^-+\s*\n- (?:C\+\+ Call Stack|The Traceback of Net|Framework)", re.MULTILINE)


@dataclass(frozen=True)
class Failure:
    """Why a section failed, and where.

    Attributes:
        place: the cell, as Jupyter counts it: `In [4]`; empty: before any was executed.
        code: of that cell.
        error: its class and message, as the notebook's kernel told them.
        calls: the lines of its traceback.
    """

    section: Section
    error: str
    place: str = ""
    code: str = ""
    calls: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """`06_training.ipynb, In [4]: latents = section.launch("latents")`."""
        first = self.code.strip().partition("\n")[0]
        return ", ".join(filter(None, (self.section.notebook, self.place))) + (f": {first}" if first else "")

    @property
    def is_damage(self) -> bool:
        """Whether the page is there but for what damaged files hold."""
        return self.error.startswith(f"{DAMAGED}: ")

    @property
    def last_error(self) -> str:
        """The error itself: without the calls that led to it, be they of a program's traceback in the message."""
        return _shortened(_last_error(plain(self.error)))

    @property
    def log(self) -> Path | None:
        """The log of the program that failed."""
        found = _LOG.search(plain(self.error))
        return Path(found[1].strip()) if found else None


def plain(text: str) -> str:
    """A text without colours; of a line that was written over, what stood there last."""
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in _ANSI.sub("", text).split("\n"))
    return "\n".join(lines)


def box(failure: Failure) -> str:
    """The last error, with everything else folded away below it."""
    log = failure.log
    folded = {
        "The cell": plain(failure.code),
        f"The end of its log, {log}": plain(last_lines(log)) if log else "",
        "All that was said": plain("\n".join([failure.error, "", *failure.calls])),
    }
    return filled(
        "failure",
        where=failure.where,
        last_error=in_checkout(failure.last_error),
        folded=[(in_checkout(title), in_checkout(said.strip())) for title, said in folded.items() if said.strip()],
    )


def show(notebook: NotebookNode, failure: Failure) -> None:
    """Has a notebook, as far as it came, begin with its failure; what it printed of it is taken out.

    Where files are damaged, what would show them says so instead.
    """
    import nbformat

    notebook.cells = [cell for cell in notebook.cells if PAPERMILLS_MARK not in cell.metadata.get("tags", ())]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = list(_without_noise(cell.outputs))
    if failure.is_damage:
        return
    shown = nbformat.v4.new_output("display_data", {"text/html": box(failure), "text/plain": failure.last_error})
    begun = [
        cell for cell in notebook.cells if cell.cell_type == "code" and HIDDEN not in cell.metadata.get("tags", ())
    ]
    if not begun:
        begun = [nbformat.v4.new_code_cell()]
        notebook.cells += begun
    begun[0].outputs.insert(0, shown)


def damages(notebook: NotebookNode) -> list[str]:
    """What is said of the damaged files that an executed notebook met, each once."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return list(dict.fromkeys(output.evalue for output in outputs if output.get("ename") == DAMAGED))


def _without_noise(outputs: Iterable[Any]) -> Iterable[Any]:
    """But for errors, which the box tells, or a note in the place of what is damaged; and bars, written over."""
    import nbformat

    from moviegen.report import markup  # slow to import, as IPython is

    for output in outputs:
        is_bar = output.output_type == "stream" and "\r" in output.text
        if output.get("ename") == DAMAGED:
            said = in_checkout(plain(output.evalue))
            content = f"<b>This cannot be shown:</b> {html.escape(said)}"
            shown = {"text/html": markup.note(content).data, "text/plain": said}
            yield nbformat.v4.new_output("display_data", shown)
        elif output.output_type != "error" and not is_bar:
            yield output


def _last_error(text: str) -> str:
    """What follows the last call of a traceback; of a text that has none, its first paragraph."""
    text = _LOG.sub("", text).strip()
    lines = text.split("\n")
    calls = [number for number, line in enumerate(lines) if _CALL.match(line)]
    if not calls:
        return text.partition("\n\n")[0]
    told = next((n for n in range(calls[-1], len(lines)) if lines[n] and not lines[n][0].isspace()), calls[-1])
    return _NATIVE.split("\n".join(lines[told:]))[0].strip()


def _shortened(text: str) -> str:
    lines = [line if len(line) <= SHOWN_WIDTH else f"{line[:SHOWN_WIDTH]} ..." for line in text.split("\n")]
    return "\n".join([*lines[:SHOWN_LINES], *(["..."] if len(lines) > SHOWN_LINES else [])])
