"""Parameters of the transformer's class, counted without allocating them."""

import json

import psutil
import pytest

from moviegen import __main__, config, plan, runs
from moviegen.dit.model import DiT
from moviegen.programs import count

BILLIONS = {"1B": 0.93, "5B": 4.92, "30B": 29.30}


@pytest.mark.parametrize(("size", "billions"), BILLIONS.items())
def test_the_class_has_the_published_parameters_and_the_formulas(size, billions):
    found = count.count(config.SIZES[size])
    assert round(found["counted"] / 1e9, 2) == billions
    assert found["counted"] == found["formula"] == plan.parameter_count(config.SIZES[size])
    assert found["positions"] == plan.position_count(config.SIZES[size])


def test_nothing_is_allocated():
    count.count(config.SIZES["1B"])  # imports and caches
    before = psutil.Process().memory_info().rss
    count.count(config.SIZES["30B"])  # 117 GB in float32
    assert psutil.Process().memory_info().rss - before < 50e6


@pytest.mark.parametrize("size", ("smoke", "tiny"))
def test_counts_what_a_real_transformer_holds(size):
    parameters = DiT(config.SIZES[size]).trainable_params()
    found = count.count(config.SIZES[size])
    assert found["counted"] + found["positions"] == sum(parameter.size for parameter in parameters)


@pytest.mark.parametrize("size", ("smoke", "tiny", "30B"))
def test_zero_divides_the_parameters_that_the_plan_says(size):
    with count.no_init_parameters():
        cells = [cell for _, cell in DiT(config.SIZES[size]).cells_and_names()]
    divided = (cell.weight.shape for cell in cells if hasattr(cell, "product") and hasattr(cell, "weight"))
    assert sum(rows * columns for rows, columns in divided) == plan.matrix_count(config.SIZES[size])


@pytest.mark.parametrize("name", ("parameter_count", "position_count"))
def test_a_formula_that_is_wrong_is_an_error(monkeypatch, name):
    right = getattr(plan, name)
    monkeypatch.setattr(plan, name, lambda config: right(config) + 1)
    with pytest.raises(ValueError, match="the class has"):
        count.count(config.SIZES["smoke"])


def test_program_writes_every_size(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke")
    assert __main__.main(["count", "--config", "smoke"]) == 0
    run = runs.find(params, "count")
    assert run.complete
    summary = json.loads((run.folder / "summary.json").read_text())
    assert list(summary) == [*BILLIONS, "smoke"]
    assert summary["smoke"]["positions"] == (4 + 36 + 36) * 64
    # with this file's text encoders, narrower than the published ones
    assert summary["smoke"]["counted"] == plan.parameter_count(params.dit_config(3))
    assert summary["smoke"]["counted"] < plan.parameter_count(config.SIZES["smoke"])
