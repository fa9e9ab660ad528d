"""What comes from files, names, captions, paths, parameters and errors, is text on a page whatever it holds."""

from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.data import videos
from moviegen.data.clips import Clip, save_index
from moviegen.data.splits import data_folder
from moviegen.launch.job import Job
from moviegen.report import encoders, markup, media, provenance, publish, tables
from moviegen.report.pages import data, sampling, tae_evaluation
from moviegen.report.pages import provenance as appendix
from moviegen.runs import files
from tests.report.making import begun, finished, section, write_executed

HARMLESS = "plain"
HOSTILE = (
    "<script>alert(1)</script>",
    '"onload="alert(1)',
    "' onerror='alert(1)",
    "</style></span></figure><!--",
    "costs $5 and $6, $\\frac{1}{0}$ a_b^c",
    "{{ 7 * 7 }} {% raw %} {#",
    "&lt;b&gt; &amp;amp; &#x41; 100%41 a?b#c",
    "שלום \u202eright to left\u202c \u200bno width",
    "字 emoji 🎬 é",
    "two\nlines",
    "x" * 200,
)


class Parsed(HTMLParser):
    """The elements of a piece of HTML with the names of their attributes; what they say; what the attributes hold."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.values = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, *(name for name, _ in attributes)))
        self.values += [value or "" for _, value in attributes]

    def handle_endtag(self, tag):
        self.elements.append(f"/{tag}")

    def handle_comment(self, text):
        self.elements.append("comment")

    def handle_data(self, text):
        self.text += text

    def says(self, text):
        """Whether it does, or an attribute holds it; white space counts once, as in a browser."""
        return any(" ".join(text.split()) in " ".join(there.split()) for there in (self.text, *self.values))


def csv(run, name, **row):
    files.write_csv(run.folder / name, row.keys(), [row.values()])
    return run


def clip(run, name):
    (run.folder / "clips").mkdir(exist_ok=True)
    videos.write_video(run.folder / "clips" / name, np.zeros((4, 32, 32, 3), np.uint8), 8)
    return run


def clips_of(params, source):
    run = finished(params, "data")
    counts = {"ucf101": {"classes": 1, "train": 1, "test": 1}, "mixkit": {"train": 1, "val": 1}}
    counts |= {"rates": {"ucf101": [], "mixkit": []}, "readers": {}, "left_out": {}, "set_aside": {source: 1}}
    files.write_json(run.folder / "summary.json", counts | {"notes": [source], "official": None, "source": source})
    return data.clips(run)


def stills_of(params, caption):
    run = finished(params, "data")
    save_index(
        run.folder / "mixkit.csv", [Clip(data_folder(params) / "no.mp4", caption, frames=4)], data_folder(params)
    )
    return data.stills(run, "mixkit.csv", 1, "Stills")


def sample_of(params, caption):
    columns = {"index": 0, "kind": "unseen", "prompt": caption, "seed": 1, "generated": "a.mp4", "reference": "b.mp4"}
    own, shipped = (csv(finished(params, name), "samples.csv", **columns) for name in ("sample", "shipped"))
    return sampling.clips(own, shipped, "unseen")


def classes_of(params, label):
    scores = {"sources": 1, "psnr": 30, "psnr_ci95": "", "ssim": 0.9, "ssim_ci95": "", "lpips": "", "lpips_ci95": ""}
    scores |= {"identical": 0}
    columns = {"data_set": "ucf101", "model": "tae-opl-off", "label": label, "clips": 1} | scores
    return tae_evaluation.classes(csv(finished(params, "tae-evaluation"), "classes.csv", **columns))


def reconstructions_of(params, label):
    columns = {"data_set": "ucf101", "file": "a.mp4", "kind": "worst", "model": "m", "label": label}
    run = csv(finished(params, "tae-evaluation"), "videos.csv", **columns, psnr=30.0, ssim=0.9, lpips="")
    return tae_evaluation.reconstructions(run, "ucf101")


def run_of(params, text):
    machine = {"cpu": text, "cores": 2, "memory_bytes": 1, "system": text}
    facts = {"command": text, "commit": text, "machine": machine, "versions": {text: text}, "parameters": {"a": text}}
    run = runs.find(params, "data")
    facts |= {"status": "complete", "finished": text, "upstream": {"data": text}}
    files.write_json(run.folder / "manifest.json", facts)
    return run


def with_encoder(params, folder):
    return config.load("tiny", {"text.ul2.folder": folder})


def would_run(params, word):
    return provenance.would_run(begun(params, "data"), Job(("python", word), config.outputs_folder(params)))


PIECES = {
    "caption": lambda params, text: markup.card("", text),
    "missing": lambda params, text: markup.missing(text),
    "alternative": lambda params, text: SimpleNamespace(data=markup.image("data:,", text, "plot")),
    "run": lambda params, text: SimpleNamespace(data=markup.run_link(text)),
    "table": lambda params, text: tables.table([{text: text, "b": "<b>"}], text),
    "cell beside HTML": lambda params, text: tables.table([{"a": text, "b": "<i>x</i>"}], "", raw=("b",)),
    "video": lambda params, text: SimpleNamespace(data=media.video(config.outputs_folder(params) / text, text)),
    "strip": lambda params, text: SimpleNamespace(
        data=media.strip(Clip(config.outputs_folder(params) / text, frames=4), 2)
    ),
    "encoder": lambda params, text: encoders.text_encoders(with_encoder(params, text)),
    "command": would_run,
    "source": clips_of,
    "set aside": lambda params, text: data.quarantine(
        csv(finished(params, "data"), "quarantine.csv", path=text, reason=text)
    ),
    "still": stills_of,
    "sample": sample_of,
    "class": classes_of,
    "reconstruction": reconstructions_of,
    "run in a table": lambda params, text: provenance.table_of_runs([run_of(params, text)]),
    "run in full": lambda params, text: appendix.details([run_of(params, text)]),
}
SHORTENED = ("command", "run in a table")  # a command's words are quoted, and of a commit its first digits are shown


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_becomes_markup(piece, params):
    expected = Parsed(PIECES[piece](params, HARMLESS).data).elements
    for text in HOSTILE:
        parsed = Parsed(PIECES[piece](params, text).data)
        assert parsed.elements == expected, text
        assert piece in SHORTENED or parsed.says(text), text


def test_no_caption_becomes_markup_of_a_page_or_of_the_appendix(params):
    def published(text):
        write_executed(params, "data", markup.card("", text), sample_of(params, text))
        page = publish.publish(params).parent / section("data").page
        return Parsed(page.read_text()), Parsed(appendix.figures_and_runs(params).data)

    page, listed = published(HARMLESS)
    for text in HOSTILE:
        hostile_page, hostile_list = published(text)
        assert hostile_page.elements == page.elements, text
        assert hostile_page.says(text)
        assert hostile_list.elements == listed.elements, text
        assert hostile_list.says(text)


def test_no_scale_becomes_markup(params):
    data = section("data")
    page, plain = (
        Parsed(publish.render(params.model_copy(update={"scale": scale}), data, data.shown(params), "mark"))
        for scale in ("<i>mine</i>", "mine")
    )
    assert page.elements == plain.elements
    assert page.says("scale <i>mine</i>")


@pytest.mark.parametrize("name", ["a #1? 100%41.mp4", 'a "quoted" <name>.mp4', "字 🎬.mp4", "{{x}} $y$ & 'z'.mp4"])
def test_a_published_clip_is_found_by_its_address(name, params):
    run = clip(finished(params, "sample"), name)
    write_executed(params, "data", markup.card(media.video(run.folder / "clips" / name, ""), ""))
    for _ in range(2):  # the second time it must be seen to be in use
        site = publish.publish(params).parent
        (address,) = (value for value in Parsed((site / "data.html").read_text()).values if value.endswith(".mp4"))
        assert not set(address) & set('#?" <>&')
        assert (site / unquote(address)).read_bytes() == (run.folder / "clips" / name).read_bytes()
        write_executed(params, "overview", markup.note("changed"))
