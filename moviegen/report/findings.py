"""Sentences that say what a recipe uses and what a run came to: written from parameters and files, never by hand."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from itertools import groupby

from IPython.display import HTML

from moviegen.config import Params
from moviegen.report import markup, results
from moviegen.runs import Run

ENCODER_TITLES = {"ul2": "UL2", "metaclip": "MetaCLIP", "byt5": "ByT5"}


def text_encoders(params: Params) -> HTML:
    """Which of the text encoders are stand-ins, and where the others were read from."""
    folders = {ENCODER_TITLES[name]: encoder.folder for name, encoder in params.text}
    stand_ins = [title for title, folder in folders.items() if not folder]
    sentences = []
    if stand_ins:
        sentences.append(
            f"<b>Stand-ins:</b> in the place of {listed(stand_ins)} there are seeded, frozen stand-ins that give each "
            "token a fixed random vector. They tell captions apart; they understand nothing."
        )
    for title, folder in folders.items():
        if folder:
            sentences.append(f"{title} is read from <code>{html.escape(folder)}</code>.")
    return markup.note(" ".join(sentences))


def text_inputs(params: Params) -> HTML:
    """What each stage does with padding, and how many captions it drops."""
    masked = {
        stage: "not masked, as when the published weights were trained" if one.model.attend_to_padding else "masked"
        for stage, one in params.recipes.items()
    }
    dropped = {stage: f"{100 * one.dataset.text_drop_prob:g} %" for stage, one in params.recipes.items()}
    text = f"Padding is {by_stage(masked)}. Of the training samples {by_stage(dropped)} have their caption dropped."
    return markup.note(text)


def schedule_error(run: Run | None) -> HTML:
    """Which schedule ends nearest at each number of steps, and what that says of the linear-quadratic one."""
    measured = results.read_csv(run, "errors.csv")
    if measured is None:
        return markup.missing("Which schedule ends nearest")
    errors = measured.pivot(index="steps", columns="schedule", values="error")
    groups = groupby(errors.idxmin(axis=1).items(), key=lambda item: item[1])
    nearest = [f"{name} with {listed(steps for steps, _ in group)} steps" for name, group in groups]
    is_nearer = errors["linear-quadratic"] < errors["linear"]
    if is_nearer.all():
        verdict = "confirmed here by this measure: it always ends nearer than as many equal ones"
    elif is_nearer.any():
        at = listed(errors.index[is_nearer])
        verdict = f"confirmed in part here by this measure: only with {at} steps it ends nearer than equal ones"
    else:
        verdict = "not confirmed here by this measure: it never ends nearer than as many equal ones"
    text = f"In the mean, the schedule that ends nearest to the many-step solution is {listed(nearest)}. "
    text += "The claim for linear-quadratic is "
    return markup.note(f"{text}<b>{verdict}</b>. From {markup.run_link(run.name)}.")


def retrieval(run: Run | None) -> HTML:
    """Whether so many clips were found as the goal says."""
    summary = results.read_json(run, "summary.json")
    if summary is None:
        return markup.missing("Whether the goal is reached")
    verdict = "reached" if summary["share_nearest"] >= results.RETRIEVAL_GOAL else "not reached"
    shares = (results.RETRIEVAL_GOAL, summary["share_nearest"], summary["chance"])
    goal, found, chance = map(results.percent, shares)
    text = f"The goal of {goal} is <b>{verdict}</b>: {found} were found, where chance finds {chance}."
    return markup.note(f"{text} From {markup.run_link(run.name)}.")


def listed(items: Iterable[object]) -> str:
    """`5, 10 and 25`."""
    *first, last = [*map(str, items)] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def by_stage(values: Mapping[int, str]) -> str:
    """A value, or each stage's where they differ: `masked in stage 1, not masked in stage 2`."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return listed(f"{value} in stage {stage}" for stage, value in values.items())
