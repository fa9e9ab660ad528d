"""Shapes of batches: their sizes, and which one a clip belongs to."""

import math
import re

import numpy as np
import pytest

from moviegen import config
from moviegen.config import ConfigError
from moviegen.config.shapes import (
    AREA_TOLERANCE,
    ASPECT_RATIOS,
    RATIO_TOLERANCE,
    Bucket,
    bucket_sizes,
    by_graph,
    make_buckets,
    nearest_bucket,
)

BASES = {"256px": (256, 448), "768px": (576, 1024), "square 256px": (256, 256), "tiny": (48, 80)}
ALL = make_buckets((256, 448), (1, 64, 256), ASPECT_RATIOS, 16)
LANDSCAPE = [ratio for ratio in ASPECT_RATIOS if int(ratio.split(":")[0]) >= int(ratio.split(":")[1])]


def mirrored(ratio):
    return ":".join(reversed(ratio.split(":")))


def value(ratio):
    width, height = map(int, ratio.split(":"))
    return width / height


def test_thirteen_ratios_from_tall_to_wide_each_with_its_mirror_image():
    assert len(ASPECT_RATIOS) == 13
    assert sorted(ASPECT_RATIOS, key=value) == list(ASPECT_RATIOS)
    assert [mirrored(ratio) for ratio in reversed(ASPECT_RATIOS)] == list(ASPECT_RATIOS)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_sizes_are_multiples_of_sixteen_and_mirrored(base):
    sizes = bucket_sizes(base, ASPECT_RATIOS, 16)
    for ratio, (height, width) in sizes.items():
        assert height % 16 == width % 16 == 0
        assert sizes[mirrored(ratio)] == (width, height)
        assert (width > height) == (value(ratio) > 1) or width == height


@pytest.mark.parametrize("name", ["256px", "768px"])
def test_published_resolutions_keep_area_and_ratio_within_the_tolerances(name):
    base = BASES[name]
    for ratio, (height, width) in bucket_sizes(base, ASPECT_RATIOS, 16).items():
        assert abs(math.log(height * width / math.prod(base))) <= math.log(1 + AREA_TOLERANCE)
        assert abs(math.log(width / height / value(ratio))) <= math.log(1 + RATIO_TOLERANCE)
    assert bucket_sizes(base, ASPECT_RATIOS, 16)["16:9"] == base


@pytest.mark.parametrize(("base", "counts"), [("256px", 4), ("768px", 3)])
def test_thirteen_ratios_have_few_token_counts(base, counts):
    """By rounding each for itself they had five at 256px, six at 768px."""
    sizes = bucket_sizes(BASES[base], ASPECT_RATIOS, 16).values()
    assert len({height * width for height, width in sizes}) == counts
    assert len(set(sizes)) >= 11


def test_two_ratios_and_their_mirror_images_take_the_sizes_own_area_where_they_can():
    assert bucket_sizes((576, 1024), ("1:1", "16:9"), 16) == {"1:1": (768, 768), "16:9": (576, 1024)}


def test_where_no_size_is_within_the_tolerances_it_is_the_nearest_to_the_area():
    """3 x 5 patches: of 21:9 the short side is 2.5 of them, and 3 x 5 is a ratio of 1.67."""
    assert bucket_sizes((48, 80), ("21:9",), 16) == {"21:9": (48, 80)}


def test_every_length_has_every_size_once():
    sizes = set(bucket_sizes((256, 448), ASPECT_RATIOS, 16).values())
    assert len(ALL) == len(set(ALL)) == 3 * len(sizes)
    assert set(ALL) == {(length, *size) for length in (1, 64, 256) for size in sizes}


@pytest.mark.parametrize(("scale", "counts"), [("1B", (1, 16, 12)), ("5B", (1, 16, 12)), ("30B", (1, 16, 12))])
def test_published_stages_have_few_graphs(scale, counts):
    for recipe, count in zip(config.load(scale).recipes.values(), counts, strict=True):
        graphs = by_graph({bucket: 1 for bucket in recipe.dataset.buckets})
        assert len(graphs) == count
        assert sorted(bucket for buckets in graphs.values() for bucket in buckets) == sorted(recipe.dataset.buckets)


def test_without_ratios_there_is_the_size_alone():
    assert make_buckets((48, 80), (16, 1), (), 16) == [(1, 48, 80), (16, 48, 80)]


def test_sizes_that_round_to_the_same_are_one_bucket():
    assert make_buckets((48, 80), (1,), ("16:9", "16:10"), 16) == [(1, 48, 80)]


def random_clips(count):
    rng = np.random.default_rng(3)
    return rng.integers([1, 100, 100], [400, 1920, 1920], (count, 3)).tolist()


def test_every_clip_is_in_the_longest_length_it_fills_and_there_in_the_nearest_ratio():
    for frames, height, width in random_clips(500):
        found = nearest_bucket(frames, height, width, ALL)
        assert found.frames == (1 if frames < 64 else 64 if frames < 256 else 256)
        factors = {}  # by how much one side of the clip has to be stretched against the other
        for bucket in ALL:
            factor = (bucket.width * height) / (bucket.height * width)
            factors[bucket[1:]] = max(factor, 1 / factor)
        assert factors[found[1:]] == pytest.approx(min(factors.values()), rel=1e-12)


def test_portrait_and_landscape_are_treated_alike():
    for frames, height, width in random_clips(500):
        found, turned = nearest_bucket(frames, height, width, ALL), nearest_bucket(frames, width, height, ALL)
        assert (turned.height, turned.width) == (found.width, found.height)


