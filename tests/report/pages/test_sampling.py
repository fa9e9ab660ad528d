import base64
import html
import io
import math
import re
import statistics

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from moviegen import config
from moviegen.data import videos
from moviegen.flow import schedule
from moviegen.report.pages import sampling
from moviegen.report.results import DamagedFile
from moviegen.runs import files
from tests.report.making import begun, cells, coloured, finished, sampled, svg, words


@pytest.mark.parametrize(
    "show",
    [
        lambda params: sampling.clips(None, None, "unseen"),
        lambda params: sampling.clips(None, sampled(params, "shipped"), "unseen"),
        lambda params: sampling.clips(finished(params, "sample"), None, "trained"),
        lambda params: sampling.retrieval(None),
        lambda params: sampling.retrieval(finished(params, "retrieval")),
        lambda params: sampling.retrieval_verdict(None),
        lambda params: sampling.error_curves(None),
        lambda params: sampling.error_curves(finished(params, "schedule-error")),
        lambda params: sampling.error_table(None),
        lambda params: sampling.error_table(finished(params, "schedule-error")),
        lambda params: sampling.comparison(None),
        lambda params: sampling.comparison(finished(params, "schedule-error")),
        lambda params: sampling.ends(None, None),
        lambda params: sampling.ends(finished(params, "schedule-error"), sampled(params)),
        lambda params: sampling.denoising(None),
        lambda params: sampling.denoising(finished(params, "sample")),
        lambda params: sampling.paces(None),
        lambda params: sampling.channels(None),
        lambda params: sampling.channels(sampled(params)),
    ],
)
def test_without_a_run_the_page_says_so(params, show):
    assert "not run here" in show(params).data


# --- clips ---


def test_captions_are_escaped_and_name_their_run(params):
    run = sampled(params)
    shown = sampling.clips(run, None, "unseen").data
    assert "a &lt;b&gt; &amp; c" in shown
    assert f'href="provenance.html#{run.name}"' in shown


ROWS = (
    "index,kind,prompt,seed,generated,reference",
    "0,unseen,a cat,42,generated-0.mp4,reference-0.mp4",
    "1,paraphrase,some feline,43,generated-1.mp4,reference-1.mp4",
    "2,trained,two dogs,44,generated-2.mp4,reference-2.mp4",
    "3,trained,the sea,45,generated-3.mp4,reference-3.mp4",
)


def listed(params, name, rows):
    """A finished run of these lines of samples.csv, without the videos."""
    run = finished(params, name)
    (run.folder / "samples.csv").write_text("\n".join(rows) + "\n")
    return run


def groups(shown):
    """What stands together: the prompt, then each video's program, file and caption."""
    player = r'<video src="[^"]*/([a-z]+)-[0-9a-f]{8}/([^"]+)".*?<figcaption>(.*?)</figcaption>'
    pairs = re.findall(r'<div class="pair">(.*?)<p class="prompt">(.*?)</p></div>', shown.data)
    return [(prompt, *re.findall(player, players)) for players, prompt in pairs]


def test_clips_of_a_kind_are_shown_beside_their_own(params):
    shown = sampling.clips(listed(params, "sample", ROWS), None, "trained")
    own = "the clip of this caption"
    assert groups(shown) == [
        ("two dogs", ("sample", "generated-2.mp4", "trained here, seed 44"), ("sample", "reference-2.mp4", own)),
        ("the sea", ("sample", "generated-3.mp4", "trained here, seed 45"), ("sample", "reference-3.mp4", own)),
    ]
    (paraphrased,) = groups(sampling.clips(listed(params, "sample", ROWS), None, "paraphrase"))
    assert paraphrased[0] == "some feline"


