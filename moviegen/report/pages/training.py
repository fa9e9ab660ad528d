"""The page of a training stage: its recipe, the clips it draws, and its losses."""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import yaml
from IPython.display import HTML
from matplotlib.patches import Rectangle

from moviegen.config import Params, Recipe, load, visual_tokens
from moviegen.report import markup, media, published, results, samples, sections
from moviegen.report.curves import by_time, losses
from moviegen.report.formulas import mathml
from moviegen.report.plots import ACCENT, FAINT, INK, WIDTH, drawn, panels, styled
from moviegen.report.tables import bare_table, table
from moviegen.report.wording import after, in_checkout, sides
from moviegen.runs import Run, find

__all__ = [
    "buckets", "by_time", "command", "frequencies", "losses", "objective", "parameters", "recipe", "sampled", "script",
    "shapes", "stages",
]  # fmt: skip
KINDS = {"trained": "trained on", "unseen": "held out"}  # captions of samples
# What the original's scripts call otherwise, or what decides it here
SIGMA = r"\sigma_{\min}"
RENAMED = {
    "env.jit_level": "launch.jit_level",
    "env.max_device_memory": "launch.max_device_memory",
    "dataloader.batch_size": "dataloader.batch_size.image_batch_size",
    **{name: f"launch.{name}" for name in ("bind_core", "master_port", "worker_num", "local_worker_num")},
}
WITHOUT = {
    "env.mode": "always in graphs",
    "env.distributed": "where there are several workers",
    "dataset.deterministic_sample": "always: crops follow from seed, step and rank",
    "valid.dataset": "always validated, on held-out clips",
    "model.pretrained_model_path": "the newest checkpoint of the stage before, where it is empty",
}
REASONS = {
    "train.steps": "the original counts micro-batches, this report updates of the weights",
    "train.settings.zero_stage": "with blocks summed in float32 less would not fit a card, by the plan",
}


def stages(params: Params) -> HTML:
    """The three stages of this recipe, each beside the published one of 5B."""
    rows = []
    for stage, recipe in params.recipes.items():
        for source, one in ((f"recipe {params.scale}", recipe), ("recipe 5B", load("5B").recipes[stage])):
            dataset = one.dataset
            seen = "images" if dataset.longest == 1 else "images and videos" if one.sees_images else "videos"
            rows.append(
                {
                    "stage": stage,
                    "": source,
                    "sees": seen,
                    "height x width": sides(dataset.size),
                    "longest, frames": dataset.longest,
                    "position tables (T, H, W)": sides(one.model.max_size),
                    "tokens, at most": f"{visual_tokens(*dataset.longest_clip):,}",
                    "updates": f"{one.train.steps:,}",
                }
            )
    return table(rows, "The three stages, in this recipe and in the published one")


def objective(params: Params, stage: int) -> HTML:
    """The numbers of the objective, and how times are drawn."""
    train, valid = params.recipes[stage].train, params.recipes[stage].valid
    return markup.prose(
        f"{mathml(SIGMA)} is {published.SIGMA_MIN:g}. In this stage times are drawn from a "
        f"{train.time_sampling} distribution, with a shift of {train.time_shift:g}. Every {valid.frequency:,} "
        f"updates the loss is measured on held-out clips at {valid.sampling_steps} fixed times."
    )


def command(params: Params, stage: int) -> HTML:
    """What starts this stage by hand, and what of the original's script is the same."""
    run = find(params, f"stage{stage}")
    typed = (
        html.escape(in_checkout(run.command_line()))
        .replace(" --", " \\\n    --")
        .replace(" python -m", " \\\n  python -m")
    )
    start = "With one worker no msrun is needed. " if not run.job().uses_msrun else ""
    return markup.card(f"<pre>{typed}</pre>", f"{start}The command that trains stage {stage} at scale {params.scale}")


def script(params: Params, stage: int) -> HTML:
    """What the original report's script of 5B sets, and what stands in its place: in this report's 5B, and here."""
    rows = [_compared(params, stage, name, value) for name, value in published.SCRIPTS[stage].items()]
    title = f"The original report's script of stage {stage} at 5B (but for folders), and what is set here"
    return markup.card(f"<details><summary>Line by line</summary>{bare_table(rows)}</details>", title)


def _compared(params: Params, stage: int, name: str, value: str) -> dict[str, str]:
    said = {"original script": f"--{name} {value or chr(34) * 2}"}
    if name in WITHOUT:
        return said | {
            "parameter here": "-",
            "recipe 5B": "-",
            f"recipe {params.scale}": "-",
            "original against 5B here": WITHOUT[name],
        }
    ours = RENAMED.get(name, name)
    published_value, here = (_value(one, stage, ours) for one in (load("5B"), params))
    why = "as there" if _is_same(value, published_value) else REASONS.get(name, "differs")
    return said | {
        "parameter here": ours,
        "recipe 5B": published_value,
        f"recipe {params.scale}": here,
        "original against 5B here": why,
    }


