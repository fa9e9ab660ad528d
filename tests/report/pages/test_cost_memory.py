import pytest

from moviegen import config, runs
from moviegen.plan.dit_memory import fullest
from moviegen.report.pages import cost
from moviegen.runs import files
from tests.report.making import cells, finished, labels

AUTOENCODERS = ("tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit")


@pytest.fixture(scope="module")
def needs():
    return cost.published_needs()


def test_there_is_a_bar_for_all_that_is_trained_and_sampled(needs):
    names = [need.name for need in needs]
    stages = [f"{size}, stage {stage}" for size in ("1B", "5B", "30B") for stage in (1, 2, 3)]
    phases = ["TAE, opl-off", "TAE, opl-on", "TAE, mixkit"]  # the image autoencoder is given
    assert names == [*stages, *phases, "latents", "1B, sample", "5B, sample", "30B, sample"]
    drawn = labels(cost.memory_bars(needs))
    for need in needs:
        assert any(label.startswith(f"{need.name}  (") for label in drawn)


def test_bars_say_how_much_and_whether_it_fits(needs):
    drawn = labels(cost.memory_bars(needs))
    for need in needs:
        gib = need.memory.total / 2**30
        assert f"{gib:,.1f}{', does not fit' if gib > 59 else ''}" in drawn  # of launch.max_device_memory


def test_numbers_are_those_of_the_fullest_bucket(needs):
    rows = cells(cost.memory_rows(needs)).set_index("")
    for stage in (1, 2, 3):
        clip, memory = fullest(config.load("5B"), stage)
        row = rows.loc[f"5B, stage {stage}"]
        assert float(row["all"]) == pytest.approx(memory.total / 2**30, abs=0.06)
        assert float(row["free"]) == pytest.approx(59 - memory.total / 2**30, abs=0.06)
        assert (row["fits"] == "yes") == (memory.total <= 59 * 2**30)
        groups = [float(row[name]) for name in rows.columns[1:7]]
        assert sum(groups) == pytest.approx(float(row["all"]), abs=0.35)
        assert str(clip) in next(need.clip for need in needs if need.name == f"5B, stage {stage}")


def test_this_reports_recipe_is_measured_where_it_ran(params):
    run, autoencoder = finished(params, "stage2"), finished(params, "tae-opl-on", peak_memory_bytes=3 * 2**30)
    writer = runs.MetricsWriter(run.metrics_path)
    for step in (1, 2):
        writer.write(kind="train", step=step, steps=2, loss=1.0, lr=1e-3, seconds=1.0, memory_bytes=step * 2**29)
    assert files.read_json(autoencoder.folder / "manifest.json", "")["peak_memory_bytes"]
    trained = dict.fromkeys(AUTOENCODERS) | {"tae-opl-on": autoencoder}
    rows = cells(cost.memory_measured(params, {1: None, 2: run, 3: None}, trained, None)).set_index("")
    assert rows.loc["stage 2", "measured"] == "1,024.0"
    assert rows.loc["TAE, opl-on", "measured"] == "3,072.0"
    others = rows.drop(["stage 2", "TAE, opl-on"])["measured"]
    assert others["sample"] == "not run yet: open 07_sampling.ipynb"
    assert all(said.startswith("not run yet: open 0") for said in others)
    counted = fullest(params, 2)[1].total / 2**20
    assert float(rows.loc["stage 2", "counted"]) == pytest.approx(counted, abs=0.06)


def test_a_laptops_recipe_has_no_card(params):
    drawn = labels(cost.memory_here(params))
    assert "MiB" in drawn
    assert not any("does not fit" in label for label in drawn)
    whole = config.load("30B", {"train.settings.zero_stage": 0})
    assert any("does not fit" in label for label in labels(cost.memory_here(whole)))
