import base64
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.display import HTML

from moviegen import config, plan, runs, schedule
from moviegen.config import project_root
from moviegen.data import datasets, videos
from moviegen.report import diagrams, figures, media, provenance, publish, tables, tae_tables
from moviegen.report.sections import SECTIONS

LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("video", "src"), ("video", "poster"), ("iframe", "src")}


class Page(HTMLParser):
    """What a page loads, what it links to, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if (tag, name) in LOADED:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif name == "id":
                self.anchors.add(value)


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    monkeypatch.setattr("moviegen.programs.code_hash", lambda module: module)
    return config.load("tiny")


def finished(params, name, **manifest):
    """A fabricated run."""
    run = runs.find(params, name)
    run.write_params()
    runs.write_json(
        run.folder / "manifest.json", {"status": "complete", "finished": "2026-01-01T00:00:00Z", **manifest}
    )
    return run


def executed(params, section, *contents):
    """An executed notebook that shows these pieces of HTML."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Title\n\n## A heading\n\nSome <i>x</i>.")]
    )
    for content in contents:
        cell = nbformat.v4.new_code_cell("show()")
        cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": content.data, "text/plain": "HTML"})]
        notebook.cells.append(cell)
    section.executed(params).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, section.executed(params))


def sampled(params):
    run = finished(params, "sample")
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    for name in ("generated 1.mp4", "reference.mp4"):
        videos.write_video(run.folder / name, frames, 8)
    (run.folder / "samples.csv").write_text(
        "index,split,caption,seed,generated,reference\n0,val,a <b> & c,42,generated 1.mp4,reference.mp4\n"
    )
    return run


def publish_samples(params):
    section = next(section for section in SECTIONS if section.name == "sampling")
    executed(params, section, media.samples(sampled(params), "val"), figures.schedule(50), tables.sizes(params, None))
    return publish.publish(params).parent


def test_every_section_has_a_page_and_every_link_resolves(params):
    site = publish_samples(params)
    pages = {path.name: Page(path.read_text()) for path in site.glob("*.html")}
    assert set(pages) == {section.page for section in SECTIONS}
    for own_name, page in pages.items():
        for link in page.links:
            name, _, anchor = link.partition("#")
            if not link.startswith("http") and name != "provenance.html":  # which has not been executed here
                assert not anchor or anchor in pages[name or own_name].anchors, link
                assert not name or name in pages, link
    assert "A-heading" in pages["sampling.html"].anchors


def test_nothing_is_loaded_from_the_network(params):
    site = publish_samples(params)
    for path in site.glob("*.html"):
        page = Page(path.read_text())
        for address in page.loaded:
            assert address.startswith("data:") or (site / address).is_file(), address
        assert "<script" not in path.read_text()
    assert not re.search(r"@import|url\(\s*['\"]?http", (site / "style.css").read_text())


def test_videos_are_copied_by_content_and_unused_ones_removed(params):
    site = publish_samples(params)
    assert len(list((site / "media").glob("*.mp4"))) == 2
    section = next(section for section in SECTIONS if section.name == "sampling")
    executed(params, section, HTML("<p>no video</p>"))
    publish.publish(params)
    assert not list((site / "media").iterdir())


def test_only_changed_pages_are_written_again(params):
    site = publish_samples(params)
    before = {path.name: path.stat().st_mtime_ns for path in site.glob("*.html")}
    executed(params, SECTIONS[0], HTML("<p>new</p>"))
    publish.publish(params)
    written = {path.name for path in site.glob("*.html") if path.stat().st_mtime_ns != before[path.name]}
    assert written == {"index.html"}


def test_captions_are_escaped_and_name_their_run(params):
    run = sampled(params)
    shown = media.samples(run, "val").data
    assert "a &lt;b&gt; &amp; c" in shown
    assert f'href="provenance.html#{run.name}"' in shown