def _value(params: Params, stage: int, name: str) -> str:
    """A parameter of a stage by its dotted name."""
    group, _, rest = name.partition(".")
    found: object = params.launch_of(stage) if group == "launch" else getattr(params.recipes[stage], group)
    for part in rest.split("."):
        found = getattr(found, part)
    return "none" if found is None else f"{found:g}" if isinstance(found, float) else str(found)


def _is_same(original: str, value: str) -> bool:
    """Whether two ways to write a value mean the same; the original writes an empty text for none."""
    if original == "":
        return value in ("none", "0", "")
    try:
        return float(original) == float(value)
    except ValueError:
        return original == value


def parameters(params: Params, stage: int) -> HTML:
    """Every parameter of a stage."""
    whole = yaml.safe_dump(params.recipes[stage].model_dump(mode="json"), sort_keys=False, default_flow_style=None)
    content = f"<details><summary>All of them</summary><pre>{html.escape(whole)}</pre></details>"
    return markup.card(content, f"Every parameter of stage {stage} at scale {params.scale}")


def recipe(params: Params, stage: int) -> HTML:
    """What a stage trains, on what, for how long."""
    recipe = params.recipes[stage]
    batch, settings, rule = recipe.dataloader.batch_size, recipe.train.settings, recipe.train.lr_scheduler
    facts = {
        "model": recipe.model.size,
        "height x width": f"{recipe.dataset.size[0]}x{recipe.dataset.size[1]}",
        "aspect ratios": ", ".join(recipe.dataset.aspect_ratios) or "that of the size",
        "frames": ", ".join(map(str, recipe.dataset.frames)),
        "position tables (T, H, W)": sides(recipe.model.max_size),
        "batch a worker": f"{batch.image_batch_size} images or {batch.video_batch_size} videos",
        "workers": f"{params.launch_of(stage).worker_num} ({params.launch.device})",
        "updates": recipe.train.steps,
        "gradient accumulation": settings.gradient_accumulation_steps,
        "ZeRO stage": settings.zero_stage,
        "sequence-parallel shards": recipe.train.sequence_parallel.shards,
        "learning rate": f"{rule.lr:g}, after {rule.warmup_steps:,} updates of warm-up",
        "on a plateau": plateau(recipe),
        "AdamW: betas, epsilon, weight decay": "{}, {:g}, {:g}".format(
            " and ".join(f"{beta:g}" for beta in recipe.train.optimizer.betas),
            recipe.train.optimizer.eps,
            recipe.train.optimizer.weight_decay,
        ),
        "gradient clipped to": f"{recipe.train.clip_norm:g}",
        "average of the weights": f"decay {recipe.train.ema.decay:g}" if recipe.train.ema else "none",
        "captions dropped": f"{100 * recipe.dataset.text_drop_prob:g} %",
        "recomputed": "nothing" if not recipe.model.recompute_every_nth_block else recomputed(recipe),
        "validated": f"every {recipe.valid.frequency:,} updates",
        "times": f"{recipe.train.time_sampling}, shift {recipe.train.time_shift:g}",
    }
    rows = [{"parameter": name, "value": value} for name, value in facts.items()]
    return table(rows, f"Recipe of stage {stage} at scale {params.scale}")


def recomputed(recipe: Recipe) -> str:
    """Which blocks are, and whether their attention too."""
    every = recipe.model.recompute_every_nth_block
    blocks = "every block" if every == 1 else f"one block of {every}"
    return f"{blocks}, but for attention" if recipe.model.not_recompute_fa else blocks


