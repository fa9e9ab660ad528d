import os
import subprocess
import sys
from pathlib import Path

import matplotlib

from moviegen import config
from moviegen.report.pages import sampling, tae_training, transformer
from moviegen.report.plots import styled

DRAW = """
from tests.report.test_plots import drawings
print(*drawings(), sep="\\n")
"""


def drawings():
    params = config.load("tiny")
    figures = sampling.schedules(10), transformer.backbone(params.dit_config(3)), tae_training.diagram(params.tae.model)
    return [figure.data for figure in figures]


def test_the_same_figure_gives_the_same_bytes():
    assert sampling.schedules(10).data == sampling.schedules(10).data
    assert sampling.schedules(10).data != sampling.schedules(11).data


def test_a_readers_own_style_changes_no_figure(tmp_path):
    style = tmp_path / "matplotlibrc"
    style.write_text(
        "text.usetex: True\naxes.facecolor: black\nsavefig.dpi: 500\nsvg.fonttype: none\nlines.linewidth: 9\n"
        "axes.formatter.use_mathtext: True\nfont.size: 30\nsavefig.bbox: tight\npath.simplify: False\n"
    )
    done = subprocess.run(
        (sys.executable, "-c", DRAW),
        env=os.environ | {"MATPLOTLIBRC": str(style)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == drawings()


def test_a_figure_leaves_the_readers_style_as_it_was():
    with matplotlib.rc_context({"lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        with styled():
            assert matplotlib.rcParams["lines.linewidth"] == matplotlib.rcParamsDefault["lines.linewidth"]
        assert dict(matplotlib.rcParams) == before
