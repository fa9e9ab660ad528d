import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moviegen import config
from moviegen.data import film, samples
from moviegen.data.layouts import find_layout
from moviegen.data.samples import (
    FRAMES,
    GROUPS,
    MOTIONS,
    SUBJECTS,
    View,
    between,
    frame_in_photograph,
    look,
    make_sample_set,
    photograph,
    plan_shots,
    render,
    train_shots,
    validation_shots,
)
from moviegen.data.splits import sample_folder
from moviegen.data.videos import VideoInfo, probe, write_video


def shift(before, after):
    """How far the picture moved, in (rows, columns): the peak of the phase correlation."""
    spectrum = np.fft.fft2(before.mean(-1)) * np.conj(np.fft.fft2(after.mean(-1)))
    peak = np.fft.ifft2(spectrum / (np.abs(spectrum) + 1e-9)).real
    rows, columns = np.unravel_index(peak.argmax(), peak.shape)
    return tuple(-int(v - size if v > size // 2 else v) for v, size in zip((rows, columns), peak.shape, strict=True))


def ucf101(label, photographs=("camera",), size=(160, 120)):
    return samples.Shot(Path("unused.avi"), photographs, label, size, key=7)


@pytest.fixture
def two_clips(monkeypatch):
    """Plan the first clip of each layout only; rendering all takes most of a minute."""
    plan = plan_shots

    def first_ones(folder):
        shots = plan(folder)
        return [shots[0], next(shot for shot in shots if shot.path.name == "coins-panright.mp4")]

    monkeypatch.setattr(samples, "plan_shots", first_ones)


def test_plan_has_the_promised_layout():
    shots = plan_shots(Path("sample"))
    assert len({shot.path for shot in shots}) == len({shot.key for shot in shots}) == len(shots)
    ucf = [shot for shot in shots if shot.path.suffix == ".avi"]
    sides = {1: "train", 2: "train", 3: "train", 4: "test"}
    names = {f"sample/UCF-101/{sides[g]}/{m}/v_{m}_g0{g}_c0{c}.avi" for m, g, c in product(MOTIONS, sides, (1, 2))}
    assert len(MOTIONS) >= 8 and {str(shot.path) for shot in ucf} == names
    assert {shot.size for shot in ucf} == {(320, 240)}
    mixkit = [shot for shot in shots if shot.path.suffix == ".mp4"]
    assert len(mixkit) >= 24
    ratios = {round(width / height, 3) for width, height in (shot.size for shot in mixkit)}
    assert ratios == {1.778, 0.562, 1.0}
    assert {(1920, 1080), (1080, 1920)} <= {shot.size for shot in mixkit}


def test_groups_share_no_photograph():
    photographs = [name for pool in GROUPS for name in pool]
    assert sorted(photographs) == sorted(SUBJECTS) and len(GROUPS) == 4
    for shot in plan_shots(Path("sample")):
        if shot.path.suffix == ".avi":
            group = int(shot.path.stem.split("_g")[1][:2])
            assert set(shot.photographs) <= set(GROUPS[group - 1])


def test_validation_pairs_known_subjects_and_motions_anew():
    train, val = train_shots(Path("mixkit")), validation_shots(Path("mixkit"))
    assert {name for shot in val for name in shot.photographs} <= {name for shot in train for name in shot.photographs}
    assert {shot.motion for shot in val} <= {shot.motion for shot in train}
    assert not {(shot.photographs, shot.motion) for shot in val} & {(shot.photographs, shot.motion) for shot in train}


def test_camera_stays_inside_every_photograph():
    """The corners of the (turned) view, computed here with complex numbers, lie within the photograph."""
    sizes = {name: photograph(name).size for name in SUBJECTS}
    for shot in plan_shots(Path("sample")):
        for seed, name, share in product(range(3), shot.photographs, np.linspace(0, 1, 9)):
            view = between(MOTIONS[shot.motion].draw(np.random.default_rng([seed, shot.key])), share)
            left, top, right, bottom, scale = frame_in_photograph(sizes[name], view, shot.size)
            half = complex(*shot.size) / 2 / scale
            turn = np.exp(-1j * np.radians(view.angle))  # y points down
            centre = complex(left + right, top + bottom) / 2
            for corner in (half, -half, half.conjugate(), -half.conjugate()):
                place = centre + corner * turn
                assert -1e-6 <= place.real <= sizes[name][0] + 1e-6 and -1e-6 <= place.imag <= sizes[name][1] + 1e-6


def test_whole_view_is_the_photograph_itself():
    image = photograph("coffee")
    assert np.array_equal(look(image, View(0.3, 0.9, 1), image.size), image)


def test_turned_view_agrees_with_pillow():
    """A camera turned counter-clockwise sees the picture turn clockwise."""
    image = photograph("camera")
    seen = np.asarray(look(image, View(0.5, 0.5, 2, 20), (256, 256)), float)
    turned = image.rotate(-20, Image.Resampling.BICUBIC).crop((128, 128, 384, 384))
    assert np.abs(seen - np.asarray(turned, float)).mean() < 3
    other_way = image.rotate(20, Image.Resampling.BICUBIC).crop((128, 128, 384, 384))
    assert np.abs(seen - np.asarray(other_way, float)).mean() > 20


def test_pan_to_the_right_moves_the_picture_left_and_nothing_else():
    film = render(ucf101("PanRight"), seed=0)
    assert film.shape == (FRAMES, 120, 160, 3) and film.dtype == np.uint8
    rows, columns = shift(film[18], film[22])
    assert rows == 0 and columns < -2
    rows, columns = shift(*render(ucf101("PanLeft"), seed=0)[[18, 22]])
    assert rows == 0 and columns > 2


def test_zooms_are_each_other_backwards():
    assert np.array_equal(render(ucf101("ZoomIn"), seed=3), render(ucf101("ZoomOut"), seed=3)[::-1])


def test_zooming_in_enlarges_the_middle():
    image, move = photograph("camera"), (View(0.5, 0.5, 1), View(0.5, 0.5, 2))
    first, last = (look(image, between(move, share), (256, 256)) for share in (0, 1))
    middle = first.crop((64, 64, 192, 192)).resize((256, 256), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(middle, float) - np.asarray(last, float)).mean() < 8
    start, end = (view.zoom for view in MOTIONS["ZoomIn"].draw(np.random.default_rng(0)))
    assert 1 <= start < end and not MOTIONS["ZoomIn"].backwards


def test_cut_is_in_the_middle():
    film = render(ucf101("CutBetween", ("camera", "coffee")), seed=0).astype(float)
    change = np.abs(np.diff(film, axis=0)).mean((1, 2, 3))
    assert change.argmax() == FRAMES // 2 - 1 and change.max() > 3 * np.sort(change)[-2]


def test_motion_blur_is_the_mean_of_what_passes():
    """Along a sweep a blurred frame has less contrast than a sharp one at the same place."""
    move = MOTIONS["MotionBlur"].draw(np.random.default_rng([0, 7]))
    image, number = photograph("gravel"), FRAMES // 2
    blurred = samples._film(image, move, FRAMES, (160, 120), 6)[number].astype(float)
    sharp = samples._film(image, move, FRAMES, (160, 120), 1)[number].astype(float)
    assert blurred.std() < 0.8 * sharp.std()
    assert abs(blurred.mean() - sharp.mean()) < 5


def test_files_are_deterministic_and_follow_the_seed(tmp_path, two_clips):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_sample_set(tmp_path / name, seed=seed, progress=False)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5
    for file in files:
        same, other = ((tmp_path / name / file).read_bytes() for name in ("b", "c"))
        assert (tmp_path / "a" / file).read_bytes() == same
        assert (other == same) == (file.suffix == ".csv")
    assert probe(tmp_path / "a" / "UCF-101/train/PanLeft/v_PanLeft_g01_c01.avi") == VideoInfo(40, 240, 320, 12.0)
    assert probe(tmp_path / "a" / "mixkit/coins-panright.mp4") == VideoInfo(40, 640, 360, 12.0)


def test_encoding_repeats_its_bytes(tmp_path):
    """On this clip x264's lookahead, left on, gives several different files."""
    shot = next(shot for shot in train_shots(tmp_path) if shot.path.name == "coins-panright.mp4")
    frames, written = render(shot, seed=0), set()
    for _ in range(8):
        write_video(shot.path, frames, samples.FPS)
        written.add(shot.path.read_bytes())
    assert len(written) == 1


def test_goes_on_where_it_stopped_and_refuses_another_seed(tmp_path, two_clips):
    make_sample_set(tmp_path, progress=False)
    kept, lost = tmp_path / "UCF-101/train/PanLeft/v_PanLeft_g01_c01.avi", tmp_path / "mixkit/coins-panright.mp4"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    make_sample_set(tmp_path, progress=False)
    assert kept.stat().st_mtime_ns == before and lost.exists()
    with pytest.raises(ValueError, match="another seed"):
        make_sample_set(tmp_path, seed=1, progress=False)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_captions_are_distinct_and_name_files_of_the_plan(tmp_path, two_clips):
    make_sample_set(tmp_path, progress=False)
    lists = {name: rows_of(tmp_path / f"video_caption_{name}.csv") for name in ("train", "val")}
    assert len(lists["train"]) >= 20 and len(lists["val"]) >= 4
    rows = lists["train"] + lists["val"]
    planned = {shot.path.name for shot in plan_shots(tmp_path) if shot.path.suffix == ".mp4"}
    assert {row["video"] for row in rows} == planned and len(rows) == len(planned)
    assert len({row["caption"] for row in rows}) == len(rows)
    assert {row["paraphrase"] for row in rows} == {""}
    caption = "The camera pans to the left across a tabby cat with green eyes looking past the viewer."
    assert rows[0]["caption"] == caption


# --- with shots of a film ---

SHOTS = (
    film.Shot("a meadow", "Walk", 2, 5, "train", "a rabbit in the grass", "a bunny, on a lawn"),
    film.Shot("a tree", "Walk", 9, 14, "val", "a squirrel on a branch", "a rodent on a bough"),
)


@pytest.fixture
def clips(tmp_path):
    """Files in the place of the shots' clips, each of content of its own."""
    folder = tmp_path / "clips"
    for shot, files in film.paths(folder, SHOTS).items():
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{shot.caption} as {path.suffix}")
    return folder


@pytest.fixture
def rendered(tmp_path):
    """A folder in which the photographs' clips are there, as empty files: rendering them takes most of a minute."""
    folder = tmp_path / "set"
    for shot in plan_shots(folder):
        shot.path.parent.mkdir(parents=True, exist_ok=True)
        shot.path.touch()
    return folder


def test_clips_of_the_film_are_copied_into_both_layouts(rendered, clips):
    make_sample_set(rendered, SHOTS, clips, progress=False)
    expected = {
        "mixkit/a-meadow-00002.mp4": "a rabbit in the grass as .mp4",
        "mixkit/a-tree-00009.mp4": "a squirrel on a branch as .mp4",
        "UCF-101/train/Walk/v_Walk_g01_c01.avi": "a rabbit in the grass as .avi",
        "UCF-101/test/Walk/v_Walk_g02_c01.avi": "a squirrel on a branch as .avi",
    }
    assert {name: (rendered / name).read_text() for name in expected} == expected
    videos = {path for path in rendered.rglob("*") if path.suffix in (".avi", ".mp4")}
    assert videos == {shot.path for shot in plan_shots(rendered)} | {rendered / name for name in expected}


def test_a_clip_of_the_film_that_is_there_stays(rendered, clips):
    make_sample_set(rendered, SHOTS, clips, progress=False)
    kept, lost = rendered / "mixkit/a-meadow-00002.mp4", rendered / "mixkit/a-tree-00009.mp4"
    kept.write_text("one's own")
    lost.unlink()
    make_sample_set(rendered, SHOTS, clips, progress=False)
    assert kept.read_text() == "one's own"
    assert lost.read_text() == "a squirrel on a branch as .mp4"


def test_lists_have_the_film_s_shots_first_with_their_paraphrases(rendered, clips):
    make_sample_set(rendered, SHOTS, clips, progress=False)
    first = {
        "train": ["a-meadow-00002.mp4", "a rabbit in the grass", "a bunny, on a lawn"],
        "val": ["a-tree-00009.mp4", "a squirrel on a branch", "a rodent on a bough"],
    }
    for name, shots in (("train", train_shots(rendered)), ("val", validation_shots(rendered))):
        of_film, *others = rows_of(rendered / f"video_caption_{name}.csv")
        assert of_film == dict(zip(("video", "caption", "paraphrase"), first[name], strict=True))
        assert [row["video"] for row in others] == [shot.path.name for shot in shots]
        assert {row["paraphrase"] for row in others} == {""}


def test_the_film_s_makers_are_named_only_where_it_is_shown(rendered, clips):
    make_sample_set(rendered, progress=False)
    notice = rendered / "SAMPLE.txt"
    text = notice.read_text()
    assert "scikit-image" in text and "Blender" not in text and "film" not in text
    with pytest.raises(ValueError, match="another"):  # it would mix two kinds
        make_sample_set(rendered, SHOTS, clips, progress=False)
    notice.unlink()
    make_sample_set(rendered, SHOTS, clips, progress=False)
    text = notice.read_text()
    assert "scikit-image" in text and "Big Buck Bunny" in text and "Blender Foundation" in text and "CC BY 3.0" in text


@pytest.mark.filterwarnings("error")  # no file is left out, no list is missing
@pytest.mark.parametrize("shots", [(), SHOTS])
def test_what_is_held_out_is_said_by_the_folders(rendered, clips, shots):
    make_sample_set(rendered, shots, clips, progress=False)
    layout = find_layout(rendered)
    train, test = ({clip.path for clip in layout[name]} for name in ("ucf101", "ucf101_test"))
    assert {path.name[-11:-8] for path in test if "Walk" not in path.name} == {"g04"}
    assert len(test) == 2 * len(MOTIONS) + len(shots) // 2 and len(train) == 3 * 2 * len(MOTIONS) + len(shots) // 2
    captions = [{clip.caption: clip.paraphrase for clip in layout[name]} for name in ("train", "val")]
    for shot in shots:
        assert captions[shot.split == "val"][shot.caption] == shot.paraphrase


def test_no_photograph_and_no_group_is_on_both_sides(rendered, clips):
    make_sample_set(rendered, SHOTS, clips, progress=False)
    layout = find_layout(rendered)
    photographs = {shot.path: shot.photographs for shot in plan_shots(rendered)}
    groups, shown = [], []
    for name in ("ucf101", "ucf101_test"):
        groups.append({(clip.label, clip.group) for clip in layout[name]})
        shown.append({photograph for clip in layout[name] for photograph in photographs.get(clip.path, ())})
    assert not groups[0] & groups[1]
    assert not shown[0] & shown[1]
    assert shown[0] | shown[1] == set(SUBJECTS)


def test_sets_with_and_without_the_film_lie_apart():
    tiny = config.load("tiny")
    folders = {sample_folder(params) for params in (tiny, config.load("tiny", {"assets": "none"}))}
    assert len(folders) == 2 and {folder.parent for folder in folders} == {config.outputs_folder(tiny)}
