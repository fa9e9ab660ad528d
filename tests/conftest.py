"""MindSpore is loaded after moviegen has set its environment, and before a test loads decord (see data/readers.py)."""
# ruff: noqa: I001

import os
import tempfile

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")  # tests compare both forms of the operators in one process

import moviegen
import mindspore
import pytest

from moviegen.device import compiled


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also the tests of whole jobs, which take minutes")


def pytest_configure(config):
    # never the user's own outputs; a test that looks at them names a folder of its own
    outputs = tempfile.TemporaryDirectory(prefix="moviegen-outputs-")
    os.environ["MOVIEGEN_OUTPUTS"] = outputs.name
    config.add_cleanup(outputs.cleanup)
    config.addinivalue_line("markers", "whole_job: starts jobs of several processes and takes minutes; see --all")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all"):
        return
    whole_jobs = [item for item in items if item.get_closest_marker("whole_job")]
    items[:] = [item for item in items if item not in whole_jobs]
    config.hook.pytest_deselected(items=whole_jobs)


@pytest.fixture(autouse=True, scope="session")
def graph_mode():
    """Every test that computes does so as the programs do; MindSpore takes its device once."""
    moviegen.device.start(0)


@pytest.fixture(autouse=True)
def form_put_back():
    """What a program chooses holds for its process; a test's is that of all."""
    before = os.environ.get(compiled.CHOICE)
    yield
    os.environ.pop(compiled.CHOICE, None)
    if before is not None:
        os.environ[compiled.CHOICE] = before


@pytest.fixture
def eager():
    """Networks compute operator by operator: of many shapes, each once, compilation would take most of the time."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    yield
    mindspore.set_context(mode=mindspore.GRAPH_MODE)


@pytest.fixture
def eager_programs(eager, monkeypatch):
    """The same of programs, which ask for graphs when they start."""
    monkeypatch.setattr(moviegen.device, "start", lambda seed, launch=None: mindspore.set_seed(seed))


class Bar:
    """A progress bar that only counts; tqdm's own counts nothing where there is no terminal."""

    def __init__(self, iterable=(), desc=None, total=None, **options):
        self.iterable, self.desc, self.total, self.n = iterable, desc, total, 0

    def __iter__(self):
        for item in self.iterable:
            yield item
            self.update()

    def update(self, count=1):
        self.n += count

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """As tqdm's."""


@pytest.fixture
def bars_of(monkeypatch):
    """The progress bars that a module shows from now on."""

    def watched(module):
        bars = []

        def show(*given, **options):
            bars.append(Bar(*given, **options))
            return bars[-1]

        monkeypatch.setattr(module, "tqdm", show)
        return bars

    return watched


@pytest.fixture
def measured(monkeypatch):
    """The names of the files that are measured from now on: in this process, without workers."""
    from moviegen.data import measuring

    names = []

    def in_process(function, paths, time_limit, workers):
        for path in list(paths):
            names.append(path.name)
            yield path, function(path)

    monkeypatch.setattr(measuring, "map_unordered", in_process)
    return names
