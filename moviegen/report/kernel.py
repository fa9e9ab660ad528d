"""The process that executes a notebook: this interpreter, whatever the reader's own Jupyter is told."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from moviegen.report.jupyter import PUBLISHING

START_SECONDS = 600  # a cold network file system takes minutes to hand out an environment
CODE = str(Path(__file__).parents[2])
COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
ENVIRONMENT = {
    "PYTHONSTARTUP": "",  # IPython would run that file too
    "MATPLOTLIBRC": os.devnull,  # what it holds, and a back end that is not there, can fail the import
    "MPLBACKEND": "agg",
    PUBLISHING: "1",
}


@contextmanager
def own_kernels() -> Iterator[type[AsyncKernelManager]]:
    """A class for nbclient's `kernel_manager_class`, of kernels of this interpreter with an IPython folder of theirs.

    So no `python3` of `JUPYTER_PATH` or of the home folder takes their place, no start-up file or configuration of the
    reader's is read, and nothing is written into the home folder. They and their programs import the code that the
    report itself does, also in a copied checkout whose environment names the first one.
    """
    with tempfile.TemporaryDirectory(prefix="moviegen-kernel-") as folder:
        paths = os.pathsep.join(filter(None, (CODE, os.environ.get("PYTHONPATH"))))
        variables = ENVIRONMENT | {"IPYTHONDIR": folder, "PYTHONPATH": paths}
        environment = {name: value.replace("$", "$$") for name, value in variables.items()}  # which stood for variables

        class OwnKernel(AsyncKernelManager):
            @property
            def kernel_spec(self) -> KernelSpec:
                return KernelSpec(argv=COMMAND, language="python", env=environment)

        yield OwnKernel