def test_clips_of_shipped_weights_stand_between_whatever_the_order_of_their_lines(params):
    run, shipped = listed(params, "sample", ROWS), listed(params, "shipped", [ROWS[0], *ROWS[:0:-1]])
    shown = sampling.clips(run, shipped, "unseen")
    assert groups(shown) == [
        (
            "a cat",
            ("sample", "generated-0.mp4", "trained here, seed 42"),
            ("shipped", "generated-0.mp4", "shipped weights, seed 42"),
            ("sample", "reference-0.mp4", "the clip of this caption"),
        )
    ]
    assert all(f'href="provenance.html#{one.name}"' in shown.data for one in (run, shipped))


def test_where_no_clip_has_a_paraphrase_the_page_says_so(params):
    shown = sampling.clips(listed(params, "sample", ROWS[:2]), None, "paraphrase")
    assert "No clip here has captions in other words than it was trained on." in words(shown)


# --- the way to a clip ---

WAYS = {"linear": (0.0, 0.5, 1.0), "linear-quadratic": (0.0, 0.012, 1.0)}


@pytest.fixture
def followed(params):
    """A run that kept two ways of three stops; each picture has a grey level of its own."""
    run, lines, level = finished(params, "sample"), ["schedule,after,time,distance,latent,foretold,prompt,seed"], 0
    for name, times in WAYS.items():
        for after, time, distance in zip((0, 10, 20), times, (0.75, 0.25, 0.0), strict=True):
            named = [f"denoising/{name}-{after}.png", f"denoising/{name}-{after}-foretold.png"]
            for file in named:
                level += 20
                videos.write_image(run.folder / file, np.full((16, 24, 3), level, np.uint8))
            lines.append(f"{name},{after},{time},{distance},{','.join(named)},a <cat>,44")
    files.write_text(run.folder / "denoising.csv", "\n".join(lines) + "\n")
    return run


def test_each_way_is_a_row_of_what_is_there_above_what_it_foretells(followed):
    shown = sampling.denoising(followed)
    page = BeautifulSoup(shown.data, "html.parser")
    assert [name.text for name in page.select("p.run-line")] == list(WAYS)
    assert [len(way.select("figure.clip")) for way in page.select("div.way")] == [3, 3]
    first = page.select("figure.clip")
    assert [caption.get_text("|") for caption in page.select("div.way figcaption")][1:4] == [
        "after 10 steps|t| = 0.50|25.0 % off", "after 20 steps|t| = 1.0", "before all steps|t| = 0|75.0 % off",
    ]  # fmt: skip
    levels = [level(image) for one in first for image in one.select("img")]
    assert levels == pytest.approx(list(range(20, 260, 20)), abs=2)
    assert "linear-quadratic, after 10 steps: what that foretells" in {image["alt"] for image in page.select("img")}
    assert "Seed 44: a &lt;cat&gt;" in shown.data
    assert f'href="provenance.html#{followed.name}"' in shown.data


def level(image):
    """The mean grey level of a picture in the page."""
    with Image.open(io.BytesIO(base64.b64decode(image["src"].partition("base64,")[2]))) as opened:
        return np.asarray(opened).mean()


def test_the_pace_of_each_schedule_is_told_from_the_stop_in_the_middle(followed):
    assert words(sampling.paces(followed)) == (
        "After 10 steps of 20, linear is at t = 0.50, and what it foretells is 25.0 % off its end; linear-quadratic is "
        "at t = 0.012, and what it foretells is 25.0 % off its end."
    )


def test_a_damaged_picture_is_named(followed):
    (followed.folder / "denoising/linear-10.png").write_bytes(b"half")
    with pytest.raises(DamagedFile, match=rf"linear-10\.png cannot be read .*: remove {followed.folder} to have"):
        sampling.denoising(followed)


def test_whose_weights_sample_is_told(params):
    said = words(sampling.sampled_by(params))
    height, width = params.sample.size
    assert f"the transformer as stage 3 left it: 16 frames of {height}x{width} pixels" in said and "stage 2's" in said


# --- the schedules ---


