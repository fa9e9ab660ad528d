"""The sampling page: the schedules, generated clips, and what was measured of both."""

from __future__ import annotations

import html
from itertools import groupby

import numpy as np
from IPython.display import HTML

from moviegen.flow import schedule
from moviegen.report import markup, media, results
from moviegen.report.encoders import text_encoders
from moviegen.report.plots import ACCENT, INK, SECOND, drawn, panels, styled
from moviegen.report.tables import table
from moviegen.report.wording import between, listed, percent, shown
from moviegen.runs import Run

__all__ = [
    "clips", "error_curves", "error_table", "error_verdict", "retrieval", "retrieval_verdict", "schedules",
    "text_encoders",
]  # fmt: skip

COLORS = {"linear": "#7f8ea3", "linear-quadratic": ACCENT, "linear-quadratic-smooth": SECOND}
RETRIEVAL_GOAL = 0.9  # of the training captions whose clip should be found again


def schedules(steps: int, fine_steps: int = 1000) -> HTML:
    """The linear-quadratic schedules beside the linear one: the times, and how long each step is."""
    with styled():
        figure, (times_axes, lengths_axes) = panels(2, height=2.7, columns=True)
        for name, color in COLORS.items():
            times = schedule.get(name, steps)
            times_axes.plot(times, ".-", ms=3, lw=1, color=color, label=name)
            lengths_axes.plot(np.arange(1, steps + 1), np.diff(times), ".-", ms=3, lw=1, color=color)
        times_axes.axvspan(0, (steps + 1) // 2 - 1, color=ACCENT, alpha=0.07, lw=0)
        times_axes.set(xlabel="step", ylabel="t  (0 noise, 1 data)", title=f"times of {steps} steps")
        times_axes.legend()
        lengths_axes.axhline(1 / fine_steps, color=INK, lw=0.8, ls="--", label=f"1/{fine_steps}")
        lengths_axes.set(xlabel="step", ylabel="length", title="length of each step", yscale="log")
        lengths_axes.legend()
        return drawn(figure, f"The three schedules of {steps} steps, computed by moviegen/flow/schedule.py")


def clips(run: Run | None, split: str) -> HTML:
    """Generated clips beside the clip of the same caption."""
    titles = {"val": "captions the model has not seen", "train": "captions it was trained on"}
    title = f"Generated clips beside the clip of the same caption: {titles[split]}"
    samples = results.read_csv(run, "samples.csv")
    if run is None or samples is None or samples[samples["split"] == split].empty:
        return markup.missing(title)
    pairs = []
    for row in samples[samples["split"] == split].itertuples():
        both = media.video(run.folder / row.generated, f"generated, seed {row.seed}")
        both += media.video(run.folder / row.reference, "the clip of this caption")
        pairs.append(f'<div class="pair">{both}<p class="prompt">{html.escape(row.caption)}</p></div>')
    return markup.card("".join(pairs), title, [run])


def retrieval(run: Run | None) -> HTML:
    """How often the clip generated for a training caption is nearest to the clip of that caption, and by chance."""
    summary = results.read_json(run, "summary.json")
    if summary is None:
        return markup.missing("Clips found again")
    rows = [
        {
            "the nearest training clip": "has the same caption",
            "measured": percent(summary["share_nearest"]),
            "95 % interval": between(summary["share_nearest_ci95"]),
            "chance": percent(summary["chance"]),
            "goal": f"at least {percent(RETRIEVAL_GOAL)}",
        },
        {
            "the nearest training clip": "shows the same photograph",
            "measured": percent(summary["share_photograph"]),
            "95 % interval": between(summary["share_photograph_ci95"]),
            "chance": percent(summary["chance_photograph"]),
            "goal": "-",
        },
    ]
    shapes = ", ".join(summary["buckets"])
    title = f"{summary['prompts']} training captions among {summary['clips']} training clips in buckets {shapes}; "
    title += (
        f"{summary['steps']} equal steps, guidance {summary['guidance']:g}; mean rank {shown(summary['mean_rank'])}"
    )
    return table(rows, title, [run])


def retrieval_verdict(run: Run | None) -> HTML:
    """Whether so many clips were found as the goal says."""
    summary = results.read_json(run, "summary.json")
    if run is None or summary is None:
        return markup.missing("Whether the goal is reached")
    verdict = "reached" if summary["share_nearest"] >= RETRIEVAL_GOAL else "not reached"
    goal, share, chance = map(percent, (RETRIEVAL_GOAL, summary["share_nearest"], summary["chance"]))
    interval = between(summary["share_nearest_ci95"])
    text = f"The goal of {goal} is <b>{verdict}</b>: {share} were found (95 % interval {interval}), where chance finds "
    text += f"{chance}."
    return markup.note(f"{text} From {markup.run_link(run.name)}.")


def error_curves(run: Run | None) -> HTML:
    """How far each schedule ends from the many-step solution, by number of steps."""
    measured, summary = results.read_csv(run, "errors.csv"), results.read_json(run, "summary.json")
    if measured is None or summary is None:
        return markup.missing("Error of each schedule")
    with styled():
        figure, (axes,) = panels(1, height=3.0)
        for name, rows in measured.groupby("schedule", sort=False):
            axes.plot(rows["steps"], rows["error"], "o-", ms=4, lw=1.4, color=COLORS[name], label=name)
            axes.fill_between(rows["steps"], rows["least"], rows["most"], color=COLORS[name], alpha=0.12, lw=0)
        axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="relative error of the final latent")
        axes.set_xticks(sorted(measured["steps"].unique()), labels=sorted(measured["steps"].unique()))
        axes.minorticks_off()
        axes.legend()
        reference, captions = f"{summary['reference_steps']} equal steps", f"{summary['prompts']} captions"
        return drawn(figure, f"Distance from the latent of {reference}: mean and range of {captions}", [run])


def error_table(run: Run | None) -> HTML:
    """How far each schedule ends from the many-step solution, and how long it takes, by number of steps."""
    measured, summary = results.read_csv(run, "errors.csv"), results.read_json(run, "summary.json")
    if measured is None or summary is None:
        return markup.missing("Error and time of each schedule")
    rows = [
        {
            "schedule": row.schedule,
            "steps": row.steps,
            "relative error": shown(row.error),
            "least": shown(row.least),
            "most": shown(row.most),
            "wall time (s)": shown(row.seconds),
        }
        for row in measured.itertuples()
    ]
    steps, seconds = summary["reference_steps"], shown(summary["reference_seconds"])
    rows.append({"schedule": "linear, the reference", "steps": steps} | dict.fromkeys(list(rows[0])[2:5], "-"))
    rows[-1]["wall time (s)"] = seconds
    clip = f"{summary['size'][0]}x{summary['size'][1]}x{summary['frames']}"
    title = f"Error and time of each schedule, {summary['prompts']} captions in one batch, clips of {clip}"
    return table(rows, title, [run])


def error_verdict(run: Run | None) -> HTML:
    """Which schedule ends nearest at each number of steps, and what that says of the linear-quadratic one."""
    measured = results.read_csv(run, "errors.csv")
    if run is None or measured is None:
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
