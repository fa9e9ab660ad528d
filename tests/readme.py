"""`python -m tests.readme [--scale tiny]`: README's pictures and tables, from a report that was published here.

docs/weights.md gets the scores of the shipped weights, from their manifests. The rest is what the report's own pages
show, which `make verify` derives from the runs: run it first. It needs Chromium.
"""

from __future__ import annotations

import argparse
import base64
import copy
import html
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from bs4 import BeautifulSoup, Tag
from PIL import Image

from moviegen import config
from moviegen.data import videos
from moviegen.report.pdf import chromium
from moviegen.report.sections import SECTIONS, maker, published_site
from moviegen.report.wording import duration, percent, shown
from moviegen.runs import files
from tests.marked import replaced

WEIGHTS = Path("docs") / "weights.md"
IMAGES = Path("docs") / "images"
STRIP, PAGE = "strip.webp", "page.webp"
WINDOW, SHOWN_WIDTH = (1200, 940), 800  # the browser's, and the picture's, in pixels
THUMBNAIL = 420  # its width in README
GAP, QUALITY = 8, 80  # pixels between clips; WebP's
AGAIN = "`.venv/bin/python -m tests.readme` writes this from a published report."


@dataclass(frozen=True)
class Report:
    """A published report."""

    scale: str
    site: Path
    overview: BeautifulSoup
    manifests: dict[str, dict[str, Any]]  # run -> what it left

    def card(self, name: str) -> Tag:
        """A figure or table of the overview.

        Raises:
            ValueError: it is not there, or shows nothing.
        """
        found = self.overview.select_one(f"figure#{name}")
        if found is None:
            raise ValueError(f"{self.site}/index.html has no #{name}: README needs a report without missing sections")
        return found

    def source(self, names: Iterable[str]) -> str:
        """Which runs, and of which commits."""
        names = [*names]
        commits = sorted({self.manifests[name]["commit"][:7] for name in names})
        return f"{', '.join(f'`{name}`' for name in names)} ({self.scale}), commit {', '.join(commits)}"


def main() -> int:
    """Writes the pictures, then README."""
    parser = argparse.ArgumentParser(prog="python -m tests.readme", description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", default="tiny", help="which report of outputs/ (default: %(default)s)")
    root, options = config.project_root(), parser.parse_args()
    report = opened(published_site(config.load(options.scale)), options.scale)
    (root / IMAGES).mkdir(parents=True, exist_ok=True)
    write_strip(report, root / IMAGES / STRIP)
    write_page(report, root / IMAGES / PAGE)
    rewrite(root / "README.md", written(report))
    rewrite(root / WEIGHTS, {"weights": weights()})
    print(f"written: README.md, {WEIGHTS}, {IMAGES / STRIP}, {IMAGES / PAGE}")
    return 0


def rewrite(document: Path, parts: Mapping[str, str]) -> None:
    """Puts other parts into a document."""
    text = document.read_text(encoding="utf-8")
    for name, new in parts.items():
        text = replaced(text, name, new)
    files.write_text(document, text)


def opened(site: Path, scale: str) -> Report:
    """The report whose pages lie in a folder, beside its runs."""
    overview, appendix = (
        BeautifulSoup((site / name).read_text(encoding="utf-8"), "html.parser")
        for name in ("index.html", "provenance.html")
    )
    runs = [row[1] for row in cells(appendix.select_one("#provenance table"))[1:] if row[2] == "complete"]
    read = {name: files.read_json(site.parent / "runs" / name / "manifest.json", "run `make report`") for name in runs}
    return Report(scale, site, overview, read)


def written(report: Report) -> dict[str, str]:
    """Part of README -> its Markdown."""
    return {
        "strip": strip(report),
        "cost": cost(report),
        "page": page(report),
        "results": results(report),
        "notebooks": notebooks(report),
    }


def tiles(report: Report) -> list[tuple[str, Tag]]:
    """What the overview's first strip shows: a label, and a video or a picture."""
    clips = report.card("strip").select("figure.clip")
    return [(words(clip.figcaption), clip.select_one("video, img")) for clip in clips]


def strip(report: Report) -> str:
    """The picture, its caption, and where it is from."""
    card = report.card("strip")
    prompt, labels = words(card.select_one(".prompt")), [label for label, _ in tiles(report)]
    runs = report.source(str(card["data-runs"]).split())
    return (
        f'![Clips of "{prompt}": {", ".join(labels)}]({IMAGES / STRIP})\n\n'
        f"*{prompt}.* From left to right: {'; '.join(labels)}. Made by {runs}.\n"
    )


def cost(report: Report) -> str:
    """Time and memory of all runs, and the machine they were computed on."""
    manifests = report.manifests.values()
    seconds, largest = sum(one["seconds"] for one in manifests), max(one["peak_memory_bytes"] for one in manifests)
    machines = {json.dumps(one["machine"], sort_keys=True): one["machine"] for one in manifests}
    machine = next(iter(machines.values()))
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB"
    where += ", and other machines" if len(machines) > 1 else ""
    commits = sorted({one["commit"][:7] for one in manifests})
    return (
        f"All programs of the report of {report.scale} took {duration(seconds)} in all, and the largest process "
        f"{largest / 2**30:.1f} GiB, on {where}; "
        f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}.\n"
    )


def page(report: Report) -> str:
    """The picture of the first page; a click enlarges it."""
    shown = " and ".join(words(report.card(name).select_one(".title")).lower() for name in ("strip", "numbers"))
    return (
        f'<a href="{IMAGES / PAGE}"><img src="{IMAGES / PAGE}" width="{THUMBNAIL}" '
        f'alt="The report\'s first page: contents, {html.escape(shown)}"></a>\n'
    )


