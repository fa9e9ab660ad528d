import pytest

from moviegen.flow import schedule
from moviegen.report.pages import sampling
from moviegen.runs import files
from tests.report.making import begun, cells, finished, sampled, svg, words


@pytest.mark.parametrize(
    "show",
    [
        lambda params: sampling.clips(None, "val"),
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
    shown = sampling.clips(run, "val").data
    assert "a &lt;b&gt; &amp; c" in shown
    assert f'href="provenance.html#{run.name}"' in shown


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


# --- retrieval ---


def test_retrieval_shows_the_shares_beside_chance(params):
    run = finished(params, "retrieval")
    summary = {"prompts": 24, "clips": 30, "share_nearest": 0.4583, "share_nearest_ci95": [0.2789, 0.6493],
               "chance": 1 / 30, "share_photograph": None, "share_photograph_ci95": None, "chance_photograph": None,
               "mean_rank": 2.25, "buckets": ["16x48x80", "16x80x48"],
               "steps": 8, "guidance": 3.0}  # fmt: skip
    files.write_json(run.folder / "summary.json", summary)
    shown = sampling.retrieval(run)
    assert (
        "24 training captions among 30 training clips in buckets 16x48x80, 16x80x48; 8 equal steps, guidance 3; mean"
        in shown.data
    )
    assert [list(row) for row in cells(shown).itertuples(index=False)] == [
        ["has the same caption", "45.8 %", "27.9 % to 64.9 %", "3.3 %", "at least 90.0 %"],
        ["shows the same photograph", "-", "-", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.9, "reached: 90.0 %"), (0.8958, "not reached: 89.6 %"), (0.4583, "not reached: 45.8 %")]
)
def test_retrievals_goal_is_reached_or_not(params, share, verdict):
    run = begun(params, "retrieval")
    files.write_json(
        run.folder / "summary.json", {"share_nearest": share, "share_nearest_ci95": [0.25, 0.95], "chance": 1 / 30}
    )
    shown = sampling.retrieval_verdict(run)
    assert words(shown).startswith(
        f"The goal of 90.0 % is {verdict} were found (95 % interval 25.0 % to 95.0 %), where chance finds 3.3 %."
    )
    assert f'href="provenance.html#{run.name}"' in shown.data
