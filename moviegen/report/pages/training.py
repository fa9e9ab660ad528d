"""The page of a training stage: its recipe, the clips it draws, and its losses."""

from __future__ import annotations

import pandas as pd
from IPython.display import HTML
from matplotlib.patches import Rectangle

from moviegen.config import Params, Recipe
from moviegen.report import markup, results
from moviegen.report.curves import losses
from moviegen.report.plots import ACCENT, FAINT, INK, WIDTH, drawn, panels, styled
from moviegen.report.tables import table
from moviegen.runs import Run

__all__ = ["buckets", "frequencies", "losses", "recipe", "shapes"]


def recipe(params: Params, stage: int) -> HTML:
    """What a stage trains, on what, for how long."""
    recipe = params.recipes[stage]
    batch, settings = recipe.dataloader.batch_size, recipe.train.settings
    facts = {
        "model": recipe.model.size,
        "height x width": f"{recipe.dataset.size[0]}x{recipe.dataset.size[1]}",
        "aspect ratios": ", ".join(recipe.dataset.aspect_ratios) or "that of the size",
        "frames": ", ".join(map(str, recipe.dataset.frames)),
        "position tables (T, H, W)": recipe.model.max_size,
        "batch a worker": f"{batch.image_batch_size} images or {batch.video_batch_size} videos",
        "workers": f"{params.launch_of(stage).worker_num} ({params.launch.device})",
        "updates": recipe.train.steps,
        "gradient accumulation": settings.gradient_accumulation_steps,
        "ZeRO stage": settings.zero_stage,
        "sequence-parallel shards": recipe.train.sequence_parallel.shards,
        "learning rate": recipe.train.lr_scheduler.lr,
        "on a plateau": plateau(recipe),
        "times": f"{recipe.train.time_sampling}, shift {recipe.train.time_shift:g}",
    }
    rows = [{"parameter": name, "value": value} for name, value in facts.items()]
    return table(rows, f"Recipe of stage {stage} at scale {params.scale}")


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