@pytest.mark.parametrize(
    "show",
    [
        lambda params: figures.losses(None, "Losses"),
        lambda params: figures.buckets(None, 2),
        lambda params: figures.buckets(finished(params, "latents"), 2),
        lambda params: media.samples(None, "val"),
        lambda params: media.reconstructions(None, "ucf101"),
        lambda params: media.stills(None, "mixkit_train.csv", 3, "Clips"),
        lambda params: tables.data(None),
        lambda params: tables.quarantine(None),
        lambda params: tae_tables.inflation(None),
        lambda params: tae_tables.scores(params, None, {}),
        lambda params: tae_tables.mixkit_scores(params, None),
        lambda params: tae_tables.classes(None),
        lambda params: tae_tables.terms({"images": None}),
        lambda params: tables.support(params, dict.fromkeys((1, 2, 3))),
        lambda params: tables.summary(params, None, dict.fromkeys((1, 2, 3)), None),
        lambda params: tables.timings(params, dict.fromkeys((1, 2, 3))),
        lambda params: tables.costs(params, dict.fromkeys((1, 2, 3))),
        lambda params: figures.schedule_error(None),
        lambda params: figures.schedule_error(finished(params, "schedule-error")),
        lambda params: tables.sizes(params, None),
        lambda params: tables.retrieval(None),
        lambda params: tables.retrieval(finished(params, "retrieval")),
        lambda params: tables.state(params, dict.fromkeys((1, 2, 3))),
        lambda params: tables.speed(params, dict.fromkeys((1, 2, 3))),
        lambda params: tables.speed(params, {1: finished(params, "stage1")}),
        lambda params: tables.schedule_error(None),
        lambda params: tables.schedule_error(finished(params, "schedule-error")),
    ],
)
def test_without_a_run_a_figure_says_so(params, show):
    assert "not run here" in show(params).data


def test_losses_and_scores_come_from_the_files(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 9):
        media_kind = "video" if step % 2 else "image"
        writer.write(kind="train", step=step, steps=8, loss=1 / step, lr=1e-3, seconds=step / 10, media=media_kind)
    writer.write(kind="validation", step=8, steps=8, loss=0.4321)
    assert "data:image/svg+xml" in figures.losses(run, "Stage 2").data
    stages = {1: None, 2: run, 3: None}
    assert "0.4321" in tables.summary(params, None, stages, None).data
    assert "<td>0.55" in tables.timings(params, stages).data.replace("<td>0.550", "<td>0.55")


def svg(figure):
    """The drawing in a card."""
    return base64.b64decode(re.search(r"base64,([^\"]+)", figure.data)[1]).decode()


def test_steps_that_saw_images_videos_and_both_are_drawn_apart(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 10):
        seen = ("image", "video", "mixed")[step % 3]
        writer.write(kind="train", step=step, steps=9, loss=1 / step, lr=1e-3, seconds=1.0, data_wait=0.0, media=seen,
                     tokens_per_second=1.0, memory_bytes=1)  # fmt: skip
    drawing = svg(figures.losses(run, "Stage 2"))
    for label in ("images", "videos", "images and videos"):
        assert f"<!-- training, {label} -->" in drawing
    assert list(cells(tables.speed(params, {2: run}))["medium"]) == ["videos", "images and videos", "images"]


def test_buckets_hold_the_numbers_of_their_stage(params):
    run = finished(params, "latents")
    counts = {(1, 1, 48, 80): 71, (2, 1, 48, 80): 72, (2, 1, 80, 48): 0, (2, 16, 48, 80): 73, (2, 16, 80, 48): 74}
    lines = [",".join(map(str, (*bucket, clips, 5))) for bucket, clips in counts.items()]
    runs.write_text(run.folder / "buckets.csv", "\n".join(["stage,frames,height,width,clips,held_out", *lines]) + "\n")
    one, several = (svg(figures.buckets(run, stage)) for stage in (1, 2))
    labels = [re.findall(r"<!-- (.*?) -->", drawing) for drawing in (one, several)]
    assert [label for label in labels[0] if label.isdigit()] == ["48", "71"]
    assert [label for label in labels[1] if label.isdigit()] == ["80", "48", "72", "0", "73", "74"]
    assert "images" in labels[0]
    assert "16 frames" not in labels[0]
    assert {"images", "16 frames"} <= set(labels[1])


def cells(table):
    """The cells of an HTML table by its header."""
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?>(.*?)</tr>", table.data, re.S)]
    return pd.DataFrame(rows[1:], columns=rows[0])


