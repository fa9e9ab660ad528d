"""The sampling page: the schedules, generated clips, and what was measured of both."""

from __future__ import annotations

import html
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from IPython.display import HTML
from matplotlib.ticker import LogLocator
from scipy import stats

from moviegen.config import Params, Sample
from moviegen.data import videos
from moviegen.data.intervals import LEVEL
from moviegen.flow import schedule
from moviegen.report import jupyter, latents, markup, media, own_prompt, results
from moviegen.report.credits import film, shipped_transformer
from moviegen.report.encoders import text_encoders
from moviegen.report.formulas import mathml
from moviegen.report.plots import ACCENT, FOURTH, INK, SECOND, THIRD, drawn, panels, styled
from moviegen.report.tables import table
from moviegen.report.wording import between, percent, shown, sides
from moviegen.runs import Run, registry

__all__ = [
    "channels", "clips", "comparison", "denoising", "ends", "error_curves", "error_table", "film", "guidance", "paces",
    "panel", "retrieval", "retrieval_verdict", "sampled_by", "schedules", "shipped_transformer", "text_encoders",
]  # fmt: skip

COLORS = {"linear": THIRD, "linear-quadratic": ACCENT, "linear-quadratic-smooth": SECOND}
GATED = "linear-quadratic, gated"  # guidance reuses its last difference
GATED_COLOR = FOURTH
COMPARED = (("linear-quadratic", "linear"), ("linear-quadratic-smooth", "linear"), (GATED, "linear-quadratic"))
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


def sampled_by(params: Params) -> HTML:
    """Whose weights the clips are sampled by, and how."""
    settings = params.sample
    stage, other = (registry.find(program).stage for program in ("sample", "schedule-error"))
    return markup.note(
        f"Here: by the transformer as stage {stage} left it: {settings.frames} frames of {sides(settings.size)} "
        f"pixels, in {settings.steps} of Euler's steps ({settings.schedule}), guidance {settings.guidance:g}. "
        f'Schedules are <a href="#How-close-few-steps-come">compared below</a> on stage {other}\'s.'
    )


def denoising(run: Run | None) -> HTML:
    """What is there after a few steps on the way to one clip, and what it foretells, by two schedules."""
    title = "Two ways from noise to a clip"
    kept = results.read_csv(run, "denoising.csv")
    if run is None or kept is None:
        return markup.missing(title)
    ways = []
    for name, stops in kept.groupby("schedule", sort=False):
        tiles = []
        for stop in stops.to_dict("records"):
            after = _after(stop)
            above, below = (
                media.photograph(run.folder / stop[file], f"{name}, {after}: {what}")
                for file, what in (("latent", "what is there"), ("foretold", "what that foretells"))
            )
            off = f"<br>{percent(stop['distance'])} off" if stop["distance"] else ""
            said = f"{after}<br><i>t</i> = {shown(stop['time'], 2) if stop['time'] else 0}{off}"
            tiles.append(media.clip(above + below, said))
        ways.append(f'<p class="run-line">{name}</p><div class="way">{"".join(tiles)}</div>')
    first = kept.iloc[0]
    title = (
        f"{title}, of the same noise and in as many steps: above the latent that is there, below the one it foretells, "
        f"both decoded, a frame from the middle. Off: how far the foretold one is from the way's end, by that one's "
        f"length. Seed {first['seed']}: {first['prompt']}"
    )
    return markup.card("".join(ways), title, [run])