def test_the_schedule_figure_shows_all_of_them():
    drawing = svg(sampling.schedules(50))
    assert set(sampling.COLORS) == set(schedule.SCHEDULES)
    assert all(color in drawing for color in sampling.COLORS.values())


def test_errors_of_the_schedules_are_those_of_the_file(params):
    run = finished(params, "schedule-error")
    lines = ["schedule,steps,error,least,most,seconds", "linear,5,0.5,0.4,0.6,1.25", "linear,50,0.0625,0.05,0.07,12.5"]
    lines += ["linear-quadratic,5,0.75,0.7,0.8,1.5", "linear-quadratic,50,0.03125,0.03,0.04,12.0"]
    lines += ['"linear-quadratic, gated",5,0.8,0.7,0.9,1.0', '"linear-quadratic, gated",50,0.4,0.3,0.5,9.0']
    files.write_text(run.folder / "errors.csv", "\n".join(lines) + "\n")
    summary = {"prompts": 3, "frames": 16, "size": [48, 80], "reference_steps": 1000, "reference_seconds": 40.0}
    summary |= {"guidance": 2.5, "guidance_gate": 0.375}
    files.write_json(run.folder / "summary.json", summary)
    shown = sampling.error_table(run)
    assert "3 captions in one batch, clips of 48x80x16" in shown.data
    rows = cells(shown)
    assert list(rows["schedule"]) == [
        *["linear"] * 2, *["linear-quadratic"] * 2, *["linear-quadratic, gated"] * 2, "linear, the reference",
    ]  # fmt: skip
    assert [float(value) for value in rows["relative error"][:4]] == [0.5, 0.0625, 0.75, 0.0312]
    assert [float(value) for value in rows["wall time (s)"]] == [1.25, 12.5, 1.5, 12.0, 1.0, 9.0, 40.0]
    assert tuple(rows.iloc[6, 1:5]) == ("1000", "-", "-", "-")
    drawn = sampling.error_curves(run).data
    assert run.name in drawn
    for said in ("How far Euler's steps end", "1000 equal steps", "guidance 2.5", "gated: after 37.5 % of the steps"):
        assert html.escape(said) in drawn
    files.write_text(run.folder / "errors.csv", "\n".join(lines).replace("0.75", "0.25") + "\n")
    assert sampling.error_curves(run).data != drawn


def solved(params, steps=(5, 50), **scales):
    """A run whose latents end so far from the reference: by schedule, a number of steps' distance of each caption."""
    params = config.parse(params.model_dump(), {"sample.schedule_error.steps": list(steps)})
    run = finished(params, "schedule-error")
    wanted = np.arange(1.0, 3 * 16 * 4 + 1).reshape(3, 16, 1, 2, 2)
    ends = {("reference", 250): wanted}
    for name, distances in scales.items():
        for count, of_captions in zip(steps, distances, strict=True):
            ends[name.replace("_", "-"), count] = wanted * (1 + np.reshape(of_captions, (3, 1, 1, 1, 1)))
    for (name, count), end in ends.items():
        path = run.folder / "solutions" / f"{name}-{count}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, end=end, seconds=1.0)
    summary = {"prompts": 3, "reference_steps": 250, "guidance_gate": 0.5}
    files.write_json(run.folder / "summary.json", summary)
    return run


