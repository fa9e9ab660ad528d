"""Who may import whom: `.importlinter` at the repository root, and that each of its contracts catches a breach."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import moviegen

ROOT = Path(__file__).parent.parent
CONTRACTS = ROOT / ".importlinter"
# contract -> breaches it must catch: (module file, the import added to it)
BREACHES = {
    "layers": [
        ("runs/run.py", "import moviegen.report.sections"),
        ("config/loading.py", "from moviegen.runs import files"),
        ("tae/layers.py", "import moviegen.dit.layers"),
        ("dit/model.py", "from moviegen.text import t5"),
        ("launch/run.py", "from moviegen.parallel import mesh"),
        ("train/loop.py", "from moviegen.programs import count"),
    ],
    "without-mindspore": [
        ("report/tables.py", "import mindspore"),
        ("report/results.py", "from moviegen.runs import weights"),  # which loads it
        ("launch/run.py", "import moviegen.device.collectives"),
        ("data/videos.py", "import mindspore"),
    ],
    "light": [("plan/cost.py", "import pandas"), ("flow/schedule.py", "from moviegen.runs import hashes")],
    "networks": [
        ("tae/tiling.py", "from moviegen.runs import registry"),
        ("dit/weights.py", "from moviegen import plan"),
    ],
    "data": [
        ("data/samples.py", "from moviegen.tae.model import TAE"),
        ("data/latents.py", "import moviegen.flow.path"),
    ],
    "train": [
        ("train/loop.py", "import moviegen.data.datasets"),
        ("train/step.py", "from moviegen.dit.model import DiT"),
    ],
    "programs": [("programs/retrieval.py", "from moviegen.programs import sample")],
    "pages": [("report/pages/cost.py", "from moviegen.report.pages import training")],
    "worker": [("launch/worker.py", "import numpy"), ("launch/worker.py", "from moviegen.config import load")],
}
WITHOUT_MINDSPORE = (
    "moviegen, moviegen.__main__, moviegen.config, moviegen.device, moviegen.plan, moviegen.runs, "
    "moviegen.flow.schedule, moviegen.launch.guard, moviegen.launch.run, moviegen.programs.index_data, "
    "moviegen.report.run, moviegen.report.notebook, moviegen.report.publish, moviegen.report.pages.cost"
)


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """import-linter over the package that lies in `folder`."""
    program = "from importlinter.cli import lint_imports_command as lint; lint()"
    return subprocess.run(
        (sys.executable, "-c", program, "--no-cache", "--no-logo", "--config", str(CONTRACTS), *arguments),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "moviegen", tmp_path / "moviegen", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_contract_is_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(BREACHES)} kept, 0 broken" in done.stdout


def test_every_contract_has_a_breach_to_catch():
    parser = configparser.ConfigParser()
    parser.read(CONTRACTS)
    contracts = {name.removeprefix("importlinter:contract:") for name in parser.sections()} - {"importlinter"}
    assert contracts == set(BREACHES)


@pytest.mark.parametrize(("contract", "file", "line"), [(c, *breach) for c in BREACHES for breach in BREACHES[c]])
def test_breach_is_caught(copy, contract, file, line):
    with (copy / "moviegen" / file).open("a") as module:
        module.write(f"\n{line}\n")
    done = lint(copy, "--contract", contract)
    importer = "moviegen." + file.removesuffix(".py").replace("/", ".")
    assert done.returncode == 1
    assert "0 kept, 1 broken" in done.stdout
    assert f"{importer} -> {line.split()[1]}" in done.stdout


def test_report_and_launcher_load_no_mindspore_when_imported():
    # the linter ignores the import inside `device.start`; one at the top of that module would show here
    program = f"import sys, {WITHOUT_MINDSPORE}; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", program), cwd=ROOT).returncode == 0


def test_every_module_lies_in_a_room_and_is_named_in_the_map():
    loose = {path.stem for path in (ROOT / "moviegen").glob("*.py")}
    assert loose == {"__init__", "__main__"}
    modules = {path.stem for path in (ROOT / "moviegen").rglob("*.py")} - loose
    words = set(re.findall(r"\w+", moviegen.__doc__))
    assert modules <= words
