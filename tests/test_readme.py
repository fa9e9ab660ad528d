"""The documents hold what they promise: commands are understood, links lead somewhere, generated parts are whole.

No command is run: its options and parameters exist.
"""

import base64
import json
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from moviegen import __main__, config
from moviegen.config import ConfigError
from moviegen.data import videos
from moviegen.report.markup import card
from moviegen.report.sections import SECTIONS
from moviegen.report.tables import bare_table
from tests import readme
from tests.marked import marks, part, replaced

ROOT = Path(__file__).parent.parent
WORDS = "python -m moviegen "
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
CURRENT = [name for name in DOCUMENTS if name != "docs/notes.md"]  # which keeps what was typed in its day
README = DOCUMENTS["README.md"].read_text(encoding="utf-8")
MOST_BYTES = 2**20  # of all pictures


def commands(text):
    """What follows `python -m moviegen`, in blocks and in lines of prose; `... --x 1` goes on with the one above."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    found = re.findall(rf"(?<!`)`(?:\.venv/bin/)?{WORDS}([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in "".join(blocks).splitlines():
        if WORDS in line:
            found.append(line.partition(WORDS)[2])
        elif more := re.match(r"#\s+\.\.\. (.*?)(?:   |$)", line):
            found.append(f"{found[-1]} {more[1]}")
    return [shlex.split(command, comments=True) for command in found]


def check(words):
    options, rest = __main__.parser().parse_known_args(words)
    overrides = config.parse_overrides(rest, getattr(options, "stage", None))
    config.load(options.config, overrides)
    assert (ROOT / __main__.module_of(options).replace(".", "/")).with_suffix(".py").is_file()


COMMANDS = [command for name in CURRENT for command in commands(DOCUMENTS[name].read_text(encoding="utf-8"))]


def test_those_in_blocks_in_prose_and_continued_are_found():
    found = {" ".join(command) for command in COMMANDS}
    assert "tae export --output vae.safetensors" in found
    assert "count --config 30B" in found
    assert any("--train.resume.force true" in command and command.startswith("train") for command in found)
    assert len(found) >= 10


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_understood(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(words)


@pytest.mark.parametrize("wrong", ["--prompt x", "--train.setps 1", "--size"])
def test_one_that_is_not_would_be_seen(wrong):
    with pytest.raises((ConfigError, SystemExit)):
        check(["sample", *wrong.split()])


@pytest.mark.parametrize("name", CURRENT)
def test_every_target_of_make_and_every_module_of_the_tests_is_there(name):
    text, makefile = DOCUMENTS[name].read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")
    typed = re.findall(r"`(make [^`]+)`", text) + re.findall(r"^(make .+)$", text, re.MULTILINE)
    for command in typed:
        target = command.split()[1]
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), command
    for module in re.findall(r"python -m (tests[.\w]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def anchors(text):
    """What GitHub calls the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files_and_headings_that_are_there(name):
    text = re.sub(r"`[^`]*`", "", DOCUMENTS[name].read_text(encoding="utf-8"))  # not what code shows
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:href|src)="([^"]+)"', text)
    for link in links:
        if "://" in link:
            continue
        place, _, anchor = unquote(link).partition("#")
        target = DOCUMENTS[name].parent / place if place else DOCUMENTS[name]
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_document_is_linked_from_the_readme():
    for name in DOCUMENTS:
        assert name == "README.md" or f"]({name})" in README, name


def test_parameters_that_are_named_exist():
    """Those in code of the document on weights, with or without a value."""
    text = DOCUMENTS["docs/weights.md"].read_text(encoding="utf-8")
    names = re.findall(r"`(?:--)?((?:tae|text|model|dataset|sample)\.[a-z_0-9.]+)(?:[: ][^`]*)?`", text)
    names = [name for name in names if not name.endswith(".safetensors")]
    assert len(names) > 8
    for name in names:
        assert any(known == name or known.startswith(f"{name}.") for known in config.known_names()), name


def test_scales_are_those_of_params():
    """Each is in README's table, and none that is not there; `pretrain` is a target of its own."""
    rows = re.findall(r"^\| (`\w+`.*?) \|", README.partition("| `SCALE=` |")[2].partition("\n\n")[0], re.MULTILINE)
    scales = {path.stem for path in (ROOT / "params").glob("*.yaml")} - {"pretrain"}
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == scales


def page(tmp_path, without=""):
    """A site of two pages, as publishing leaves them, and two runs, with invented numbers."""
    site, rows = tmp_path / "html", [{"": "PSNR | dB", "published": "31", "here": "20 (n = 2)"}]
    (site / "media").mkdir(parents=True)
    clip = '<figure class="clip"><video src="media/{0}.mp4"></video><figcaption>{0}</figcaption></figure>'
    strip = f'<p class="prompt">a hare, <i>asleep</i></p>{clip.format("real")}{clip.format("made")}'
    cards = {
        "strip": card(strip, "One caption").data,
        "numbers": card(bare_table(rows), "Three numbers").data,
        "summary": card(bare_table([{"result": "loss", "value": "1.5"}]), "Results").data,
    }
    overview = "".join(
        text.replace("<figure", f'<figure id="{name}"', 1).replace('data-runs=""', 'data-runs="sample-01234567"')
        for name, text in cards.items()
        if name != without
    )
    runs = [
        {"program": name, "run": f"{name}-01234567", "state": state}
        for name, state in (("sample", "complete"), ("stage1", "complete"), ("stage2", "not run yet"))
    ]
    (site / "index.html").write_text(f"<main>{overview}</main>")
    (site / "provenance.html").write_text(f'<main><div id="provenance">{bare_table(runs)}</div></main>')
    for run in runs[:2]:
        folder = tmp_path / "runs" / run["run"]
        folder.mkdir(parents=True)
        machine = {"cpu": "A processor", "cores": 2, "memory_bytes": 2**34}
        manifest = {"program": run["program"], "commit": "0123456789", "seconds": 90.0, "machine": machine}
        (folder / "manifest.json").write_text(json.dumps(manifest | {"peak_memory_bytes": 2**31}))
    return site


