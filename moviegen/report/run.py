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

from moviegen.config import Params, project_root
from moviegen.device import compiled
from moviegen.report import crate, publish, sections
from moviegen.report.wording import duration
from moviegen.runs import files

KERNEL_GONE = (
    "Most often the system ended it because memory ran out (`dmesg` says so), or what is printed above kept it from "
    "starting. What its programs have finished is kept: run the same command again, with other programs closed."
)


class SectionFailed(RuntimeError):
    """A notebook raised; the message holds its error and the path of the notebook as far as it came."""


def main(params: Params, options: Namespace) -> None:
    """Brings the report of these parameters up to date; with `only_html`, publishes what there is."""
    with _home_folder():
        try:
            if not options.only_html:
                print(compiled.current().line, flush=True)
                execute(params)
        except SectionFailed as error:
            sys.exit(f"error: {error}")
        page = publish.publish(params)
        crate.write(params)
        print(f"report: {page}")


def execute(params: Params) -> None:
    """Executes every section that is not current, in an order in which each finds the runs it shows.

    Raises:
        SectionFailed: a notebook raised; the sections after it are not started.
    """
    order = sections.execution_order()
    for number, section in enumerate(order, 1):
        label = f"[{number:2}/{len(order)}] {section.title}"
        if sections.is_current(params, section):
            print(f"{label}: unchanged", flush=True)
            continue
        print(f"{label} ...", flush=True)
        started = time.monotonic()
        execute_section(params, section)
        print(f"{label}: {duration(time.monotonic() - started)}", flush=True)


def execute_section(params: Params, section: sections.Section) -> None:
    """Executes one section's notebook; the finished one replaces the old one as a whole.

    Raises:
        SectionFailed: it raised, or its kernel ended; the notebook as far as it came is kept beside the others, as
            `<name>.failed.ipynb`.
    """
    import papermill  # 1 s to import: not for a report that is up to date

    from moviegen.report import kernel

    for name in ("papermill", "traitlets", "asyncio"):  # what fails is raised; interrupted, they would only add noise
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    mark = sections.fingerprint(params, section)  # before: code that changes meanwhile makes the result stale
    target = section.executed(params)
    target.parent.mkdir(parents=True, exist_ok=True)
    failed = target.with_suffix(".failed.ipynb")
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
                extra_arguments=["--log-level=CRITICAL"],  # it warns of its default transport, and of being interrupted
                stdout_file=sys.stdout if sys.stdout.isatty() else None,  # the progress bars of the programs
            )
        _stamp(partial, {"fingerprint": mark, "runs": sections.state(params, section)})
        os.replace(partial, target)
        failed.unlink(missing_ok=True)
    except papermill.PapermillExecutionError as error:
        os.replace(partial, failed)
        raise SectionFailed(f"{section.title}: {error.ename}: {error.evalue}\nThe notebook: {failed}") from None
    except RuntimeError as error:  # jupyter_client's and nbclient's, of a kernel that does not start or that ends
        message = f"{section.title}: the kernel of {section.notebook} is gone ({error}). {KERNEL_GONE}"
        if partial.is_file():
            os.replace(partial, failed)
            message += f"\nThe notebook: {failed}"
        raise SectionFailed(message) from None
    finally:
        partial.unlink(missing_ok=True)


def parameters(params: Params, section: sections.Section) -> dict[str, Any]:
    """What papermill writes into the notebook: everything resolved, so that the executed one repeats by itself."""
    return params.model_dump(mode="json") | ({"stage": section.stage} if section.stage else {})


def _no_pattern(path: Path) -> str:
    """A path as papermill wants it, which fills in what it finds in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _stamp(notebook: Path, mark: dict[str, Any]) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"]["moviegen"] = mark
    files.write_json(notebook, content)


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