def test_scores_of_every_autoencoder_stand_beside_the_published_ones(params):
    evaluation, trained = finished(params, "tae-evaluation"), finished(params, "tae-opl-on")
    own = {"clips": 12, "psnr": 24.512, "psnr_ci95": 1.31, "ssim": 0.78, "ssim_ci95": None}
    both = {"ucf101": {"tae-opl-on": own}, "mixkit": {"tae-mixkit": own | {"psnr": 19.234}}}
    runs.write_json(evaluation.folder / "summary.json", both)
    writer = runs.MetricsWriter(trained.metrics_path)
    for step in range(1, 13):
        writer.write(kind="train", step=step, loss=2.0, reconstruction=step / 100, outlier=0.25, seconds=0.125 * step)
    rows = cells(tae_tables.scores(params, evaluation, {"tae-opl-on": trained})).set_index("")
    assert list(rows["PSNR (dB)"])[:2] == ["31.35", "31.17"]
    assert rows.loc["here, OPL on", "PSNR (dB)"] == "24.51 ± 1.3"
    assert rows.loc["here, OPL on", "SSIM"] == "0.780"
    assert float(rows.loc["here, OPL on", "s/step"]) == pytest.approx(
        0.125 * 7.5, abs=1e-3
    )  # the median of steps 3 to 12
    assert rows.loc["here, OPL off", "PSNR (dB)"] == "not run here"
    assert "19.23" in tae_tables.mixkit_scores(params, evaluation).data
    terms = cells(tae_tables.terms({"OPL on": trained})).iloc[0]
    assert float(terms["reconstruction loss"]) == pytest.approx(0.075)  # the mean of 0.03 to 0.12
    assert float(terms["outlier loss"]) == 0.25
    assert terms["perceptual loss"] == "not in the loss"


def test_errors_of_the_schedules_are_those_of_the_file(params):
    run = finished(params, "schedule-error")
    lines = ["schedule,steps,error,least,most,seconds", "linear,5,0.5,0.4,0.6,1.25", "linear,50,0.0625,0.05,0.07,12.5"]
    lines += ["linear-quadratic,5,0.75,0.7,0.8,1.5", "linear-quadratic,50,0.03125,0.03,0.04,12.0"]
    runs.write_text(run.folder / "errors.csv", "\n".join(lines) + "\n")
    summary = {"prompts": 3, "frames": 16, "size": [48, 80], "reference_steps": 1000, "reference_seconds": 40.0}
    runs.write_json(run.folder / "summary.json", summary)
    shown = tables.schedule_error(run)
    assert "3 captions in one batch, clips of 48x80x16" in shown.data
    rows = cells(shown)
    assert list(rows["schedule"]) == ["linear"] * 2 + ["linear-quadratic"] * 2 + ["linear, the reference"]
    assert [float(value) for value in rows["relative error"][:4]] == [0.5, 0.0625, 0.75, 0.0312]
    assert [float(value) for value in rows["wall time (s)"]] == [1.25, 12.5, 1.5, 12.0, 40.0]
    assert tuple(rows.iloc[4, 1:5]) == ("1000", "-", "-", "-")
    drawn = figures.schedule_error(run).data
    assert run.name in drawn
    assert "1000 equal steps" in drawn
    runs.write_text(run.folder / "errors.csv", "\n".join(lines).replace("0.75", "0.25") + "\n")
    assert figures.schedule_error(run).data != drawn


def test_sizes_are_counted_on_the_class_and_by_formula(params):
    run = finished(params, "count")
    summary = {size: {"counted": number} for number, size in enumerate(("1B", "5B", "30B"), 1001)}
    runs.write_json(run.folder / "summary.json", summary)
    rows = cells(tables.sizes(params, run)).set_index("model")
    assert list(rows.loc[list(summary), "counted on the class"]) == ["1,001", "1,002", "1,003"]
    for size in summary:
        assert rows.loc[size, "by formula"] == f"{plan.parameter_count(config.SIZES[size]):,}"
    assert list(rows["rounded"])[1:] == ["934 M", "4.92 B", "29.3 B"]
    assert rows.loc["tiny", "counted on the class"] == "not run here"


def test_retrieval_shows_the_shares_beside_chance(params):
    run = finished(params, "retrieval")
    summary = {"prompts": 24, "clips": 30, "share_nearest": 0.4583, "chance": 1 / 30, "share_photograph": None,
               "chance_photograph": None, "mean_rank": 2.25, "buckets": ["16x48x80", "16x80x48"],
               "steps": 8, "guidance": 3.0}  # fmt: skip
    runs.write_json(run.folder / "summary.json", summary)
    shown = tables.retrieval(run)
    assert (
        "24 training captions among 30 training clips in buckets 16x48x80, 16x80x48; 8 equal steps, guidance 3; mean"
        in shown.data
    )
    assert [list(row) for row in cells(shown).itertuples(index=False)] == [
        ["has the same caption", "45.8 %", "3.3 %", "at least 90.0 %"],
        ["shows the same photograph", "-", "-", "-"],
    ]


