"""The sampling page: the schedules, generated clips, and what was measured of both."""

from __future__ import annotations

import html
from itertools import groupby

import numpy as np
from IPython.display import HTML

from moviegen.flow import schedule
from moviegen.report import markup, media, results
from moviegen.report.credits import film, shipped_transformer
from moviegen.report.encoders import text_encoders
from moviegen.report.plots import ACCENT, FOURTH, INK, SECOND, THIRD, drawn, panels, styled
from moviegen.report.tables import table
from moviegen.report.wording import between, listed, percent, shown
from moviegen.runs import Run

__all__ = [
    "clips", "error_curves", "error_table", "error_verdict", "film", "retrieval", "retrieval_verdict", "schedules",
    "shipped_transformer", "text_encoders",
]  # fmt: skip

COLORS = {"linear": THIRD, "linear-quadratic": ACCENT, "linear-quadratic-smooth": SECOND}
GATED = "linear-quadratic, gated"  # guidance reuses its last difference
GATED_COLOR = FOURTH
KINDS = {
    "unseen": "captions of clips the model has not seen",
    "paraphrase": "captions in other words than it was trained on",
    "trained": "captions it was trained on",
}
RETRIEVAL_GOALS = {"caption": 0.9, "paraphrase": 0.7}  # shares of the prompts whose clip should be found again
RETRIEVAL_KINDS = {"caption": "captions it was trained on", "paraphrase": "paraphrases it was not trained on"}


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


def clips(run: Run | None, shipped: Run | None, kind: str) -> HTML:
    """Generated clips, by the report's own weights and by shipped ones, beside the clip that was captioned so."""
    title = f"Generated clips beside the clip of the same caption: {KINDS[kind]}"
    samples, others = (results.read_csv(one, "samples.csv") for one in (run, shipped))
    if run is None or samples is None:
        return markup.missing(title)
    chosen = samples[samples["kind"] == kind]
    if chosen.empty:
        return markup.note(f"No clip here has {KINDS[kind]}.")
    groups = []
    for row in chosen.to_dict("records"):
        players = [media.video(run.folder / row["generated"], f"trained here, seed {row['seed']}")]
        if shipped is not None and others is not None:
            same = others[others["index"] == row["index"]].to_dict("records")[0]
            players.append(media.video(shipped.folder / same["generated"], f"shipped weights, seed {same['seed']}"))
        players.append(media.video(run.folder / row["reference"], "the clip of this caption"))
        prompt = f'<p class="prompt">{html.escape(row["prompt"])}</p>'
        groups.append(f'<div class="pair">{"".join(players)}{prompt}</div>')
    return markup.card("".join(groups), title, [run, shipped] if shipped else [run])


def retrieval(run: Run | None) -> HTML:
    """How often the clip generated for a prompt is nearest to the clip that is captioned so, and by chance."""
    summary = results.read_json(run, "summary.json")
    if summary is None:
        return markup.missing("Clips found again")
    rows = []
    for kind, goal in RETRIEVAL_GOALS.items():
        if (found := summary.get(kind)) is None:
            continue
        for what, of in (("has this caption", "nearest"), ("shows the same scene or photograph", "scene")):
            rows.append(
                {
                    "prompt": RETRIEVAL_KINDS[kind],
                    "prompts": found["prompts"],
                    "the nearest training clip": what,
                    "measured": percent(found[f"share_{of}"]),
                    "95 % interval": between(found[f"share_{of}_ci95"]),
                    "chance": percent(found["chance" if of == "nearest" else "chance_scene"]),
                    "goal": f"at least {percent(goal)}" if of == "nearest" else "-",
                }
            )
    shapes = ", ".join(summary["buckets"])
    title = f"Among {summary['clips']} training clips in buckets {shapes}; {summary['steps']} equal steps, guidance "
    ranks = [f"{kind}s {shown(summary[kind]['mean_rank'])}" for kind in RETRIEVAL_GOALS if summary.get(kind)]
    return table(rows, f"{title}{summary['guidance']:g}; mean rank of {', '.join(ranks)}", [run])


def retrieval_verdict(run: Run | None) -> HTML:
    """Whether so many clips were found as the goals say."""
    summary = results.read_json(run, "summary.json")
    if run is None or summary is None:
        return markup.missing("Whether the goals are reached")
    sentences = []
    for kind, goal in RETRIEVAL_GOALS.items():
        if (found := summary.get(kind)) is None:
            continue
        verdict = "reached" if found["share_nearest"] >= goal else "not reached"
        share, chance, interval = found["share_nearest"], found["chance"], between(found["share_nearest_ci95"])
        sentences.append(
            f"For {RETRIEVAL_KINDS[kind]} the goal of {percent(goal)} is <b>{verdict}</b>: {percent(share)} were found "
            f"(95 % interval {interval}), where chance finds {percent(chance)}."
        )
    return markup.note(f"{' '.join(sentences)} From {markup.run_link(run.name)}.")


def error_curves(run: Run | None) -> HTML:
    """How far each schedule ends from the many-step solution, by number of steps."""
    measured, summary = results.read_csv(run, "errors.csv"), results.read_json(run, "summary.json")
    if measured is None or summary is None:
        return markup.missing("Error of each schedule")
    with styled():
        figure, (axes,) = panels(1, height=3.0)
        for name, rows in measured.groupby("schedule", sort=False):
            color = COLORS.get(name, GATED_COLOR)
            axes.plot(rows["steps"], rows["error"], "o-", ms=4, lw=1.4, color=color, label=name)
            axes.fill_between(rows["steps"], rows["least"], rows["most"], color=color, alpha=0.12, lw=0)
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
    measured, summary = results.read_csv(run, "errors.csv"), results.read_json(run, "summary.json")
    if run is None or measured is None:
        return markup.missing("Which schedule ends nearest")
    errors = measured.pivot(index="steps", columns="schedule", values="error")
    gated = errors.pop(GATED) if GATED in errors else None
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
    reused = ""
    if gated is not None and summary is not None:
        more = shown(float((gated / errors["linear-quadratic"]).iloc[-1]))
        gate = summary["guidance_gate"]
        reused = (
            f" Where guidance reuses its last difference after {percent(gate)} of the steps, {errors.index[-1]} steps "
            f"end {more} times as far away as without, for {percent(1 - (1 - gate) / 2)} of the arithmetic."
        )
    return markup.note(f"{text}<b>{verdict}</b>.{reused} From {markup.run_link(run.name)}.")
