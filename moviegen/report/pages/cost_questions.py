"""Of the cost page: questions to check oneself by, with answers that the plan computes as the page is made."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from IPython.display import HTML

from moviegen import plan
from moviegen.config import SIZES, load, visual_tokens
from moviegen.plan.dit_memory import fullest
from moviegen.plan.memory import HALF
from moviegen.plan.roofline import LINEAR, memory_traffic, ridge
from moviegen.plan.time import computing_seconds, swapping_seconds
from moviegen.plan.validate import Validation
from moviegen.report import markup
from moviegen.report.planned import gib, published_card, room, written
from moviegen.report.wording import listed, percent, shown

MOST_CARDS = 4096
SCALED, STAGE = "30B", 3


class Question(NamedTuple):
    """A question, its answer, and what that was computed of."""

    question: str
    answer: str
    computed: str


def questions(validations: Sequence[Validation]) -> HTML:
    """All of them, folded.

    Args:
        validations: of each version of the software; the last is taken.
    """
    speed = validations[-1].speed
    asked = [
        cards_that_fit(),
        attention_share(speed),
        swaps_of_a_host(),
        state_without_zero(),
        resolution(speed),
        smallest_bound_by_arithmetic(),
    ]
    folded = "".join(
        f"<details><summary>{html.escape(one.question)}</summary><p>{html.escape(one.answer)}</p>"
        f"<p><code>{html.escape(one.computed)}</code></p></details>"
        for one in asked
    )
    return markup.card(folded, "Answers are computed by moviegen/plan when this page is made")


def cards_that_fit() -> Question:
    """The recipe as it is, on twice as many cards each time."""
    params, card = load(SCALED), published_card()
    cards, needs = card.cards_a_host, dict[int, int]()
    while cards <= MOST_CARDS and (not needs or (max(needs) and min(needs.values()) > room(params))):
        needs[cards] = fullest(plan.with_cards(params, cards, card), STAGE)[1].total
        cards *= 2
    last, fits = max(needs), needs[max(needs)] <= room(params)
    start = f"On {min(needs)} cards each holds {gib(needs[min(needs)])} of {gib(room(params))}"
    end = f"on {last:,} it is {gib(needs[last])}"
    return Question(
        f"How many cards until {SCALED}'s stage {STAGE} fits, each time twice as many?",
        f"{last:,}. {start}; {end}, as every card holds a smaller part of the state."
        if fits
        else f"None, up to {last:,}. {start}; {end}, as what does not become less with more cards is too much.",
        f"fullest(with_cards(load({SCALED!r}), cards, {card.name}), {STAGE}), cards {listed(needs)}",
    )


def attention_share(speed: plan.Speed) -> Question:
    """Of the arithmetic, and of the seconds that it takes."""
    card, work = published_card(), plan.stage_work(load("5B"), STAGE)
    share = work.attention / (work.attention + work.products)
    taken = work.attention / speed.attention / card.flops(work.dtype) / computing_seconds(work, card, speed.attention)
    return Question(
        f"How much of 5B's stage {STAGE} step is attention?",
        f"{percent(share)} of the arithmetic and {percent(taken)} of the seconds of computing: attention reaches "
        f"{percent(speed.attention)} of the peak, linear layers more.",
        f"stage_work(load('5B'), {STAGE}): attention {plan.si(work.attention)}FLOP, linear layers "
        f"{plan.si(work.products)}FLOP a micro-batch and card",
    )


def swaps_of_a_host() -> Question:
    """Bytes and seconds of one block's all-to-alls, forward."""
    params, card = load(SCALED), published_card()
    config, dataset, shards = params.dit_config(STAGE), params.recipes[STAGE].dataset, card.cards_a_host
    tokens = visual_tokens(dataset.longest, *dataset.size)
    sent = HALF * plan.ulysses_traffic(config, tokens, shards)
    return Question(
        f"What does Ulysses cost a host of {shards} cards in a block of {SCALED}'s stage {STAGE}, forward?",
        f"Each card sends {plan.si(sent)}B, all of them {plan.si(shards * sent)}B, which takes "
        f"{shown(1000 * swapping_seconds(sent, shards, card))} ms on the host's own wires.",
        f"ulysses_traffic(tokens {tokens:,}, width {config.width:,}, shards {shards}), bfloat16, link "
        f"{plan.si(card.link_among(shards))}B/s",
    )


def state_without_zero() -> Question:
    """The state of the middle size against a card, by ZeRO stage."""
    params, card = load("5B"), published_card()
    recipe, config = params.recipes[STAGE], params.dit_config(STAGE)
    micro_batches = recipe.train.settings.gradient_accumulation_steps
    types = plan.Types.of(recipe.train.settings, params.launch_of(STAGE))
    states = [plan.state_bytes(config, card.cards_a_host, zero, micro_batches, types).total for zero in range(4)]
    limit = room(params)
    larger = "5B's state" if states[0] > limit else "The card's room"
    fits = next((zero for zero, size in enumerate(states) if size <= limit), None)
    return Question(
        "Which is larger, 5B's state from step to step without ZeRO, or what recipes take of a card?",
        f"{larger}: {gib(states[0])} against {gib(limit)}. On {card.cards_a_host} cards ZeRO 1, 2 and 3 leave "
        f"{listed(map(gib, states[1:]))}; "
        + (f"ZeRO {fits} is the first with room for it." if fits is not None else "none has room for it."),
        f"state_bytes(5B, {card.cards_a_host} ranks, ZeRO 0 to 3, {micro_batches} micro-batches)",
    )


def resolution(speed: plan.Speed) -> Question:
    """A video of stage 3 against one of stage 2."""
    params, card = load("5B"), published_card()
    works = [plan.stage_work(params, stage) for stage in (2, STAGE)]
    datasets = [params.recipes[stage].dataset for stage in (2, STAGE)]
    tokens = [visual_tokens(dataset.longest, *dataset.size) for dataset in datasets]
    seconds = [plan.update_seconds(work, card, speed) / work.micro_batches for work in works]
    return Question(
        "Stage 3's videos have more pixels than stage 2's. How much longer does 5B take for one of the longest?",
        f"{shown(seconds[1] / seconds[0])} times as long, {written(seconds[1])} s instead of {written(seconds[0])}: it "
        f"has {shown(tokens[1] / tokens[0])} times the tokens, and attention "
        f"{shown(works[1].attention / works[0].attention)} times the arithmetic.",
        f"update_seconds(stage_work(load('5B'), stage)) / micro-batches, stages 2 and {STAGE}: {tokens[0]:,} and "
        f"{tokens[1]:,} tokens",
    )


def smallest_bound_by_arithmetic() -> Question:
    """The intensity of linear layers against the roofline's bend."""
    card = published_card()
    bend, lowest = ridge(card, "bfloat16"), {}
    for size in ("1B", "5B", "30B"):
        for stage in (1, 2, STAGE):
            lowest[f"{size}, stage {stage}"] = memory_traffic(load(size), stage)[LINEAR].intensity
    name = min(lowest, key=lowest.__getitem__)
    waits = lowest[name] < bend
    return Question(
        "Does memory hold up the linear layers of any published stage?",
        f"{'Yes' if waits else 'No'}: {card.name} needs {shown(bend)} FLOPs a byte to be busy with arithmetic, and the "
        f"least is {shown(lowest[name])}, of {name} (width {SIZES[name.partition(',')[0]].width:,}).",
        f"memory_traffic(load(size), stage)[{LINEAR!r}].intensity, against ridge({card.name}, bfloat16)",
    )
