import re

import pytest

from moviegen.flow import schedule
from moviegen.report.pages import sampling
from moviegen.runs import files
from tests.report.making import begun, cells, finished, sampled, svg, words


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
        lambda params: sampling.error_verdict(None),
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


# --- the schedules ---


def test_the_schedule_figure_shows_all_of_them():
    drawing = svg(sampling.schedules(50))
    assert set(sampling.COLORS) == set(schedule.SCHEDULES)
    assert all(color in drawing for color in sampling.COLORS.values())


def test_errors_of_the_schedules_are_those_of_the_file(params):
    run = finished(params, "schedule-error")
    lines = ["schedule,steps,error,least,most,seconds", "linear,5,0.5,0.4,0.6,1.25", "linear,50,0.0625,0.05,0.07,12.5"]
    lines += ["linear-quadratic,5,0.75,0.7,0.8,1.5", "linear-quadratic,50,0.03125,0.03,0.04,12.0"]
    files.write_text(run.folder / "errors.csv", "\n".join(lines) + "\n")
    summary = {"prompts": 3, "frames": 16, "size": [48, 80], "reference_steps": 1000, "reference_seconds": 40.0}
    files.write_json(run.folder / "summary.json", summary)
    shown = sampling.error_table(run)
    assert "3 captions in one batch, clips of 48x80x16" in shown.data
    rows = cells(shown)
    assert list(rows["schedule"]) == ["linear"] * 2 + ["linear-quadratic"] * 2 + ["linear, the reference"]
    assert [float(value) for value in rows["relative error"][:4]] == [0.5, 0.0625, 0.75, 0.0312]
    assert [float(value) for value in rows["wall time (s)"]] == [1.25, 12.5, 1.5, 12.0, 40.0]
    assert tuple(rows.iloc[4, 1:5]) == ("1000", "-", "-", "-")
    drawn = sampling.error_curves(run).data
    assert run.name in drawn
    assert "1000 equal steps" in drawn
    files.write_text(run.folder / "errors.csv", "\n".join(lines).replace("0.75", "0.25") + "\n")
    assert sampling.error_curves(run).data != drawn


def errors(params, **by_schedule):
    """A run whose errors with 5, 10 and 50 steps are these."""
    run, lines = begun(params, "schedule-error"), ["schedule,steps,error,least,most,seconds"]
    for name, values in by_schedule.items():
        for steps, value in zip((5, 10, 50), values, strict=True):
            lines.append(f"{name.replace('_', '-')},{steps},{value},0,1,1")
    files.write_text(run.folder / "errors.csv", "\n".join(lines) + "\n")
    return run


@pytest.mark.parametrize(
    ("quadratic", "smooth", "nearest", "verdict"),
    [
        ((0.9, 0.7, 0.3), (0.8, 0.5, 0.4), "linear with 5, 10 and 50 steps", "not confirmed"),
        ((0.3, 0.2, 0.05), (0.4, 0.5, 0.01),
         "linear-quadratic with 5 and 10 steps and linear-quadratic-smooth with 50 steps", "confirmed here"),
        ((0.6, 0.3, 0.02), (0.7, 0.7, 0.7), "linear with 5 steps and linear-quadratic with 10 and 50 steps",
         "confirmed in part here by this measure: only with 10 and 50 steps it ends nearer than equal ones"),
    ],
)  # fmt: skip
def test_schedules_claim_is_judged_by_the_errors(params, quadratic, smooth, nearest, verdict):
    run = errors(params, linear=(0.5, 0.4, 0.1), linear_quadratic=quadratic, linear_quadratic_smooth=smooth)
    shown = sampling.error_verdict(run)
    assert f"the many-step solution is {nearest}. The claim for linear-quadratic is {verdict}" in words(shown)
    assert f'href="provenance.html#{run.name}"' in shown.data


def test_a_reused_difference_of_guidance_is_judged_beside_the_schedules(params):
    run = errors(params, linear=(0.9, 0.4, 0.3), linear_quadratic=(0.5, 0.2, 0.1))
    lines = (run.folder / "errors.csv").read_text() + '"linear-quadratic, gated",5,0.6,0,1,1\n'
    lines += '"linear-quadratic, gated",10,0.25,0,1,1\n"linear-quadratic, gated",50,0.025,0,1,1\n'
    files.write_text(run.folder / "errors.csv", lines)
    files.write_json(run.folder / "summary.json", {"guidance_gate": 0.5})
    shown = words(sampling.error_verdict(run))
    assert "is linear-quadratic with 5, 10 and 50 steps." in shown  # the gated one is no schedule
    assert "after 50.0 % of the steps, 50 steps end 0.250 times as far away as without, for 75.0 % of" in shown


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
    ("share", "verdict"), [(0.9, "reached: 90.0 %"), (0.8958, "not reached: 89.6 %"), (0.4583, "not reached: 45.8 %")]
)
def test_retrievals_goal_is_reached_or_not(params, share, verdict):
    run = begun(params, "retrieval")
    found = FOUND | {"share_nearest": share, "share_nearest_ci95": [0.25, 0.95]}
    files.write_json(run.folder / "summary.json", SUMMARY | {"caption": found})
    shown = sampling.retrieval_verdict(run)
    assert words(shown).startswith(
        f"For captions it was trained on the goal of 90.0 % is {verdict} were found (95 % interval 25.0 % to 95.0 %), "
        f"where chance finds 3.3 %."
    )
    assert f'href="provenance.html#{run.name}"' in shown.data


def test_paraphrases_have_a_goal_of_their_own(params):
    run = begun(params, "retrieval")
    found = {kind: FOUND | {"share_nearest": 0.75} for kind in ("caption", "paraphrase")}
    files.write_json(run.folder / "summary.json", SUMMARY | found)
    shown = words(sampling.retrieval_verdict(run))
    assert "For captions it was trained on the goal of 90.0 % is not reached: 75.0 % were found" in shown
    assert "For paraphrases it was not trained on the goal of 70.0 % is reached: 75.0 % were found" in shown
