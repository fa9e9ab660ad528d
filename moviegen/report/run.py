"""`python -m moviegen report`: executes the sections that changed, then publishes them as one site."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moviegen.config import ConfigError, Params, outputs_folder, project_root
from moviegen.device import compiled
from moviegen.report import addresses, crate, publish, sections
from moviegen.report.failure import DAMAGED, Failure, damages, show
from moviegen.report.progress import ProgressLines
from moviegen.report.wording import duration
from moviegen.runs import files

KERNEL_GONE = (
    "Most often the system ended it because memory ran out (`dmesg` says so), or what is printed above kept it from "
    "starting. What its programs have finished is kept: run the same command again, with other programs closed."
)


class SectionFailed(RuntimeError):
    """A section could not be executed; its page says why."""

    def __init__(self, failure: Failure, notebook: Path) -> None:
        self.failure = failure
        super().__init__(f"{failure.where}\n{failure.last_error}\nThe notebook: {notebook}")


def main(params: Params, options: Namespace) -> None:
    """Brings the report of these parameters up to date; with `only_html`, publishes what there is.

    Sections that fail are published as far as they came, and those that do not need them as if nothing had happened;
    the exit status then is not 0.
    """
    for name in ("notebooks", "html"):
        files.check_writable(outputs_folder(params) / name)
    with _home_folder():
        problems: list[str] = []
        if options.only_html:
            _leave_out_damaged(params)
        else:
            print(compiled.current().line, flush=True)
            problems = execute(params)
        page = publish.publish(params)
        publish.publish_scales()
        crate.write(params)
        print(f"report: {page}", flush=True)
        if problems:
            sys.exit("error: the report is not complete\n\n" + "\n\n".join(problems))


def execute(params: Params) -> list[str]:
    """Executes every section that is not current, in an order in which each finds the runs it shows.

    Returns:
        What is to be said of the sections that failed, and of those that wait for them.
    """
    order, problems = sections.execution_order(), []
    for number, section in enumerate(order, 1):
        label = f"[{number:2}/{len(order)}] {section.title}"
        started = time.monotonic()
        try:
            is_current = _is_current(params, section)
            if not is_current:
                print(f"{label} ...", flush=True)
                execute_section(params, section, label)
        except SectionFailed as error:
            print(f"{label}: FAILED in {error.failure.where}", flush=True)
            problems.append(f"{section.title}: {error}")
            continue
        waits = sections.waiting(params, section)
        state = "unchanged" if is_current else duration(time.monotonic() - started)
        print(f"{label}: {state}{' but waits for others' if waits else ''}", flush=True)
        if waits:
            problems.append(f"{section.title} is not complete: {sections.waiting_words(waits)}")
    return problems


def _leave_out_damaged(params: Params) -> None:
    """Removes notebooks that a stopped machine left half-written: their pages say that they are to be executed."""
    for section in sections.SECTIONS:
        path = section.shown(params)
        try:
            if path.is_file():
                json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            path.unlink()
            print(f"note: {path} was damaged ({error}): it is left out; `report` makes it again", file=sys.stderr)


def _is_current(params: Params, section: sections.Section) -> bool:
    """Whether nothing is to be done; a failure of other parameters or code is then past.

    Raises:
        SectionFailed: what it is made from cannot be read.
    """
    try:
        is_current = sections.is_current(params, section)
    except ConfigError as error:
        raise _failed(params, Failure(section, f"{error}"), section.source) from None
    if is_current:
        section.failed(params).unlink(missing_ok=True)
    return is_current


def execute_section(params: Params, section: sections.Section, label: str = "") -> None:
    """Executes one section's notebook; the finished one replaces the old one as a whole.

    Args:
        label: what stands before its progress where standard output is no terminal.

    Raises:
        SectionFailed: it raised, or its kernel ended, or a file that it shows is damaged; the notebook as far as it
            came is kept beside the others, as `<name>.failed.ipynb`.
    """
    import papermill  # 1 s to import: not for a report that is up to date
    from nbformat.reader import NotJSONError

    from moviegen.report import kernel

    for name in ("papermill", "traitlets", "asyncio"):  # what fails is raised; interrupted, they would only add noise
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    mark = sections.fingerprint(params, section)  # before: code that changes meanwhile makes the result stale
    target = section.executed(params)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.ipynb")
    try:
        with kernel.own_kernels() as own_kernel:
            papermill.execute_notebook(
                _no_pattern(section.source),
                _no_pattern(partial),
                parameters=parameters(params, section),
                cwd=project_root() / "notebooks",  # where JupyterLab runs it
                kernel_name="python3",
                kernel_manager_class=own_kernel,
                start_timeout=kernel.START_SECONDS,
                progress_bar=False,
                allow_error_names=[DAMAGED],
                extra_arguments=["--log-level=CRITICAL"],  # it warns of its default transport, and of being interrupted
                # the progress bars of the programs
                stdout_file=sys.stdout if sys.stdout.isatty() else ProgressLines(sys.stdout, label),
            )
        _finish(partial, section, target.parent, {"fingerprint": mark, "runs": sections.state(params, section)})
        os.replace(partial, target)
        section.failed(params).unlink(missing_ok=True)
    except papermill.PapermillExecutionError as error:
        told = f"{error.ename}: {_all_damaged(partial) if error.ename == DAMAGED else error.evalue}"
        place = f"In [{error.exec_count}]"
        raise _failed(params, Failure(section, told, place, error.source, tuple(error.traceback)), partial) from None
    except NotJSONError as error:
        told = f"{section.source} is no notebook ({error}): check it out again"
        raise _failed(params, Failure(section, told.partition("\n")[0]), partial) from None
    except RuntimeError as error:  # jupyter_client's and nbclient's, of a kernel that does not start or that ends
        told = f"the kernel of {section.notebook} is gone ({error}). {KERNEL_GONE}"
        raise _failed(params, Failure(section, told, *_running_cell(partial)), partial) from None
    finally:
        partial.unlink(missing_ok=True)


def _failed(params: Params, failure: Failure, notebook: Path) -> SectionFailed:
    """Keeps a notebook, as far as it came, as one that failed.

    Args:
        notebook: what was executed of it, or the one that was to be.
    """
    import nbformat

    target = failure.section.failed(params)
    for content in (notebook, failure.section.source):
        try:
            reached = nbformat.read(content, as_version=4)
            break
        except (OSError, ValueError):
            continue
    else:
        reached = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {failure.section.title}")])
    addresses.for_executed(reached, failure.section, target.parent)
    show(reached, failure)
    files.write_text(target, nbformat.writes(reached) + "\n")
    return SectionFailed(failure, target)


def _all_damaged(notebook: Path) -> str:
    """What an executed notebook says of damaged files."""
    import nbformat

    return "\n".join(damages(nbformat.read(notebook, as_version=4)))


def _running_cell(notebook: Path) -> tuple[str, str]:
    """Where an executed notebook was when its kernel ended: the cell, as Jupyter counts it, and its code."""
    import nbformat

    if not notebook.is_file():
        return "", ""
    code = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        if cell.metadata.get("papermill", {}).get("status") in ("running", "failed"):
            return f"In [{number}]", cell.source
    return "", ""


def parameters(params: Params, section: sections.Section) -> dict[str, Any]:
    """What papermill writes into the notebook: everything resolved, so that the executed one repeats by itself."""
    return params.model_dump(mode="json") | ({"stage": section.stage} if section.stage else {})


def _no_pattern(path: Path) -> str:
    """A path as papermill wants it, which fills in what it finds in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _finish(notebook: Path, section: sections.Section, folder: Path, mark: dict[str, Any]) -> None:
    """Has an executed notebook find from its folder what it shows, and say what it was made from."""
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    addresses.for_executed(content, section, folder)
    content.metadata["moviegen"] = mark
    files.write_text(notebook, nbformat.writes(content) + "\n")


@contextmanager
def _home_folder() -> Iterator[None]:
    """Gives one to a user of whom a container knows none: Jupyter and IPython do not start without."""
    if os.path.expanduser("~") != "~":
        yield
        return
    with tempfile.TemporaryDirectory(prefix="moviegen-home-") as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            del os.environ["HOME"]