def test_schedules_are_told_apart_only_where_the_interval_carries_it(params):
    nearer, farther, either = (0.01, 0.021, 0.04), (0.041, 0.08, 0.158), (0.02, 0.05, 0.06)
    linear = ((0.02, 0.041, 0.079), (0.02, 0.04, 0.08))
    run = solved(params, linear=linear, linear_quadratic=(nearer, either), linear_quadratic_smooth=(linear[1], farther))
    shown = sampling.comparison(run)
    rows = cells(shown)
    assert list(rows["that tells"]) == [
        "it ends nearer (n = 3)", "not told apart (n = 3)", "not told apart (n = 3)", "it ends farther (n = 3)",
    ]  # fmt: skip
    assert list(rows["steps"]) == ["5", "50", "5", "50"]
    logs = [math.log(a / b) for a, b in zip(either, linear[1], strict=True)]
    mean, half = statistics.mean(logs), 4.302653 * statistics.stdev(logs) / 3**0.5  # t of two degrees of freedom
    low, high = (float(value) for value in rows["95 % interval"][1].split(" to "))
    assert (low, high) == pytest.approx((math.exp(mean - half), math.exp(mean + half)), rel=0.01)
    assert float(rows["ratio"][1]) == pytest.approx(math.exp(mean), rel=0.01)
    assert "reused after 50.0 % of the steps, for 75.0 % of the arithmetic" in words(shown)


def test_one_caption_tells_no_schedules_apart(params):
    run = solved(params, linear=((0.02, 0.03, 0.04),) * 2, linear_quadratic=((0.04, 0.05, 0.06),) * 2)
    for path in (run.folder / "solutions").iterdir():
        np.savez(path, end=np.load(path)["end"][:1], seconds=1.0)
    rows = cells(sampling.comparison(run))
    assert set(rows["ratio"]) == {"2.00"} and set(rows["95 % interval"]) == {"-"}
    assert set(rows["that tells"]) == {"not told apart (n = 1)"}


# --- pictures of latents ---


def test_ends_of_each_schedule_stand_in_one_row(params):
    run = solved(params, linear=((0.5, 0, 0), (0.1, 0, 0)), linear_quadratic=((0.2, 0, 0), (0.1, 0, 0)))
    shown = sampling.ends(run, coloured(params))
    rows = cells(shown)
    assert list(rows.columns) == ["schedule", "5 steps", "50 steps", "250 equal steps"]
    assert len({rows.loc[0, "5 steps"], rows.loc[0, "50 steps"], rows.loc[0, "250 equal steps"]}) == 3
    source = [re.search('src="(.*?)"', rows.loc[row, column])[1] for row in (0, 1) for column in rows.columns[1:]]
    assert source[1] == source[4] and source[2] == source[5] and source[0] != source[3]
    assert set(rows.loc[2][1:3]) == {"-"}  # of the third schedule no end is kept
    assert "the 2 clips sampled above" in words(shown)


def test_latents_that_say_nothing_of_colours_are_shown_by_their_channels_alone(params):
    sample, run = coloured(params), solved(params, linear=((0.5, 0, 0),) * 2)
    for path in (sample.folder / "latents").iterdir():
        np.savez(path, latent_mean=np.random.default_rng(7).standard_normal((16, 2, 18, 30)))
    assert re.search(
        r"not shown as pictures, as a linear map of the latents explains \d\.\d %", words(sampling.ends(run, sample))
    )
    shown = sampling.channels(sample).data
    assert "in colours" not in shown and shown.count("<img") == 17  # the clip's frame and the channels


def test_a_latent_s_channels_stand_beside_its_clip(params):
    shown = sampling.channels(coloured(params))
    assert [f"channel {number}" for number in range(1, 17)] == re.findall("<figcaption>(channel .*?)<", shown.data)
    assert "16x2x18x30 numbers" in words(shown)


@pytest.mark.parametrize(
    ("guidance", "gate", "said"),
    [(1, 1, "with the caption alone"), (0, 1, "without the caption"), (3, 1, "twice a step, in 50 steps"),
     (3, 0.25, "After 25.0 % of the steps the last difference is used again")],
)  # fmt: skip
def test_the_page_says_how_it_guides(params, guidance, gate, said):
    given = {"sample.guidance": guidance, "sample.guidance_gate": gate}
    assert said in words(sampling.guidance(config.parse(params.model_dump(), given).sample))


# --- retrieval ---