def test_parts_say_what_the_pages_and_the_runs_say(tmp_path):
    parts = readme.written(readme.opened(page(tmp_path), "tiny"))
    assert parts["strip"].splitlines()[2] == (
        "*a hare, asleep.* From left to right: real; made. Made by `sample-01234567` (tiny), commit 0123456."
    )
    assert "took 3 min 00 s in all" in parts["cost"]
    assert "2.0 GiB, on A processor, 2 cores, 16 GiB; commit 0123456." in parts["cost"]
    assert parts["results"].splitlines()[:3] == [
        "|  | published | here |", "| --- | --- | --- |", "| PSNR \\| dB | 31 | 20 (n = 2) |",
    ]  # fmt: skip
    took = {line.split(" | ")[1]: line.split(" | ")[2] for line in parts["notebooks"].splitlines()[2:]}
    assert took["Sampling"] == took["Training, stage 1: images"] == "1 min 30 s |"
    assert took["Overview"] == "- |"


def test_the_strip_plays_all_clips_beside_each_other(tmp_path):
    site = page(tmp_path)
    for name, grey, frames in (("real", 50, 4), ("made", 200, 2)):
        clip = np.full((frames, 32, 48, 3), grey, np.uint8) + 8 * np.arange(frames, dtype=np.uint8)[:, None, None, None]
        videos.write_video(site / "media" / f"{name}.mp4", clip, fps=10)
    readme.write_strip(readme.opened(site, "tiny"), tmp_path / "strip.webp")
    with Image.open(tmp_path / "strip.webp") as strip:
        assert (strip.n_frames, strip.size) == (4, (2 * 48 + readme.GAP, 32))
        strip.seek(3)
        strip.load()
        assert strip.info["duration"] == 100
        row = np.asarray(strip.convert("L"))[16]
    assert row[[10, 48 + readme.GAP + 10]] == pytest.approx([50 + 3 * 8, 200 + 8], abs=6)


@pytest.mark.parametrize("is_in_the_page", [False, True])
def test_a_picture_stands_still_beside_clips(tmp_path, is_in_the_page):
    Image.fromarray(np.full((2, 3, 3), 7, np.uint8)).save(tmp_path / "still.png")
    data = base64.b64encode((tmp_path / "still.png").read_bytes()).decode()
    source = f"data:image/png;base64,{data}" if is_in_the_page else "still.png"
    shown = BeautifulSoup(f'<img src="{source}">', "html.parser").img
    assert np.array_equal(readme.frames(tmp_path, shown), np.full((1, 2, 3, 3), 7))


def test_a_report_that_lacks_what_is_shown_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no #numbers"):
        readme.written(readme.opened(page(tmp_path, without="numbers"), "tiny"))


def test_only_what_is_between_the_comments_is_replaced():
    begin, end = marks("bench")
    text = f"before\n{begin}\nold\n{end}\nafter\n"
    assert replaced(text, "bench", "new\n") == f"before\n{begin}\nnew\n{end}\nafter\n"
    assert part(replaced(replaced(text, "bench", "newer\n"), "bench", "new\n"), "bench") == "new\n"
    for wrong in ("none", text + text):
        with pytest.raises(ValueError, match="once each"):
            replaced(wrong, "bench", "new")


def test_the_committed_parts_are_of_one_report_and_whole():
    commits = [re.findall(r"commits? ([0-9a-f]{7})", part(README, name)) for name in ("strip", "cost", "results")]
    assert all(commits)
    assert set(commits[0]) | set(commits[2]) <= set(re.findall(r"[0-9a-f]{7}", part(README, "cost")))
    rows = [line.strip("| ").split(" | ") for line in part(README, "notebooks").splitlines()[2:]]
    assert [row[1] for row in rows] == [one.title for one in sorted(SECTIONS, key=lambda section: section.notebook)]
    assert all(re.fullmatch(r"\[(\d\d_\w+\.ipynb)\]\(notebooks/\1\)", row[0]) for row in rows)
    assert all(re.fullmatch(r"-|\d+\.\d s|\d+ min \d\d s|\d+ h \d\d min", row[2]) for row in rows)
    assert all((row[2] == "-") == (not one.launches) for row, one in zip(
        rows, sorted(SECTIONS, key=lambda section: section.notebook), strict=True))  # fmt: skip
    published, summary = part(README, "results").split("\n\n")[:2]
    assert len(published.splitlines()) == 2 + 3
    assert len(summary.splitlines()) > 2 + 3


def test_the_shipped_weights_scores_are_those_of_their_manifests():
    assert part(DOCUMENTS["docs/weights.md"].read_text(encoding="utf-8"), "weights") == readme.weights()


def test_the_pictures_are_small_and_the_strip_moves():
    pictures = [*(ROOT / "docs" / "images").iterdir()]
    assert {path.name for path in pictures} == {readme.STRIP, readme.PAGE}
    assert sum(path.stat().st_size for path in pictures) <= MOST_BYTES
    with Image.open(ROOT / readme.IMAGES / readme.STRIP) as strip:
        assert strip.n_frames > 1
    described = [tag["alt"] for tag in BeautifulSoup(README, "html.parser").select("img")]
    described += re.findall(r"!\[([^\]]*)\]", README)
    assert len(described) == 2
    assert all(len(words) > 20 for words in described)
