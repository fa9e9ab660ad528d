"""What pages read of runs: names and captions stay what they were, also where they look like numbers."""

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.data import videos
from moviegen.data.splits import load_split
from moviegen.programs import index_data
from moviegen.report import results
from moviegen.report.pages import data, sampling, tae_evaluation
from moviegen.runs.files import write_csv
from tests.report.making import begun, cells, finished

NAMES = ["0", "007", "1e5", "NA", "null", "nan", "True", "1_000", "0x1F", "inf", "2024-01-01", "-"]


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_read_as_they_were_written(params, name):
    run, header = begun(params, "data"), ("path", "caption", "label", "clip", "reason", "frames")
    write_csv(run.folder / "names.csv", header, [(*[name] * 5, 40)] * 2)  # alone: among words it would be one
    read = results.read_csv(run, "names.csv")
    assert all(list(read[column]) == [name, name] for column in header[:-1])
    assert read["frames"].sum() == 80


@pytest.fixture
def numeric(tmp_path):
    """A finished data run of classes and captions that look like numbers, and its parameters."""
    root = tmp_path / "clips"
    frames = np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), dtype=np.uint8)
    for label in ("0", "007", "NA"):
        for name in ("0003", "1"):
            videos.write_video(root / label / f"{name}.mp4", frames, 12)
    for name in ("0003", "1e5", "null"):
        videos.write_video(root / "mixkit" / f"{name}.mp4", frames, 12)
    (root / "mixkit" / "0004.mp4").write_bytes(b"no video")
    rows = [("0003.mp4", "007"), ("1e5.mp4", "NA"), ("null.mp4", "1e5"), ("0004.mp4", "0004")]
    write_csv(root / "video_caption_train.csv", ("video", "caption"), rows)
    params = config.load("smoke", {"data.root": str(root)})
    with runs.record(runs.find(params, "data")) as run:
        index_data.index(run)
    return params, run


def test_numbers_for_names_reach_the_last_page(numeric):
    params, run = numeric
    clips = [clip for split in ("mixkit_train", "mixkit_val") for clip in load_split(run, split)]
    assert {(clip.path.name, clip.caption) for clip in clips} == {
        ("0003.mp4", "007"),
        ("1e5.mp4", "NA"),
        ("null.mp4", "1e5"),
    }
    shown = "".join(data.stills(run, f"mixkit_{split}.csv", 9, "Clips").data for split in ("train", "val"))
    assert all(f"<figcaption>{caption}</figcaption>" in shown for caption in ("007", "NA", "1e5"))
    classes = "".join(data.stills(run, f"ucf101_{split}.csv", 9, "Clips").data for split in ("train", "test"))
    assert all(f"<figcaption>{label}</figcaption>" in classes for label in ("0", "007", "NA"))
    assert cells(data.quarantine(run))["path"][0].endswith("/mixkit/0004.mp4")

    evaluation, labels = finished(params, "tae-evaluation"), ("0", "007", "NA")
    header = ("data_set", "label", "model", "clips", "sources", "psnr", "psnr_ci95", "ssim", "ssim_ci95", "lpips",
              "lpips_ci95", "identical")  # fmt: skip
    scored = [
        ("ucf101", label, "tae-opl-off", 1, 1, 20 + at, "", 0.5, "", 0.25, "", 0) for at, label in enumerate(labels)
    ]
    write_csv(evaluation.folder / "classes.csv", header, scored)
    assert list(cells(tae_evaluation.classes(evaluation))["class"]) == list(labels)
    rows = [
        (f"videos/{label}.mp4", "worst", "ucf101", "0003.mp4", label, "tae-opl-off", 20.0, 0.5, 0.25)
        for label in labels
    ]
    header = ("file", "kind", "data_set", "clip", "label", "model", "psnr", "ssim", "lpips")
    write_csv(evaluation.folder / "videos.csv", header, rows)
    restored = tae_evaluation.reconstructions(evaluation, "ucf101").data
    assert all(f"worst: {label}, tae-opl-off, PSNR 20.00 dB" in restored for label in labels)

    sampled = finished(params, "sample")
    rows = [(place, "unseen", clip.caption, 42, "g.mp4", "r.mp4") for place, clip in enumerate(clips)]
    write_csv(sampled.folder / "samples.csv", ("index", "kind", "prompt", "seed", "generated", "reference"), rows)
    prompts = sampling.clips(sampled, None, "unseen").data
    assert all(f'<p class="prompt">{caption}</p>' in prompts for caption in ("007", "NA", "1e5"))


@pytest.mark.parametrize(
    ("value", "samples", "is_apart"),
    [
        (0.0, [1.0, 2.0, 3.0, 4.0, 5.0], False),  # five lie on one side of a median once in 2^4 times: more than 5 %
        (0.0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], True),  # six once in 2^5 times
        (7.0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], True),
        (3.0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], False),
        (0.0, [], False),
    ],
)
def test_few_samples_tell_nothing_apart(value, samples, is_apart):
    assert results.is_told_apart(value, samples) is is_apart


@pytest.mark.parametrize("content", ["a,b,c\n1,2,3\n1,2", "a,b,c\n1,2,3\n1,2,3,4\n", 'a,b\n1,"x', ""])
def test_a_torn_table_is_refused_by_its_name(params, content):
    run = begun(params, "data")
    (run.folder / "torn.csv").write_text(content)
    with pytest.raises(config.ConfigError, match=r"torn\.csv is damaged .*: remove .*data-"):
        results.read_csv(run, "torn.csv")