FOUND = {"prompts": 24, "share_nearest": 0.4583, "share_nearest_ci95": [0.2789, 0.6493], "chance": 1 / 30,
         "share_scene": None, "share_scene_ci95": None, "chance_scene": None, "mean_rank": 2.25}  # fmt: skip
SUMMARY = {"clips": 30, "buckets": ["16x48x80", "16x80x48"], "steps": 8, "guidance": 3.0}


def test_retrieval_shows_the_shares_beside_chance_by_kind(params):
    run = finished(params, "retrieval")
    scenes = {"share_scene": 0.5, "share_scene_ci95": [0.25, 0.75], "chance_scene": 0.125, "mean_rank": 4.5}
    found = {"caption": FOUND, "paraphrase": FOUND | scenes | {"prompts": 12, "share_nearest": 0.25}}
    files.write_json(run.folder / "summary.json", SUMMARY | found)
    shown = sampling.retrieval(run)
    among = "Among 30 training clips in buckets 16x48x80, 16x80x48; 8 equal steps, guidance 3; mean rank of "
    assert f"{among}captions 2.25, paraphrases 4.50" in shown.data
    captions, paraphrases = "captions it was trained on", "paraphrases it was not trained on"
    own, scene = "has this caption", "shows the same scene or photograph"
    assert [list(row) for row in cells(shown).itertuples(index=False)] == [
        [captions, "24", own, "45.8 %", "27.9 % to 64.9 %", "3.3 %", "at least 90.0 %"],
        [captions, "24", scene, "-", "-", "-", "-"],
        [paraphrases, "12", own, "25.0 %", "27.9 % to 64.9 %", "3.3 %", "at least 70.0 %"],
        [paraphrases, "12", scene, "50.0 %", "25.0 % to 75.0 %", "12.5 %", "-"],
    ]


def test_where_no_paraphrase_was_asked_retrieval_shows_captions_alone(params):
    run = finished(params, "retrieval")
    files.write_json(run.folder / "summary.json", SUMMARY | {"caption": FOUND})
    shown = sampling.retrieval(run)
    assert "paraphrase" not in shown.data
    assert len(cells(shown)) == 2
    assert words(sampling.retrieval_verdict(run)).count("goal") == 1


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ([0.9, 0.99], "the goal of 90.0 % is reached"),
        ([0.85, 0.99], "the share is not told apart from the goal of 90.0 %"),
        ([0.5, 0.95], "the share is not told apart from the goal of 90.0 %"),
        ([0.5, 0.89], "the goal of 90.0 % is not reached"),
    ],
)
def test_retrievals_goal_is_reached_where_the_interval_carries_it(params, interval, verdict):
    run, share = begun(params, "retrieval"), sum(interval) / 2
    found = FOUND | {"share_nearest": share, "share_nearest_ci95": interval}
    files.write_json(run.folder / "summary.json", SUMMARY | {"caption": found})
    shown = sampling.retrieval_verdict(run)
    low, high = (f"{100 * end:.1f} %" for end in interval)
    assert words(shown).startswith(
        f"For captions it was trained on {verdict}: {100 * share:.1f} % were found (95 % interval {low} to {high}, "
        f"n = 24), where chance finds 3.3 %."
    )
    assert "<b>" not in shown.data
    assert f'href="provenance.html#{run.name}"' in shown.data


def test_paraphrases_have_a_goal_of_their_own(params):
    run = begun(params, "retrieval")
    found = {
        kind: FOUND | {"share_nearest": 0.8, "share_nearest_ci95": [0.75, 0.85]} for kind in ("caption", "paraphrase")
    }
    files.write_json(run.folder / "summary.json", SUMMARY | found)
    shown = words(sampling.retrieval_verdict(run))
    assert "For captions it was trained on the goal of 90.0 % is not reached: 80.0 % were found" in shown
    assert "For paraphrases it was not trained on the goal of 70.0 % is reached: 80.0 % were found" in shown
