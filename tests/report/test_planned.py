import itertools

import pytest

from moviegen import config, plan
from moviegen.plan.dit_memory import fullest
from moviegen.plan.duration import stage_duration
from moviegen.plan.memory import GROUPS, PARTS
from moviegen.plan.sampling import report_memory
from moviegen.plan.tae_memory import tae_training_memory
from moviegen.report import notebook
from moviegen.report.notebook import open_section
from moviegen.report.planned import planned
from tests.report.making import cells

CARD = plan.find_card(plan.PUBLISHED_CARD)


def facts(params, program):
    return cells(planned(params, program)).set_index("planned")["value"]


def value(rows, start):
    """The one row that begins so."""
    (found,) = (text for name, text in rows.items() if name.startswith(start))
    return found


def test_every_part_of_the_memory_is_in_one_group():
    grouped_parts = list(itertools.chain(*GROUPS.values()))
    assert sorted(grouped_parts) == sorted(PARTS)
    params = config.load("5B")
    for memory in (fullest(params, 3)[1], tae_training_memory(params, "opl-on"), report_memory(params)):
        assert sum(memory.groups.values()) == memory.total


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_says_cards_memory_seconds_and_hours(stage):
    params = config.load("5B")
    rows = facts(params, f"stage{stage}")
    assert rows["cards"] == "8"
    clip, memory = fullest(params, stage)
    samples = params.recipes[stage].dataloader.batch_size.samples(clip)
    assert f"{memory.total / 2**30:.1f} GiB of 59.0 GiB: fits" in value(rows, f"memory a card, {samples} x {clip}")
    speed = plan.validate_newest(CARD).speed
    update = plan.update_seconds(plan.stage_work(params, stage), CARD, speed)
    assert float(value(rows, "seconds an update").split()[0]) == pytest.approx(update, rel=6e-3)
    many = params.recipes[stage].train.settings.gradient_accumulation_steps
    assert float(value(rows, "seconds a micro-batch").split()[0]) == pytest.approx(update / many, rel=6e-3)
    low = float(value(rows, "seconds an update").split("(")[1].split()[0])
    assert low == pytest.approx(speed.low * update, rel=6e-3)
    steps = params.recipes[stage].train.steps
    hours = float(value(rows, f"hours, {steps:,} updates").split()[0].replace(",", ""))
    assert hours == pytest.approx(stage_duration(params, stage, CARD, speed, 100).total / 3600, rel=6e-3)


def test_a_recipe_that_does_not_fit_says_so():
    assert "does not fit" in value(facts(config.load("30B", {"model.recompute_every_nth_block": 0,
                                                             "stages.3.model.recompute_every_nth_block": 0}), "stage3"),
                                   "memory a card")  # fmt: skip


@pytest.mark.parametrize("phase", ["image", "opl-off", "opl-on", "mixkit"])
def test_the_autoencoder_says_memory_and_arithmetic(phase):
    params = config.load("1B", {"tae.vae_checkpoint": ""})
    rows = facts(params, f"tae-{phase}")
    memory = tae_training_memory(params, phase)
    assert f"{memory.total / 2**30:.1f} GiB of 59.0 GiB" in value(rows, "memory a card")
    settings = {"image": params.tae.image, "mixkit": params.tae.mixkit}.get(phase, params.tae.video)
    tae = params.tae.model.model_copy(update={"is_temporal": phase != "image"})
    flops = (
        settings.batch_size * plan.tae_training(tae, settings.frames, *settings.size, int(phase != "image")).total
    )  # recomputed
    assert value(rows, "a step") == f"{plan.si(flops)}FLOP"


def test_sampling_counts_two_passes_a_step_and_decoding():
    params = config.load("1B")
    once = plan.dit_forward(params.dit_config(3), 73_728, params.text.lengths).total
    decoding = 6 * 15 * plan.tae_decode(params.tae.model, 4, 40, 48).total  # in tiles
    rows = facts(params, "sample")
    assert rows["a batch"] == f"{plan.si(2 * 50 * once + decoding)}FLOP"
    assert "by the speed of training" in rows["seconds a batch"]
    assert rows["of these"] == "8"


def test_encoding_is_planned_and_what_is_not_counted_is_not():
    params = config.load("1B")
    for program in ("latents", "text", "tae-evaluation"):
        assert "GiB of 59.0 GiB" in value(facts(params, program), "memory a card")
    assert facts(params, "text")["seconds a caption"] == "not foretold: no published row is fitted"
    assert planned(params, "data") is None


def test_a_laptops_recipe_has_no_plan(params):
    assert planned(params, "stage1") is None


@pytest.mark.parametrize(("topic", "program"), [("training", "stage3"), ("tae_training", "tae-mixkit"),
                                                ("sampling", "sample")])  # fmt: skip
def test_a_page_whose_program_was_not_run_shows_the_plan(monkeypatch, topic, program):
    monkeypatch.setattr("moviegen.device.accelerators", lambda: 0)
    monkeypatch.setattr(notebook, "run_job", lambda *_, **__: pytest.fail("it was started"))
    shown = []
    monkeypatch.setattr(notebook, "display", lambda page: shown.append(page.data))
    stage = {"stage": 3} if topic == "training" else {}
    assert open_section(topic, {"scale": "5B", **stage}).launch(program) is None
    assert len(shown) == 2
    assert f"{program}, not run here: what the plan foretells of it on ascend-910b" in shown[1]