def results(report: Report) -> str:
    """The two tables of the overview that hold results."""
    numbers, summary = report.card("numbers"), report.card("summary")
    runs = dict.fromkeys(name for card in (numbers, summary) for name in str(card["data-runs"]).split())
    tables = "\n".join(markdown(cells(card.select_one("table"))) for card in (numbers, summary))
    return f"{tables}\nFrom {report.source(runs)}. {AGAIN}\n"


def notebooks(report: Report) -> str:
    """Each section with its notebook, and how long the programs took that it starts."""
    seconds = dict.fromkeys(SECTIONS, 0.0)
    for manifest in report.manifests.values():
        seconds[maker(manifest["program"])] += manifest["seconds"]
    rows = [
        [f"[{one.notebook}](notebooks/{one.notebook})", one.title, duration(seconds[one]) if one.launches else "-"]
        for one in sorted(SECTIONS, key=lambda section: section.notebook)
    ]
    return markdown([["notebook", "section", "its programs took"], *rows])


def weights() -> str:
    """What the manifests in params/weights say of each file: its run, and its scores."""
    rows = [["file", "trained by", "took", "scores"]]
    for path in sorted((config.project_root() / "params" / "weights").glob("*.json")):
        manifest = files.read_json(path, "run `make pretrain`")
        gpu = f" on an {name}" if (name := manifest["machine"].get("gpu")) else ""
        trained = f"`{manifest['program']}`{gpu} at commit {manifest['commit'][:7]}"
        rows.append([f"`{path.stem}.safetensors`", trained, duration(manifest["seconds"]), scored(manifest["scores"])])
    return markdown(rows)


def scored(scores: Mapping[str, Any]) -> str:
    """In words."""
    if found := scores.get("retrieval"):
        kinds = {"caption": "training captions", "paraphrase": "paraphrases of them"}
        return "nearest to their caption's own clip: " + "; ".join(
            f"{percent(found[kind]['share_nearest'])} of {found[kind]['prompts']} {name} "
            f"(chance {percent(found[kind]['chance'])})"
            for kind, name in kinds.items()
        )
    return f"{scores['rule']}: " + "; ".join(
        f"{scores[kind]['clips']} clips of the {kind}: {shown(scores[kind]['psnr'])} dB, SSIM "
        f"{shown(scores[kind]['ssim'])}, LPIPS {shown(scores[kind]['lpips'])}"
        for kind in ("film", "photographs")
    )


def cells(table: Tag | None) -> list[list[str]]:
    """The texts of a page's table, its header first.

    Raises:
        ValueError: there is none.
    """
    if table is None:
        raise ValueError("a table that README shows is not on the page: run `make report` first")
    return [[words(cell) for cell in row.select("th, td")] for row in table.select("tr")]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its header."""
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *body))


def words(part: Tag | None) -> str:
    """The text of a part of a page, on one line."""
    return " ".join(part.get_text().split()) if part else ""


def write_strip(report: Report, path: Path) -> None:
    """An animated picture of the tiles side by side; a still stays as it is while the clips play."""
    read = [frames(report.site, shown) for _, shown in tiles(report)]
    count, height, width = max(map(len, read)), *read[0].shape[1:3]
    joined = []
    for number in range(count):
        row = [Image.fromarray(one[number % len(one)]).resize((width, height)) for one in read]
        image = Image.new("RGB", (len(row) * (width + GAP) - GAP, height), "white")
        for place, one in enumerate(row):
            image.paste(one, (place * (width + GAP), 0))
        joined.append(image)
    moving = next(shown for _, shown in tiles(report) if shown.name == "video")
    milliseconds = round(1000 / videos.probe(address(report.site, moving)).fps)
    with files.replacing(path) as partial:
        joined[0].save(
            partial, "webp", save_all=True, append_images=joined[1:], duration=milliseconds, loop=0, quality=QUALITY
        )


def frames(site: Path, shown: Tag) -> np.ndarray:
    """The frames of a video, or the one of a picture, which may lie in the page itself: uint8 (T, H, W, 3)."""
    if shown.name == "img":
        head, _, data = str(shown["src"]).partition("base64,")
        source = io.BytesIO(base64.b64decode(data)) if head.startswith("data:") else address(site, shown)
        with Image.open(source) as image:
            return np.asarray(image.convert("RGB"))[None]
    path = address(site, shown)
    return videos.read_frames(path, range(videos.probe(path).frames))


def address(site: Path, shown: Tag) -> Path:
    """The file of a video or picture."""
    return site / unquote(str(shown["src"]))


def write_page(report: Report, path: Path) -> None:
    """What the system's Chromium shows of the overview first, smaller; videos stand still, without handles."""
    page = copy.copy(report.overview)
    for video in page.select("video"):
        del video["controls"]
    beside = report.site / ".readme.html"  # it shows the site's media
    with tempfile.TemporaryDirectory(prefix="moviegen-chromium-") as folder:
        whole = Path(folder) / "page.png"
        command = (
            chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--force-prefers-reduced-motion",
            f"--user-data-dir={folder}/profile", f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--screenshot={whole}",
            beside.as_uri(),
        )  # fmt: skip
        try:
            files.write_text(beside, str(page))
            subprocess.run(command, check=True, capture_output=True, timeout=300)
        finally:
            beside.unlink(missing_ok=True)
        with Image.open(whole) as image, files.replacing(path) as partial:
            size = (SHOWN_WIDTH, round(image.height * SHOWN_WIDTH / image.width))
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(partial, "webp", quality=QUALITY)


if __name__ == "__main__":
    sys.exit(main())
