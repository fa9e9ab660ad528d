"""What training the transformer sees: every clip as often as any, ranks that agree, fixed validation."""

from collections import Counter

import numpy as np
import pytest

from moviegen import config
from moviegen.config import ConfigError
from moviegen.config.shapes import Bucket
from moviegen.device.world import World
from moviegen.train.batches import Batches, Samples, ValidationBatches, _hide
from tests import small_runs

WIDE, SQUARE, TALL = Bucket(1, 32, 64), Bucket(1, 48, 48), Bucket(1, 64, 32)
SHORT, LONG = Bucket(8, 32, 64), Bucket(16, 32, 64)
IMAGES, VIDEOS = {WIDE: 7, SQUARE: 1, TALL: 5}, {SHORT: 3, LONG: 6}
WIDTHS, LENGTHS = (6, 5, 4), (3, 2, 4)
EMPTY = tuple(np.full((1, length, width), -1, np.float32) for length, width in zip(LENGTHS, WIDTHS, strict=True))
EMPTY = (*EMPTY, np.zeros((1, sum(LENGTHS)), bool))
ALONE = World()


def samples(bucket, count):
    """Clip i of a bucket has the mean i, almost no deviation, and i in all its text."""
    shape = (count, 16, -(-bucket.frames // 8), bucket.height // 8, bucket.width // 8)
    values = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1, 1)
    texts = [
        np.broadcast_to(values.reshape(-1, 1, 1), (count, length, width)).copy()
        for length, width in zip(LENGTHS, WIDTHS, strict=True)
    ]
    keep = np.ones((count, sum(LENGTHS)), bool)
    mean, std = np.broadcast_to(values, shape).copy(), np.full(shape, 1e-3, np.float32)
    return Samples(mean, std, (*texts, keep))


def sets(counts):
    return {
        bucket: small_runs.latent_set(tuple(f"{bucket}/{i}" for i in range(count)), samples(bucket, count))
        for bucket, count in counts.items()
    }


def recipe(
    images=2,
    videos=1,
    image_ratio=0.5,
    accumulate=1,
    drop=0.2,
    hidden=0.0,
    times=4,
    sampling="logit-normal",
    shift=1.0,
    shards=1,
    steps=100,
):
    overrides = {
        "dataloader.batch_size.image_batch_size": images,
        "dataloader.batch_size.video_batch_size": videos,
        "dataloader.image_ratio": image_ratio,
        "dataset.text_drop_prob": drop,
        "dataset.token_drop_prob": hidden,
        "train.settings.gradient_accumulation_steps": accumulate,
        "train.time_sampling": sampling,
        "train.time_shift": shift,
        "train.sequence_parallel.shards": shards,
        "valid.sampling_steps": times,
        "train.steps": steps,
    }
    return config.load("smoke", overrides).recipes[2]


RECIPE = recipe()


def batches(world=ALONE, recipe=RECIPE, images=IMAGES, videos=VIDEOS, seed=1):
    return Batches(sets(images), sets(videos), EMPTY, recipe, seed, world)


def shape(batch):
    return batch.inputs[0].shape[1:]


# --- steps ---


def test_a_batch_follows_from_its_step_alone():
    first, again = batches(recipe=recipe(accumulate=3)), batches(recipe=recipe(accumulate=3))
    for step, micro in ((5, 2), (1, 0), (40, 1), (5, 2)):
        one, other = first(step, micro), again(step, micro)
        assert (one.media, one.names) == (other.media, other.names)
        for a, b in zip(one.inputs, other.inputs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (1, 3), (2, 1), (3, 2)])
def test_what_is_said_of_clips_before_training_is_what_batches_hold(world, accumulate):
    own = recipe(accumulate=accumulate, steps=40)
    ranks = [batches(World(rank, world), own) for rank in range(world)]
    numbers = [(step, micro) for step in range(1, 41) for micro in range(accumulate)]
    seen = Counter(name for rank in ranks for number in numbers for name in rank(*number).names)
    said = ranks[0].times_seen()
    assert len(said) == sum(IMAGES.values()) + sum(VIDEOS.values())
    assert {name: times for _, name, times in said if times} == seen
    assert all(name.startswith(f"{bucket}/") for bucket, name, _ in said)


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_agree_on_medium_and_tokens_and_share_the_clips(world):
    ranks = [batches(World(rank, world)) for rank in range(world)]
    differ = 0
    for step in range(1, 60):
        made = [rank(step, 0) for rank in ranks]
        assert len({batch.media for batch in made}) == len({batch.tokens for batch in made}) == 1
        buckets = [{name.split("/")[0] for name in batch.names} for batch in made]
        assert all(len(one) == 1 for one in buckets)
        differ += len(set.union(*buckets)) > 1
        assert len({batch.inputs[1].tobytes() for batch in made}) == world  # noise of their own
    assert differ > 5  # wide and tall ones in one step


