"""The same runs and the same executed notebooks give the same bytes, also in another process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from moviegen.report import curves, publish
from moviegen.report.pages import sampling, transformer
from tests.report.making import finished, sampled, svg, write_executed

PUBLISH = "from moviegen import config; from moviegen.report import publish; publish.publish(config.load('tiny'))"
LINES = '{"kind": "train", "step": 1, "loss": 2.0, "lr": 0.1}\n{"kind": "train", "step": 2, "loss": 1.5, "lr": 0.1}\n'


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_publishing_twice_gives_the_same_bytes_of_every_page(params):
    shown = sampling.clips(sampled(params), None, "unseen"), sampling.schedules(50), transformer.sizes(params, None)
    write_executed(params, "sampling", *shown)
    site = publish.publish(params).parent
    first = contents(site)
    assert {".html", ".css", ".mp4"} <= {path.suffix for path in first}
    shutil.rmtree(site)
    root = Path(__file__).parents[2]
    same_marks = "from moviegen.runs import fingerprint; fingerprint.code_hash = lambda module, without=(): module; "
    done = subprocess.run(
        (sys.executable, "-c", same_marks + PUBLISH),
        env=os.environ | {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert contents(site) == first


def test_a_figure_drawn_twice_is_the_same_bytes(params):
    run = finished(params, "stage1")
    run.metrics_path.write_text(LINES)
    first, again = curves.losses(run, "losses"), curves.losses(run, "losses")
    assert first.data == again.data
    assert "<dc:date>" not in svg(first)
    run.metrics_path.write_text(LINES.replace("1.5", "1.6"))
    assert curves.losses(run, "losses").data != first.data
