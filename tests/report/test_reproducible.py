"""The same executed notebooks give the same bytes, also in another process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from moviegen.report import publish
from moviegen.report.pages import sampling, transformer
from tests.report.making import sampled, write_executed

PUBLISH = "from moviegen import config; from moviegen.report import publish; publish.publish(config.load('tiny'))"


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