def test_graphs_are_those_of_the_batches_that_come():
    made = batches(recipe=recipe(images=2, videos=1))
    graphs = made.graphs()
    assert graphs == {(1, 8): [SHORT], (1, 16): [LONG], (2, 8): [WIDE, TALL], (2, 9): [SQUARE]}
    drawn = [made(step, 0) for step in range(1, 120)]
    assert {(len(batch.names), batch.tokens // len(batch.names)) for batch in drawn} == set(graphs)


def test_images_come_in_their_ratio_among_videos():
    for ratio in (0.0, 0.25, 1.0):
        made = batches(recipe=recipe(image_ratio=ratio))
        share = np.mean([made(step, 0).media == "image" for step in range(1, 401)])
        assert share == pytest.approx(ratio, abs=0.08)  # 3.7 standard deviations


@pytest.mark.parametrize(("images", "videos", "media"), [(IMAGES, {}, "image"), ({}, VIDEOS, "video")])
def test_a_stage_of_one_medium_sees_no_other(images, videos, media):
    made = batches(images=images, videos=videos)
    assert {made(step, 0).media for step in range(1, 20)} == {media}


def test_a_batch_holds_the_latents_and_captions_of_its_clips():
    made = batches(recipe=recipe(drop=0.0))
    for step in range(1, 30):
        batch = made(step, 0)
        x_1, x_0, t, *texts, keep = batch.inputs
        clips = [int(name.split("/")[1]) for name in batch.names]
        np.testing.assert_allclose(x_1.mean((1, 2, 3, 4)), clips, atol=1e-3)
        assert x_0.shape == x_1.shape
        assert t.shape == (len(clips),)
        assert all((array[row] == clip).all() for array in texts for row, clip in enumerate(clips))
        assert keep.all()
        assert all(array.dtype == np.float32 for array in (x_1, x_0, t, *texts))
        frames, height, width = map(int, batch.names[0].split("/")[0].split("x"))
        assert x_1.shape == (len(clips), 16, -(-frames // 8), height // 8, width // 8)
        assert batch.tokens == len(clips) * -(-frames // 8) * (height // 16) * (width // 16)


def test_ranks_that_share_tokens_count_their_part():
    """Tokens a second are the batch's, not so many times the shards."""
    whole, parted = batches(), batches(recipe=recipe(shards=2))
    for step in range(1, 20):
        assert parted(step, 0).tokens == whole(step, 0).tokens // 2


def test_dropped_captions_become_the_empty_one():
    made = batches(recipe=recipe(drop=1.0))
    *_, ul2, metaclip, byt5, keep = made(1, 0).inputs
    assert all((array == -1).all() for array in (ul2, metaclip, byt5))
    assert not keep.any()


def test_captions_are_dropped_sample_by_sample_from_all_encoders_at_once():
    made = batches(recipe=recipe(drop=0.2, images=8), videos={})
    mixed, dropped = 0, []
    for step in range(1, 251):
        *texts, keep = made(step, 0).inputs[3:]
        empty = ~keep.any(1)
        for array in texts:
            np.testing.assert_array_equal((array == -1).all((1, 2)), empty)
            np.testing.assert_array_equal((array == -1).any((1, 2)), empty)
        assert keep[~empty].all()
        mixed += 0 < empty.sum() < len(empty)
        dropped.extend(empty)
    assert mixed / 250 == pytest.approx(1 - 0.8**8 - 0.2**8, abs=3.7 * (0.168 * 0.832 / 250) ** 0.5)
    assert np.mean(dropped) == pytest.approx(0.2, abs=3.7 * (0.2 * 0.8 / len(dropped)) ** 0.5)


def test_tokens_are_hidden_one_by_one_and_change_nothing_else():
    hiding, whole = (batches(recipe=recipe(drop=0.0, images=8, hidden=hidden), videos={}) for hidden in (0.3, 0.0))
    hidden = []
    for step in range(1, 251):
        *inputs, keep = hiding(step, 0).inputs
        *same, all_kept = whole(step, 0).inputs
        assert all_kept.all()
        assert keep.any(1).all()
        hidden.append(~keep)
        for one, other in zip(inputs, same, strict=True):
            np.testing.assert_array_equal(one, other)
    share = np.concatenate(hidden).mean(0)  # of each token, over 2,000 captions
    assert share == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 2000) ** 0.5)


def test_a_caption_whose_tokens_would_all_be_hidden_keeps_them():
    mask = np.array([[True, True, False], [True, False, True], [True, True, True]])
    hidden = np.array([[True, True, False], [True, True, False], [False, False, True]])
    left = _hide(mask, hidden)
    np.testing.assert_array_equal(left, [[True, True, False], [False, False, True], [True, True, False]])


@pytest.mark.parametrize("scale", ["smoke", "tiny", "1B", "5B", "30B"])
def test_every_recipe_drops_a_fifth_of_the_captions(scale):
    assert [one.dataset.text_drop_prob for one in config.load(scale).recipes.values()] == [0.2] * 3


@pytest.mark.parametrize(("sampling", "variance"), [("uniform", 1 / 12), ("logit-normal", 0.0434)])
def test_times_are_sampled_as_the_recipe_says(sampling, variance):
    """0.0434 is the variance of the sigmoid of a standard normal."""
    made = batches(recipe=recipe(sampling=sampling, images=8), videos={})
    times = np.concatenate([made(step, 0).inputs[2] for step in range(1, 251)])
    assert len(np.unique(times)) > 1990
    assert times.mean() == pytest.approx(0.5, abs=3.7 * (variance / len(times)) ** 0.5)
    assert times.var() == pytest.approx(variance, rel=0.1)


def test_times_are_shifted_as_the_recipe_says():
    as_drawn, moved = batches(recipe=recipe(images=8)), batches(recipe=recipe(images=8, shift=3.0))
    for step in range(1, 20):
        (*_, drawn), (*_, shifted) = as_drawn(step, 0).inputs[:3], moved(step, 0).inputs[:3]
        np.testing.assert_allclose(shifted / (1 - shifted), drawn / (1 - drawn) / 3, rtol=1e-5)


def test_no_clip_at_all_is_refused():
    with pytest.raises(ConfigError, match="no clip to make a batch of"):
        batches(images={}, videos={})


# --- validation ---


def test_no_held_out_clip_is_refused():
    with pytest.raises(ConfigError, match="nothing to validate on"):
        ValidationBatches({}, recipe(), 1, World(0, 1))


def drawn(world, counts=None, **changes):
    found = ValidationBatches(sets(counts or {SHORT: 3, LONG: 1}), recipe(**changes), 1, world)
    return [list(batch) for batch in found]


def pairs(batches):
    """(shape, clip, time) of every sample."""
    return [(x.shape, int(x.mean()), float(at)) for x_1, _, t, *_ in batches for x, at in zip(x_1, t, strict=True)]


def test_validation_holds_each_clip_at_each_time_once():
    found = Counter(pairs(drawn(ALONE)))
    assert set(found.values()) == {1}
    assert len(found) == (3 + 1) * 4
    assert {time for _, _, time in found} == {0.125, 0.375, 0.625, 0.875}


def test_validation_says_how_many_batches_it_has_and_their_graphs():
    for world in (1, 2, 5):
        for changes in ({}, {"videos": 3}):
            found = ValidationBatches(sets({SHORT: 3, LONG: 1}), recipe(**changes), 1, World(0, world))
            made = list(found)
            assert len(found) == len(made)
            shapes = {(len(x_1), np.prod(x_1.shape[2:]) // 4) for x_1, *_ in made}  # a token is 2 x 2 of a latent frame
            assert set(found.graphs()) == shapes


def test_validation_is_the_same_every_time():
    for one, other in zip(drawn(ALONE), drawn(ALONE), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("world", [2, 3, 8, 50])
def test_ranks_validate_equally_many_pairs_of_each_shape_and_miss_none(world):
    ranks = [pairs(drawn(World(rank, world))) for rank in range(world)]
    shapes = [Counter(shape for shape, _, _ in rank) for rank in ranks]
    assert all(counts == shapes[0] for counts in shapes)
    assert {pair for rank in ranks for pair in rank} == set(pairs(drawn(ALONE)))
    if world == 2:  # divides
        assert Counter(pair for rank in ranks for pair in rank) == Counter(pairs(drawn(ALONE)))


def test_validation_batches_of_a_shape_are_of_one_size_that_training_fits():
    for videos, wanted in ((1, {1}), (2, {2}), (3, {2, 3}), (64, {12, 4})):
        found = drawn(ALONE, videos=videos)
        assert {len(batch[0]) for batch in found} == wanted
        assert len({batch[0].shape for batch in found}) == 2