def test_state_and_speed_stand_beside_the_plan(params):
    divided = {"stages.3.train.settings.zero_stage": 3, "stages.3.train.sequence_parallel.shards": 2}
    params = config.load("tiny", divided)
    run = finished(params, "stage3")
    writer, state = runs.MetricsWriter(run.metrics_path), plan.stage_cost(params, 3).state
    writer.write(kind="state", step=0, **vars(state))
    writer.write(kind="compile", step=1, media="video", shapes=[[4]], seconds=30.0)
    for step, (media_kind, rate) in enumerate((("video", 1), ("video", 1000), ("image", 400), ("video", 3000)), 1):
        writer.write(kind="train", step=step, steps=4, loss=1.0, seconds=1.5, data_wait=0.5, media=media_kind,
                     tokens_per_second=rate, memory_bytes=step * 10**9)  # fmt: skip
    rows = cells(tables.state(params, {3: run}))
    assert list(rows[""]) == ["computed", "held by rank 0"]
    assert set(rows["data x shards"]) == {"1 x 2"}
    assert set(rows["ZeRO"]) == {"3"}
    for column, value in zip(("weights", "gradients", "optimizer"), vars(state).values(), strict=True):
        assert set(rows[column]) == {f"{plan.si(value)}B"}
    rows = cells(tables.speed(params, {1: None, 3: run}))
    assert list(rows["medium"]) == ["not run here", "videos", "images"]
    assert list(rows["tokens/s"])[1:] == ["2,000", "400"]  # without the step that compiled
    assert list(rows["waited, of all time"])[1:] == ["25.0 %", "25.0 %"]
    assert set(rows["peak memory"][1:]) == {"4.00 GB"}
    writer.write(kind="train", step=5, steps=5, loss=1.0, seconds=1.5, data_wait=0.5, media="video",
                 tokens_per_second=1, memory_bytes=9 * 10**9, card_memory_bytes=7 * 10**9)  # fmt: skip
    assert set(cells(tables.speed(params, {3: run}))["peak memory"]) == {"7.00 GB"}  # the card's where there is one


def test_the_schedule_figure_shows_all_of_them(params):
    shown = re.search(r"base64,([^\"]+)", figures.schedule(50).data)[1]
    assert set(figures.SCHEDULE_COLORS) == set(schedule.SCHEDULES)
    assert all(color in base64.b64decode(shown).decode() for color in figures.SCHEDULE_COLORS.values())


def test_worst_and_best_classes_are_shown(params):
    evaluation = finished(params, "tae-evaluation")
    rows = [
        {"data_set": "ucf101", "label": f"Class{i:02d}", "model": model, "clips": 2, "psnr": 20 + i, "psnr_ci95": 0.5,
         "ssim": 0.5, "ssim_ci95": ""}
        for i in range(20) for model in ("tae-opl-off", "tae-mixkit")
    ]  # fmt: skip
    runs.write_text(evaluation.folder / "classes.csv", pd.DataFrame(rows).to_csv(index=False))
    shown = cells(tae_tables.classes(evaluation))
    assert list(shown["class"]) == [f"Class{i:02d}" for i in (*range(6), *range(14, 20))]
    assert shown["PSNR (dB)"][0] == "20.00 ± 0.5"


def test_the_appendix_lists_what_was_shown(params):
    run = sampled(params)
    section = next(section for section in SECTIONS if section.name == "sampling")
    executed(params, section, media.samples(run, "val"))
    listed = provenance.figures_and_runs(params).data
    assert run.name in listed
    assert "Generated clips beside the clip of the same caption" in listed
    assert f'id="{run.name}"' in provenance.details([run, None]).data


def test_the_same_figure_gives_the_same_bytes(params):
    assert figures.schedule(10).data == figures.schedule(10).data
    assert "svg" in diagrams.backbone(params.dit_config(3)).data
    assert "svg" in diagrams.tae(params.tae.model).data
    assert "svg" in figures.zero().data


def test_broken_and_missing_videos_leave_a_note(params, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert "cannot read video" in media.strip(tmp_path / "broken.mp4", 10, 3)
    assert (project_root() / "notebooks").is_dir()


def test_stills_find_the_clips_in_the_data_folder(tmp_path, params):
    folder = tmp_path / "clips"
    videos.write_video(folder / "one.mp4", np.zeros((20, 32, 48, 3), np.uint8), 25)
    params = config.load("tiny", {"data.root": str(folder)})
    run = finished(params, "data")
    clip = datasets.Clip(folder / "one.mp4", caption="A black clip.", frames=20, height=32, width=48, fps=25.0)
    datasets.save_index(run.folder / "mixkit_train.csv", [clip], folder)
    shown = media.stills(run, "mixkit_train.csv", 3, "Clips").data
    assert "data:image/jpeg" in shown
    assert "A black clip." in shown
    assert "cannot read" not in shown
