"""A calibration's file, and seconds from its rates by hand."""

import copy
import json

import pytest

from moviegen.config import ConfigError
from moviegen.plan.host import Calibration, Point, Task, parse_calibration, parse_rates, rate, rates_content

RATES = {"product": (Point(1e6, 1e9), Point(1e8, 4e9)), "pass": (Point(1e4, 5e8),)}
FOUND = Calibration({"cpu": "one", "cores": 2}, "compiled", {1: RATES, 2: {"product": (Point(1e6, 2e9),)}})


def test_what_is_written_is_read():
    written = json.loads(json.dumps(FOUND.content()))
    assert parse_calibration(written, "file") == FOUND
    assert parse_rates(json.loads(json.dumps(rates_content(RATES))), "file") == RATES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("format"), "is no calibration"),
        (lambda content: content.pop("rates"), "is no calibration"),
        (lambda content: content.update(format=99), "format 99"),
        (lambda content: content.update(machine="mine"), "on which machine"),
        (lambda content: content.pop("operators"), "on which machine"),
        (lambda content: content["rates"].update(two={}), "rates.two"),
        (lambda content: content["rates"].update({"0": {}}), "rates.0"),
        (lambda content: content["rates"].update({"1": []}), "rates.1 holds no kinds"),
        (lambda content: content["rates"]["1"].update(magic=[]), "magic is no kind"),
        (lambda content: content["rates"]["1"].update(product=[]), "rates.1.product holds no list"),
        (lambda content: content["rates"]["1"]["product"].append({"size": 1.0}), "not a size and a rate"),
        (lambda content: content["rates"]["1"]["product"][0].update(rate=0.0), "'rate': 0.0"),
        (lambda content: content["rates"]["1"]["product"][0].update(rate=float("nan")), "nan"),
        (lambda content: content["rates"]["1"]["product"][0].update(size="large"), "'large'"),
        (lambda content: content["rates"]["1"]["product"][0].update(size=True), "True"),
    ],
)
def test_what_is_no_calibration_is_refused_by_place_and_told_how_to_be_made(change, message):
    content = copy.deepcopy(FOUND.content())
    change(content)
    with pytest.raises(ConfigError, match=message) as error:
        parse_calibration(content, "a.json")
    assert str(error.value).startswith("a.json") and "plan --calibrate" in str(error.value)


@pytest.mark.parametrize("content", [[], None, "text", 3])
def test_another_kind_of_file_is_refused(content):
    with pytest.raises(ConfigError, match="is no calibration"):
        parse_calibration(content, "a.json")


def test_rates_are_straight_between_sizes_in_logarithms_and_level_beyond():
    sizes_and_rates = {1e6: 1e9, 1e8: 4e9, 1e7: 2e9, 1e3: 1e9, 1e12: 4e9}
    for size, wanted in sizes_and_rates.items():
        assert rate(RATES, "product", size) == pytest.approx(wanted)


def test_the_order_of_sizes_in_the_file_does_not_matter():
    backwards = {"product": RATES["product"][::-1]}
    assert rate(backwards, "product", 1e7) == pytest.approx(2e9)


def test_seconds_are_work_over_rates_added_up():
    tasks = [Task("product", 1e7, 6e9), Task("product", 1e6, 1e9), Task("pass", 1e2, 1e8)]
    assert FOUND.seconds(tasks) == pytest.approx(6 / 2 + 1 + 0.2)
    assert FOUND.seconds(tasks[:2], workers=2) == pytest.approx(3 + 0.5)


def test_what_was_not_measured_is_not_foretold():
    with pytest.raises(ConfigError, match="no all_reduce"):
        FOUND.seconds([Task("all_reduce", 1, 1)])
    with pytest.raises(ConfigError, match=r"not of 4 workers but of \[1, 2\]"):
        FOUND.seconds([], workers=4)