def paces(run: Run | None) -> HTML:
    """How far each schedule is on its way, past half of its steps."""
    kept = results.read_csv(run, "denoising.csv")
    if kept is None:
        return markup.missing("The pace of each schedule")
    said = []
    for name, stops in kept.groupby("schedule", sort=False):
        middle = stops.iloc[len(stops) // 2]
        said.append(
            f"{name} is at <i>t</i> = {shown(middle['time'], 2)}, and what it foretells is "
            f"{percent(middle['distance'])} off its end"
        )
    after = _after(stops.iloc[len(stops) // 2])
    return markup.prose(f"{after.capitalize()} of {stops['after'].max()}, {'; '.join(said)}.")


def _after(stop: Mapping[Hashable, Any]) -> str:
    return f"after {stop['after']} step{'' if stop['after'] == 1 else 's'}" if stop["after"] else "before all steps"


def panel(params: Params) -> Any:
    """A form that samples prompts of one's own, for who has this notebook open; for who reads the page, where it is."""
    if not jupyter.is_live():
        return markup.note(
            "With this notebook open in JupyterLab (<code>make lab</code>) a form stands here that samples prompts of "
            f"your own. <code>make demo SCALE={html.escape(params.scale)}</code> opens the same as a local web page."
        )
    if not (titled := own_prompt.weights(params)):
        return markup.note(own_prompt.NO_WEIGHTS)
    from moviegen.report.panel import Panel  # with its widgets, which nobody else needs

    return Panel(params, titled).box


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
    """Whether so many clips were found as the goals say, where the interval of the share can tell."""
    summary = results.read_json(run, "summary.json")
    if run is None or summary is None:
        return markup.missing("Whether the goals are reached")
    sentences = []
    for kind, goal in RETRIEVAL_GOALS.items():
        if (found := summary.get(kind)) is None:
            continue
        share, chance, interval = found["share_nearest"], found["chance"], found["share_nearest_ci95"]
        if interval[0] >= goal or interval[1] < goal:
            verdict = f"the goal of {percent(goal)} is {'reached' if share >= goal else 'not reached'}"
        else:
            verdict = f"the share is not told apart from the goal of {percent(goal)}"
        sentences.append(
            f"For {RETRIEVAL_KINDS[kind]} {verdict}: {percent(share)} were found (95 % interval {between(interval)}, "
            f"n = {found['prompts']}), where chance finds {percent(chance)}."
        )
    return markup.note(f"{' '.join(sentences)} From {markup.run_link(run.name)}.")


def error_curves(run: Run | None) -> HTML:
    """How far each schedule ends from the many-step solution, by number of steps and by seconds."""
    measured, summary = results.read_csv(run, "errors.csv"), results.read_json(run, "summary.json")
    if measured is None or summary is None:
        return markup.missing("Error of each schedule")
    with styled():
        figure, (by_steps, by_seconds) = panels(2, height=3.1, columns=True)
        for name, rows in measured.groupby("schedule", sort=False):
            color = COLORS.get(name, GATED_COLOR)
            by_steps.plot(rows["steps"], rows["error"], "o-", ms=4, lw=1.4, color=color, label=name)
            by_steps.fill_between(rows["steps"], rows["least"], rows["most"], color=color, alpha=0.12, lw=0)
            by_seconds.plot(rows["seconds"], rows["error"], "o-", ms=4, lw=1.4, color=color)
        by_steps.set(xlabel="Euler's steps", ylabel="relative error of the final latent", xscale="log", yscale="log")
        by_seconds.set(xlabel="seconds of all captions together", yscale="log", ylim=by_steps.get_ylim())
        by_seconds.set_xlim(0, None)
        by_steps.set_xticks(sorted(measured["steps"].unique()), labels=sorted(measured["steps"].unique()))
        for axes in (by_steps, by_seconds):
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        by_steps.legend(fontsize=7.5)
        reference, captions = f"{summary['reference_steps']} equal steps", _captions(summary)
        gate = percent(summary["guidance_gate"]) if GATED in set(measured["schedule"]) else None
        gated = f"; gated: after {gate} of the steps guidance's last difference is used again" if gate else ""
        title = (
            f"How far Euler's steps end from the latent of {reference}, guidance {summary['guidance']:g}: mean and "
            f"range of {captions}; right: the mean by wall time{gated}"
        )
        return drawn(figure, title, [run])


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
    title = f"Error and time of each schedule, {_captions(summary)} in one batch, clips of {clip}"
    return table(rows, title, [run])


def _captions(summary: dict[str, Any]) -> str:
    return f"{summary['prompts']} caption{'' if summary['prompts'] == 1 else 's'}"


def comparison(run: Run | None) -> HTML:
    """Caption by caption, how far schedules end from the many-step solution beside others, and what that can tell."""
    title = "Schedules compared caption by caption"
    summary = results.read_json(run, "summary.json")
    if run is None or summary is None:
        return markup.missing(title)
    rows = []
    for name, other in COMPARED:
        for steps in run.params.sample.schedule_error.steps:
            errors, others = (_relative_errors(run, one, steps, summary["reference_steps"]) for one in (name, other))
            if errors is not None and others is not None:
                row = {"schedule": name, "beside": other, "steps": steps}
                rows.append(row | _ratio(errors, others))
    if not rows:
        return markup.missing(title)
    gate = summary["guidance_gate"]
    notes = (
        f"{title}: the geometric mean of the ratio of their errors, below 1 where the first ends nearer, with its 95 % "
        f"interval by Student's t; gated: guidance's difference is reused after {percent(gate)} of the steps, for "
        f"{percent(1 - (1 - gate) / 2)} of the arithmetic"
    )
    return table(rows, notes, [run])


def _relative_errors(run: Run, name: str, steps: int, reference_steps: int) -> np.ndarray | None:
    """How far each caption's latent ends from its many-step one, as a share of that one's length; None: not kept."""
    end, wanted = latents.solution(run, name, steps), latents.solution(run, "reference", reference_steps)
    if end is None or wanted is None:
        return None
    distance, length = (np.linalg.norm(array.reshape(len(array), -1), axis=1) for array in (end - wanted, wanted))
    return distance / length


def _ratio(errors: np.ndarray, others: np.ndarray) -> dict[str, object]:
    """The cells of one comparison of errors of the same captions."""
    logs = np.log(errors) - np.log(others)
    mean, count = np.exp(logs.mean()), len(logs)
    if count < 2 or not np.isfinite(logs).all():
        return {"ratio": shown(mean), "95 % interval": "-", "that tells": f"not told apart (n = {count})"}
    low, high = np.exp(stats.ttest_1samp(logs, 0).confidence_interval(LEVEL))
    told = "it ends nearer" if high < 1 else "it ends farther" if low > 1 else "not told apart"
    return {
        "ratio": shown(mean),
        "95 % interval": f"{shown(low)} to {shown(high)}",
        "that tells": f"{told} (n = {count})",
    }


def ends(run: Run | None, sample: Run | None) -> HTML:
    """Where one caption's latent ends by each schedule and number of steps, in colours that need no decoder."""
    title = "Where schedules end"
    summary, colours = results.read_json(run, "summary.json"), latents.colours(sample)
    if run is None or summary is None or colours is None:
        return markup.missing(title)
    if not colours.is_telling:
        explained = (
            f"a linear map of the latents explains {percent(colours.explained)} of the variance of clips' colours"
        )
        return markup.note(f"<b>{title}:</b> not shown as pictures, as {explained}.")
    steps, reference = run.params.sample.schedule_error.steps, summary["reference_steps"]
    columns = {f"{count} steps": ("", count) for count in steps} | {
        f"{reference} equal steps": ("reference", reference)
    }
    rows = []
    for name in COLORS:
        found = {column: latents.solution(run, own or name, count) for column, (own, count) in columns.items()}
        pictures = {
            column: "-" if end is None else media.picture(colours(end[0])[0], f"{name}, {column}", 96)
            for column, end in found.items()
        }
        rows.append({"schedule": name} | pictures)
    title = (
        f"{title}: the first caption, the same noise, the first latent frame. Colours are a linear map of the latent, "
        f"fitted to the {colours.clips} clips sampled above, of whose colours' variance it explains "
        f"{percent(colours.explained)}"
    )
    return table(rows, title, [run, sample], raw=columns)


def channels(sample: Run | None) -> HTML:
    """The channels of one sampled latent beside the clip it was decoded to."""
    title = "A latent and its clip"
    listed, colours = results.read_csv(sample, "samples.csv"), latents.colours(sample)
    if sample is None or listed is None or colours is None:
        return markup.missing(title)
    row = listed.to_dict("records")[0]
    latent = latents.load(latents.sample_file(sample, row["index"]), "latent_mean")
    frame = videos.read_frames(sample.folder / row["generated"], [0])[0]
    height = frame.shape[0]
    pictures = {"first frame": frame}
    if colours.is_telling:
        pictures["the latent, in colours"] = colours(latent)[0]
    pictures |= {f"channel {number}": one for number, one in enumerate(latents.channels(latent), 1)}
    tiles = "".join(
        f'<figure class="clip{"" if name.startswith("channel") else " large"}">{media.picture(one, name, height)}'
        f"<figcaption>{name}</figcaption></figure>"
        for name, one in pictures.items()
    )
    size = sides(latent.shape)
    title = (
        f"{title}: the first frame of {size} numbers, black below -{latents.GREY_RANGE:g} and white above "
        f"{latents.GREY_RANGE:g}; {row['prompt']}"
    )
    return markup.card(f'<div class="channels">{tiles}</div>', title, [sample])


def guidance(settings: Sample) -> HTML:
    """How these parameters guide."""
    asked = "with the caption alone" if settings.guidance == 1 else "twice a step"
    if settings.guidance == 0:
        asked = "without the caption"
    gate = settings.guidance_gate
    reused = f" After {percent(gate)} of the steps the last difference is used again." if gate < 1 else ""
    return markup.note(
        f"Here {mathml('s')} = {settings.guidance:g}: the network is asked {asked}, in {settings.steps} steps "
        f"({settings.schedule}).{reused}"
    )