def plateau(recipe: Recipe) -> str:
    """When the learning rate is cut, and whether a run of this length comes so far."""
    rule, validations = recipe.train.lr_scheduler, -(-recipe.train.steps // recipe.valid.frequency)
    text = f"rate times {rule.factor:g} after {rule.patience} validations without improvement"
    is_long = validations > rule.patience  # the first one has nothing to improve on
    return text if is_long else f"{text}: never in this run, which has {validations}"


def buckets(run: Run | None, stage: int) -> HTML:
    """How many clips a stage draws from each bucket, in rectangles of the buckets' shapes."""
    counted, title = results.read_csv(run, "buckets.csv"), f"Clips of stage {stage} by bucket"
    if counted is None:
        return markup.missing(title)
    counted = counted[counted["stage"] == stage]
    ratios = {(row.height, row.width): row.width / row.height for row in counted.itertuples()}
    sizes, lengths = sorted(ratios, key=ratios.__getitem__), sorted(counted["frames"].unique())
    across = max(len(sizes), 9)
    side = 0.9 / max(max(ratio, 1 / ratio) for ratio in ratios.values()) ** 0.5
    most = max(1, counted["clips"].max())
    with styled({"axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure, (axes,) = panels(1, height=0.7 + 0.88 * WIDTH / across * len(lengths))
        for row in counted.itertuples():
            x, y, stretch = sizes.index((row.height, row.width)), lengths.index(row.frames), row.width / row.height
            width, height = side * stretch**0.5, side / stretch**0.5
            color = (ACCENT, 0.7 * row.clips / most)
            axes.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, fc=color, ec=FAINT, lw=0.8))
            axes.annotate(str(row.clips), (x, y), ha="center", va="center", fontsize=8, color=INK)
        axes.set(xlim=(-0.5, across - 0.5), ylim=(len(lengths) - 0.5, -0.5), aspect="equal")
        axes.set_xticks(range(len(sizes)), [f"{height}\nx{width}" for height, width in sizes], fontsize=7)
        axes.set_yticks(range(len(lengths)), ["images" if frames == 1 else f"{frames} frames" for frames in lengths])
        axes.tick_params(length=0)
        return drawn(figure, f"{title}: height x width, and length; a clip is in one bucket of each medium", [run])


def frequencies(run: Run | None, stage: int) -> HTML:
    """How often training sees each clip, by bucket: as often in a small one as in a large one."""
    seen, title = results.read_csv(run, "clips_seen.csv"), f"How often stage {stage} sees a clip"
    if seen is None:
        return markup.missing(title)
    rows = [
        _frequency(f"{'image' if frames == 1 else f'{frames} frames'}, {height}x{width}", clips["times"])
        for (frames, height, width), clips in seen.groupby(["frames", "height", "width"])
    ]
    rows += [
        _frequency(f"all {medium}", clips["times"])
        for medium, clips in seen.groupby(seen["frames"].map(lambda frames: "images" if frames == 1 else "videos"))
    ]
    return table(rows, f"{title}, from the first update to the last", [run])


def _frequency(bucket: str, times: pd.Series) -> dict[str, object]:
    counts = {"least": times.min(), "median": f"{times.median():g}", "most": times.max()}
    return {"bucket": bucket, "clips": f"{len(times):,}"} | counts


def shapes(run: Run | None, stage: int) -> HTML:
    """The shapes that a stage's graphs are compiled for, and which buckets share one."""
    graphs, title = results.read_csv(run, "graphs.csv"), f"Compiled shapes of stage {stage}"
    if graphs is None:
        return markup.missing(title)
    rows = [
        {"graph of": row.use, "samples": row.samples, "tokens of each": f"{row.tokens:,}", "buckets": row.buckets}
        for row in graphs.itertuples()
    ]
    return table(rows, title, [run])


def sampled(run: Run | None, stage: int) -> HTML:
    """What the weights made of the same captions and noise at validations, beside the clips that were captioned so."""
    title, captions = f"Samples while stage {stage} trains", samples.listed(run)
    if run is None:
        return markup.missing(title)
    asked = run.params.recipes[stage].valid.samples
    if asked is None or not captions:
        return markup.note(f"<b>{title}:</b> none are kept (<code>valid.samples</code>).")
    how = f"{asked.steps} steps (linear-quadratic), guidance {asked.guidance:g}"
    data = find(run.params, "data")
    groups = "".join(_strip(run, stage, rows) for rows in captions)
    return markup.card(
        groups,
        f"{title}: the same captions and noise after more and more updates; {how}",
        [run, data if sections.is_complete(data) else None],
    )


def _strip(run: Run, stage: int, rows: list[dict[str, Any]]) -> str:
    """Samples of one caption, and last what is real."""
    kind, caption, seed = (rows[0][name] for name in ("kind", "prompt", "seed"))
    tiles = []
    for row in samples.chosen(rows):
        when = after(row["step"])
        tiles.append(samples.tile(run.folder / row["generated"], when, f"a sample {when}: {caption}"))
    if (real := samples.real(run, stage, caption)) is not None:
        tiles.append(media.tile(real, "a real frame", f"a frame of the clip captioned: {caption}"))
    prompt = f'<p class="prompt">{html.escape(caption)} ({KINDS[kind]}, seed {seed})</p>'
    return f'<div class="pair tiles">{prompt}{"".join(tiles)}</div>'
