from moviegen import runs
from moviegen.report.curves import by_time, losses
from tests.report.making import finished, svg


def test_without_a_run_there_is_no_curve():
    assert "not run here" in losses(None, "Losses").data


def test_losses_are_drawn_from_the_files(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 9):
        media = "video" if step % 2 else "image"
        writer.write(kind="train", step=step, steps=8, loss=1 / step, lr=1e-3, seconds=step / 10, media=media)
    assert "data:image/svg+xml" in losses(run, "Stage 2").data
    assert "<!-- validation -->" not in svg(losses(run, "Stage 2"))
    writer.write(kind="validation", step=8, steps=8, loss=0.4321)
    assert "<!-- validation -->" in svg(losses(run, "Stage 2"))


def test_steps_that_saw_images_videos_and_both_are_drawn_apart(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 10):
        seen = ("image", "video", "mixed")[step % 3]
        writer.write(kind="train", step=step, steps=9, loss=1 / step, lr=1e-3, seconds=1.0, data_wait=0.0, media=seen,
                     tokens_per_second=1.0, memory_bytes=1)  # fmt: skip
    drawing = svg(losses(run, "Stage 2"))
    for label in ("images", "videos", "images and videos"):
        assert f"<!-- training, {label} -->" in drawing


def test_what_happened_is_marked_and_gradients_are_drawn(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 9):
        norm = None if step == 4 else step / 10  # that of a step that overflowed is none
        writer.write(kind="train", step=step, steps=8, loss=1 / step, lr=1e-3, seconds=1.0, grad_norm=norm)
    plain = svg(losses(run, "Stage 2"))
    assert "plateau" not in plain and "resumed" not in plain
    for step in (4, 8):
        writer.write(kind="plateau", step=step, scale=0.5)
    writer.write(kind="resumed", step=2)
    drawing = svg(losses(run, "Stage 2"))
    assert (drawing.count("<!-- plateau: rate cut -->"), drawing.count("<!-- resumed -->")) == (1, 1)  # in the legend
    assert (
        drawing.count("stroke-dasharray") - plain.count("stroke-dasharray") == 3 + 2
    )  # three lines, two in the legend


def test_the_loss_at_each_time_is_that_of_the_first_a_middle_and_the_last_validation(params):
    run = finished(params, "stage2")
    assert "not run here" in by_time(run, "By time").data
    writer = runs.MetricsWriter(run.metrics_path)
    for step in (0, 1000, 2000, 3000, 4000):
        writer.write(
            kind="validation", step=step, steps=9, loss=1.0, **{"loss_at_0.25": 0.5, "loss_at_0.75": step / 1e4}
        )
    drawing = svg(by_time(run, "By time"))
    for when in ("before the first update", "after 2,000 updates", "after 4,000 updates"):
        assert f"<!-- {when} -->" in drawing
    assert drawing.count("update") == 3
