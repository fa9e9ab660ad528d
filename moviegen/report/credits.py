"""Who made what these pages show, under which licence; and the weights that came with the repository."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from IPython.display import HTML

from moviegen.config import ASSET, Params, from_root, local_paths
from moviegen.data import assets
from moviegen.data.scores import MEASURES
from moviegen.report import markup
from moviegen.report.tables import table
from moviegen.report.wording import between, duration, percent, shown
from moviegen.runs.files import read_json


def film(params: Params) -> HTML:
    """The film's makers, where its clips are shown; else what the clips are."""
    if params.data.root:
        return markup.note(f"The clips are those of <code>{html.escape(params.data.root)}</code>.")
    if not params.data.film:
        return markup.note(
            "Nothing was fetched for this report (<code>assets: none</code>): all clips are moving photographs."
        )
    return markup.note(
        f"Shots of the film <i>Big Buck Bunny</i>: {html.escape(assets.FILM.attribution)}, {assets.FILM.licence}. They "
        "were cut, made smaller and encoded, and are what generated clips resemble."
    )


def used_weights(params: Params) -> HTML:
    """Whose weights the parameters name among what was fetched."""
    used = dict.fromkeys(assets.of(path) for path in local_paths(params).values() if path.startswith(ASSET))
    sentences = [f"{html.escape(one.what)}: {html.escape(one.attribution)}, {one.licence}." for one in used]
    return markup.note(" ".join(sentences) or "No weights of others are used.")


def shipped_autoencoders(params: Params) -> HTML:
    """What the manifests of the autoencoders that came with the repository say of them."""
    title = "Autoencoders that came with the repository"
    rows: list[dict[str, Any]] = []
    for path in (params.tae.vae_checkpoint, params.shipped.tae):
        if (manifest := _manifest(path)) is None:
            continue
        scores = manifest["scores"]
        for kind in ("film", "photographs"):
            measured = {name.upper(): shown(scores[kind][name], 4 if name == "psnr" else 3) for name in MEASURES}
            clips = {"held-out clips": f"{scores[kind]['clips']} of {kind}", "view": scores["rule"]}
            rows.append({"weights": path, **_training(manifest), **clips, **measured})
    notes = "the TAE started from the image autoencoder; scores were measured when they were trained"
    return table(rows, f"{title}; {notes}") if rows else markup.missing(title)


def shipped_transformer(params: Params) -> HTML:
    """What the manifest of the transformer that came with the repository says of it."""
    title = "The transformer that came with the repository"
    if (manifest := _manifest(params.shipped.transformer)) is None:
        return markup.missing(title)
    retrieval = manifest["scores"]["retrieval"]
    rows = [
        {
            "weights": params.shipped.transformer,
            **_training(manifest),
            "prompts": f"{found['prompts']} {kind}s",
            "the nearest training clip has this caption": percent(found["share_nearest"]),
            "95 % interval": between(found["share_nearest_ci95"]),
            "chance": percent(found["chance"]),
        }
        for kind in ("caption", "paraphrase")
        if (found := retrieval.get(kind))
    ]
    return table(rows, f"{title}; it was measured when it was trained")


def _manifest(path: str) -> dict[str, Any] | None:
    """Of a file of weights, where there is one beside it."""
    manifest = Path(from_root(path)).with_suffix(".json") if path else None
    return read_json(manifest, "check the file out again") if manifest and manifest.is_file() else None


def _training(manifest: dict[str, Any]) -> dict[str, Any]:
    """Which run made a file, and in what time with the runs before it."""
    seconds = manifest["seconds"] + sum(one.get("seconds", 0) for one in manifest["before"].values())
    return {"trained by": manifest["program"], "on": manifest["machine"].get("gpu", "CPU"), "in all": duration(seconds)}