def test_the_ratio_and_not_the_difference_of_ratios_decides():
    # 0.72 is nearer to 1 on a scale of widths (by difference 0.28 to 0.22 from 0.5), and by ratio too: 1.39 to 1.44
    wide, square, tall = Bucket(1, 512, 1024), Bucket(1, 512, 512), Bucket(1, 1024, 512)
    assert nearest_bucket(1, 1000, 720, [wide, square, tall]) == square
    # 1.44: by difference 0.44 from 1 and 0.56 from 2; by ratio 1.44 and 1.39
    assert nearest_bucket(1, 1000, 1440, [wide, square, tall]) == wide


@pytest.mark.parametrize(("height", "width"), [(100, 200), (200, 100)])
def test_of_two_as_near_the_squarer_is_taken(height, width):
    square, wide, tall = Bucket(1, 64, 64), Bucket(1, 32, 128), Bucket(1, 128, 32)
    for buckets in ([square, wide, tall], [tall, wide, square]):
        assert nearest_bucket(1, height, width, buckets) == square


def test_a_length_is_filled_to_the_frame():
    assert [nearest_bucket(frames, 9, 16, ALL).frames for frames in (1, 63, 64, 65, 255, 256, 10_000)] == [
        1, 1, 64, 64, 64, 256, 256,
    ]  # fmt: skip


def test_a_clip_shorter_than_every_bucket_is_an_error_that_says_so():
    videos = [bucket for bucket in ALL if bucket.frames > 1]
    with pytest.raises(
        ValueError, match=re.escape("a clip of 63 frames has no bucket: there are those of 64, 256 frames")
    ):
        nearest_bucket(63, 480, 640, videos)
    with pytest.raises(ValueError, match="has no bucket"):
        nearest_bucket(63, 480, 640, [])


# --- as parameters ---


def dataset(**values):
    overrides = {f"stages.2.dataset.{name}": value for name, value in values.items()}
    return config.load("smoke", overrides).recipes[2].dataset


def test_frames_may_be_one_length_or_several():
    assert (dataset(frames=16).frames, dataset(frames=16).longest) == ((16,), 16)
    assert (dataset(frames=[32, 8, 32]).frames, dataset(frames=[32, 8, 32]).longest) == ((8, 32), 32)


def test_a_stage_has_images_and_each_length_in_each_ratio():
    assert dataset().buckets == [(1, 48, 80), (16, 48, 80)]
    many = dataset(frames=[8, 16], aspect_ratios=["16:9", "9:16"])
    assert many.buckets == [(frames, *size) for frames in (1, 8, 16) for size in ((48, 80), (80, 48))]
    assert many.image_buckets == [(1, 48, 80), (1, 80, 48)]
    assert dataset(aspect_ratios="all") == dataset(aspect_ratios=list(ASPECT_RATIOS))


@pytest.mark.parametrize("frames", [[1, 16], [0], 0, -4, []])
def test_lengths_that_are_no_videos_are_refused(frames):
    with pytest.raises(ConfigError, match=r"dataset.frames: .* give the lengths of videos, each more than 1"):
        dataset(frames=frames)


@pytest.mark.parametrize("ratios", [["17:9"], "17:9", 969, [969], ["16:9", "16x9"]])
def test_unknown_ratios_are_refused_with_those_there_are(ratios):
    with pytest.raises(ConfigError, match=r"dataset.aspect_ratios: .* is not one of 9:21, .*; quote them"):
        dataset(aspect_ratios=ratios)


def test_every_bucket_must_fit_the_position_tables():
    # 48x80 and its mirror image need 5 rows and 5 columns of patches, 21:9 of 144x240 needs 17 columns
    overrides = {"stages.2.model.max_size": [4, 4, 12], "stages.2.dataset.aspect_ratios": ["16:9"]}
    config.load("smoke", overrides)
    with pytest.raises(ConfigError, match=r"stage 2.*\n.*a 1x80x48 video needs position tables of \(1, 5, 3\) patches"):
        config.load("smoke", overrides | {"stages.2.dataset.aspect_ratios": ["16:9", "9:16"]})
    with pytest.raises(ConfigError, match=r"a 40x48x80 video needs position tables of \(5, 3, 5\) patches"):
        config.load("smoke", {"stages.2.dataset.frames": [16, 40]})


def test_a_stage_needs_a_batch_size_of_each_medium_it_sees():
    with pytest.raises(ConfigError, match="a stage that sees images needs"):
        config.load("smoke", {"stages.2.dataloader.batch_size.image_batch_size": 0})
    none = {"stages.2.dataloader.batch_size.image_batch_size": 0, "stages.2.dataloader.image_ratio": 0.0}
    assert not config.load("smoke", none).recipes[2].sees_images


@pytest.mark.parametrize("scale", ["1B", "5B", "30B"])
def test_the_published_scales_have_all_ratios_and_lengths_of_whole_latent_frames(scale):
    for stage in (2, 3):
        seen = config.load(scale).recipes[stage].dataset
        assert len(seen.image_buckets) == 11  # 4:3 and 5:4 are one, and their mirror images
        assert seen.longest == 256
        assert len(seen.frames) > 1
        assert all(frames % 8 == 0 for frames in seen.frames)
        assert all(
            math.prod(bucket[1:]) == pytest.approx(math.prod(seen.size), rel=AREA_TOLERANCE) for bucket in seen.buckets
        )
