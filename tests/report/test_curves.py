from moviegen import runs
from moviegen.report.curves import losses
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
