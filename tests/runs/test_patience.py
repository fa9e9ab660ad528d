"""How long the rest takes is foreseen from what was measured, and too long a rest ends a program early."""

import re

import pytest

from moviegen import config
from moviegen.config import ConfigError
from moviegen.runs import patience
from moviegen.runs.patience import Patience


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved on."""
    now = [0.0]
    monkeypatch.setattr(patience, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def watched(kinds, hours=1.0, **options):
    return Patience(config.load("smoke", {"data.patience_hours": hours}), "encoding", kinds, len(kinds), **options)


def work(watch, clock, kind, seconds, items):
    for _ in range(items):
        clock(seconds)
        watch.done(kind)


def test_what_fits_goes_on_to_its_end(clock):
    watch = watched(["a"] * 350)
    work(watch, clock, "a", 10, 350)  # an hour less 100 s


def test_what_does_not_fit_ends_early_and_names_how_many_clips_do(clock):
    watch = watched(["a"] * 10_000)
    clock(100)  # the first of a kind compiles: it says nothing of the others
    with pytest.raises(ConfigError, match=r"encoding takes 27\.8 hours more") as error:
        work(watch, clock, "a", 10, 10_000)
    assert watch.total["a"] - watch.left["a"] < 10
    fitting = int(re.search(r"data\.max_clips to (\d+)", str(error.value))[1])
    assert 300 < fitting <= 360  # 360 of them take an hour
    work(watched(["a"] * fitting), clock, "a", 10, fitting)


def test_the_waiting_that_it_asks_for_is_enough(clock):
    with pytest.raises(ConfigError) as error:
        work(watched(["a"] * 1000), clock, "a", 10, 1000)
    hours = re.search(r"data\.patience_hours to ([\d.]+)", str(error.value))[1]
    work(watched(["a"] * 1000, float(hours)), clock, "a", 10, 1000)
    work(watched(["a"] * 1000, None), clock, "a", 1000, 1000)


def test_each_kind_has_its_own_speed(clock):
    watch = watched(["image"] * 1000 + ["video"] * 100)
    for _ in range(6):
        work(watch, clock, "image", 0.1, 1)
        work(watch, clock, "video", 30, 1)
    assert watch.foresee(watch.left) == pytest.approx((994 * 0.1 + 94 * 30) / 3600)


def test_nothing_is_refused_before_each_kind_has_been_met(clock):
    watch = watched(["image"] * 2000 + ["video"] * 100 + ["rare"])
    work(watch, clock, "image", 10, 20)  # five hours more of images alone
    work(watch, clock, "video", 10, 4)
    with pytest.raises(ConfigError) as error:
        work(watch, clock, "video", 10, 1)
    assert int(re.search(r"data\.max_clips to (\d+)", str(error.value))[1]) == pytest.approx(0.9 * 360, abs=2)


def test_one_slow_file_at_the_start_ends_nothing(clock):
    watch = watched(["a"] * 10_000)
    work(watch, clock, "a", 0.1, 1)
    work(watch, clock, "a", 20, 1)
    work(watch, clock, "a", 0.1, 9998)


def test_what_was_done_before_is_not_left_but_counts_for_a_new_run(clock):
    watch = watched(["a"] * 1000, done=["a"] * 900)
    work(watch, clock, "a", 30, 100)  # 50 minutes
    watch = watched(["a"] * 1000, done=["a"] * 700, parameter="some.limit")
    with pytest.raises(ConfigError, match=r"takes 2\.\d\d hours more.*some\.limit") as error:
        work(watch, clock, "a", 30, 300)
    assert int(re.search(r"some\.limit to (\d+)", str(error.value))[1]) <= 120
