import base64
import json
import random
import re
import shutil
import subprocess

import numpy as np
import pytest

from moviegen import plan
from moviegen.config import Bucket
from moviegen.plan import grid
from moviegen.plan.dit_memory import training_memory
from moviegen.report.pages import cost, cost_sliders
from tests.plan.test_grid import written_out
from tests.report.making import cells

CARD = plan.find_card(plan.PUBLISHED_CARD)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ROOM = 59.0  # GiB: launch.max_device_memory of the published recipes


@pytest.fixture(scope="module")
def newest():
    return plan.validate_newest(CARD)


@pytest.fixture(scope="module")
def page(newest):
    return cost.sliders([newest])


@pytest.fixture(scope="module")
def data(page):
    """What the script reads, with its table as an array of so many axes."""
    read = json.loads(re.search(r"const data = (\{.*?\}), root", page.data)[1])
    table = np.frombuffer(base64.b64decode(read["table"]), "<f2").astype(float)
    return read | {"table": table.reshape(*map(len, read["axes"]), read["width"])}


def test_the_page_is_small_and_asks_no_network(page):
    assert len(page.data) < 300_000
    assert not re.search(r"https?://|<link|src=|import\(|fetch\(", page.data)


def test_numbers_are_the_plans(data, newest):
    some = random.Random(1).sample(list(grid.choices()), 40)
    for choice in some:
        place = tuple(axis.index(value) for axis, value in zip(grid.AXES, choice, strict=True))
        *parts, pflop, seconds = data["table"][place]
        if not grid.is_possible(choice):
            assert np.isnan(seconds)
            continue
        params, clip = written_out(choice), Bucket(choice.frames, *choice.pixels)
        work, memory = plan.stage_work(params, 3, clip), training_memory(params, 3, clip)
        assert sum(parts) == pytest.approx(memory.total / 2**30, rel=1e-3, abs=0.01)
        assert parts[0] == pytest.approx(memory.state / 2**30, rel=1e-3)
        assert pflop == pytest.approx((work.products + work.attention) / 1e15, rel=1e-3)
        assert seconds == pytest.approx(plan.update_seconds(work, CARD, newest.speed), rel=1e-3)


def test_rounding_changes_no_verdict(data, newest):
    assert data["room"] == ROOM
    totals = data["table"][..., :-2].sum(-1).ravel()
    found = [entry.memory.total / 2**30 if entry else np.nan for entry in grid.entries(CARD, newest.speed)]
    differ = (totals <= ROOM) != (np.array(found) <= ROOM)
    assert differ.sum() == 0


def test_without_a_script_some_rows_are_there(page, newest):
    rows = cells(page).set_index(["model", "cards"])
    choice = cost_sliders.START._replace(size="5B", cards=64)
    params = written_out(choice)
    clip = Bucket(choice.frames, *choice.pixels)
    row = rows.loc[("5B", "64")]
    assert float(row["GiB a card"]) == pytest.approx(training_memory(params, 3, clip).total / 2**30, abs=0.06)
    assert row["clips an update"] == "40"  # eight groups, five micro-batches
    seconds = plan.update_seconds(plan.stage_work(params, 3, clip), CARD, newest.speed)
    assert float(row["s an update"]) == pytest.approx(seconds, rel=6e-3)


def shown_by_a_browser(page, folder, moves):
    """The texts of the sliders' part, after a script has moved some of them."""
    moving = "".join(
        f'inputs[{axis}].value = {place}; inputs[{axis}].dispatchEvent(new Event("input"));' for axis, place in moves
    )
    script = f'<script>const inputs = document.querySelectorAll("#recipe-sliders input"); {moving}</script>'
    path = folder / "page.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{page.data}{script}")
    command = (BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--dump-dom")
    dom = subprocess.run((*command, f"file://{path}"), capture_output=True, text=True, timeout=120, check=True).stdout
    return {name: re.search(f'<p class="{name}">(.*?)</p>', dom, re.S)[1] for name in ("verdict", "speed")}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome to show the page")
def test_a_moved_slider_changes_what_is_said(page, tmp_path, data):
    start, moved, impossible = (
        shown_by_a_browser(page, tmp_path, moves) for moves in ([], [(0, 0), (1, 0)], [(0, 1), (3, 4)])
    )
    for said, place in ((start, (2, 2, 3, 3, 2, 2, 3)), (moved, (0, 0, 3, 3, 2, 2, 3))):
        *parts, pflop, seconds = data["table"][place]
        total = sum(parts)
        assert said["verdict"].startswith("Fits: " if total <= ROOM else "Does not fit: ")
        assert f"{total:.1f} GiB" in said["verdict"]
        micro_batches = 5 if place[0] == 0 else 1
        numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", said["speed"])]
        assert numbers[:3] == pytest.approx([seconds / micro_batches, seconds, micro_batches], rel=6e-3)
        assert f"{micro_batches} micro-batch" in said["speed"]
        assert numbers[5:6] == pytest.approx([pflop], rel=6e-3)
    assert impossible["verdict"].startswith("Not possible")  # 16 cards share 5B's 24 heads
    assert impossible["speed"] == ""
