"""Fabricated runs and executed notebooks, and what can be read off a piece of a page."""

import base64
import re

import nbformat
import numpy as np
import pandas as pd

from moviegen import runs
from moviegen.data import videos
from moviegen.report import addresses, sections
from moviegen.report.sections import SECTIONS
from moviegen.runs import files


def begun(params, name):
    """A run that has its folder."""
    run = runs.find(params, name)
    run.write_params()
    return run


def finished(params, name, **manifest):
    """A run that says it is complete."""
    run = begun(params, name)
    files.write_json(
        run.folder / "manifest.json", {"status": "complete", "finished": "2026-01-01T00:00:00Z", **manifest}
    )
    return run


def ready(section, *programs):
    """A section before whose programs all is there that they need."""
    for name in (one for program in programs for one in sections.missing(section.params, program)):
        if name not in programs:
            finished(section.params, name)
    return section


def sampled(params, name="sample"):
    """A finished run that sampled one clip, of a caption of the validation set."""
    run = finished(params, name)
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    for name in ("generated 1.mp4", "reference.mp4"):
        videos.write_video(run.folder / name, frames, 8)
    (run.folder / "samples.csv").write_text(
        "index,kind,prompt,seed,generated,reference\n0,unseen,a <b> & c,42,generated 1.mp4,reference.mp4\n"
    )
    return run


def coloured(params):
    """A finished run of two sampled clips of flat blocks, whose colours are a latent's first three channels."""
    run, rows = finished(params, "sample"), ["index,kind,prompt,seed,generated,reference"]
    (run.folder / "latents").mkdir()
    for index, kind in enumerate(("unseen", "trained")):
        colours = np.random.default_rng(index).uniform(0.2, 0.8, (2, 18, 30, 3))
        blocks = colours.repeat(8, 0).repeat(8, 1).repeat(8, 2)
        videos.write_video(run.folder / f"{index}.mp4", (255 * blocks).round().astype(np.uint8), 12)
        latent = np.zeros((16, 2, 18, 30), np.float32)
        latent[:3] = np.moveaxis(4 * colours - 2, -1, 0)
        np.savez(run.folder / f"latents/{index:02d}.npz", latent_mean=latent)
        rows.append(f"{index},{kind},a {kind} <cat>,{42 + index},{index}.mp4,{index}.mp4")
    (run.folder / "samples.csv").write_text("\n".join(rows) + "\n")
    return run


def section(name):
    """The section called `name`."""
    (named,) = (one for one in SECTIONS if one.name == name)
    return named


def write_executed(params, name, *contents):
    """An executed notebook of a section that shows these pieces of HTML."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Title\n\n## A heading\n\nSome <i>x</i>.")]
    )
    for content in contents:
        cell = nbformat.v4.new_code_cell("show()")
        cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": content.data, "text/plain": "HTML"})]
        notebook.cells.append(cell)
    path = section(name).executed(params)
    path.parent.mkdir(parents=True, exist_ok=True)
    addresses.for_executed(notebook, section(name), path.parent)
    nbformat.write(notebook, path)


def svg(figure):
    """The drawing in a card."""
    return base64.b64decode(re.search(r"base64,([^\"]+)", figure.data)[1]).decode()


def labels(figure):
    """The lines of text of a drawing, in its order."""
    return re.findall(r"<!-- (.*?) -->", svg(figure))


def cells(table):
    """The cells of an HTML table by its header."""
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?>(.*?)</tr>", table.data, re.S)]
    return pd.DataFrame(rows[1:], columns=rows[0])


def words(note):
    """What a note says."""
    return re.sub("<.*?>", "", note.data)
