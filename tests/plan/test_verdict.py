"""Whether a recipe fits: sentences of hand-made memories, and nearest recipes that are tried one by one here."""

import itertools
from dataclasses import replace
from types import MappingProxyType

import pytest

from moviegen import config, plan
from moviegen.plan import dit_memory, memory, tae_memory, verdict

GIB = 2**30
CARD = replace(plan.find_card("ascend-910b"), memory=1024 * GIB)  # as much as a recipe is told to take


def held(available, **parts):
    """A verdict on parts in GiB."""
    sizes = {name.replace("_", " "): round(size * GIB) for name, size in parts.items()}
    largest = ("some tensor", 1)
    return verdict.Verdict(memory.Memory(memory.LAST, MappingProxyType(sizes), largest), available * GIB)


def test_what_fits_says_what_is_left():
    one = held(59, weights=20, optimizer=10, live_block=17.8)
    assert one.fits
    assert str(one) == "fits, 11.2 GiB free"


def test_exactly_full_fits():
    assert held(59, weights=59).fits
    assert not held(59 - 1 / GIB, weights=59).fits


def test_what_does_not_says_by_how_much_at_its_largest_part_beyond_the_state():
    one = held(59, weights=30, optimizer=10, live_block=18.4, activations=13)
    assert not one.fits
    assert str(one) == "does not fit: 12.4 GiB over at the live block"


def test_where_the_state_alone_is_too_large_its_largest_part_is_named():
    assert str(held(32, weights=14, optimizer=27, live_block=30)) == "does not fit: 39.0 GiB over at the optimizer"


@pytest.mark.parametrize(("size", "words"), [(0.04, "0.04 GiB"), (0.1, "0.1 GiB"), (112.04, "112.0 GiB")])
def test_small_sizes_are_not_rounded_away(size, words):
    assert verdict.gib(size * GIB) == words


@pytest.mark.parametrize(("asked", "card", "left"), [("59GB", "ascend-910b", 59), ("100GB", "ascend-910b", 64)])
def test_mindspore_takes_what_it_is_told_and_no_more_than_there_is(asked, card, left):
    params = config.load("5B", {"launch.max_device_memory": asked})
    assert verdict.available(params, plan.find_card(card)) == left * GIB


def test_a_size_that_mindspore_cannot_read_is_refused():
    params = config.load("5B", {"launch.max_device_memory": "59"})
    with pytest.raises(config.ConfigError, match=r"launch.max_device_memory.*GB"):
        verdict.available(params, CARD)


@pytest.mark.parametrize("scale", ["1B", "5B", "30B", "tiny"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_it_is_on_the_clips_that_need_most(scale, stage):
    params = config.load(scale)
    _, fullest = dit_memory.fullest(params, stage)
    assert verdict.stage_verdict(params, stage, CARD)[1].memory.total == fullest.total


# --- the nearest that fits ---


def changed(overrides, **more):
    return config.load("5B", {**overrides, **more})


def need(params, stage=3):
    """Bytes of the fullest of all the stage's clips, one by one."""
    recipe = params.recipes[stage]
    clips = [clip for clip in recipe.dataset.buckets if clip.frames > 1 or recipe.sees_images]
    return max(dit_memory.training_memory(params, stage, clip).total for clip in clips)


def nearest(overrides, limit, stage=3):
    """What a verdict says where a card has `limit` bytes, rounded up to MindSpore's whole GB."""
    whole = -(-limit // GIB)
    return verdict.stage_verdict(changed(overrides, **{"launch.max_device_memory": f"{whole}GB"}), stage, CARD)[1]


# 5B's third stage with 4 shards, ZeRO 2 and all blocks recomputed: what one change alone makes of it
START = {
    "train.settings.zero_stage": 2,
    "stages.3.train.sequence_parallel.shards": 4,
    "stages.3.dataloader.batch_size.image_batch_size": 2,
    "stages.3.dataloader.batch_size.video_batch_size": 2,
    "stages.3.model.recompute_every_nth_block": 0,
}
ALONE = {
    "shards 4 -> 8": {"stages.3.train.sequence_parallel.shards": 8},
    "ZeRO 3": {"train.settings.zero_stage": 3},
    "recompute on without attention": {
        "stages.3.model.recompute_every_nth_block": 1,
        "stages.3.model.not_recompute_fa": True,
    },
    "recompute on": {"stages.3.model.recompute_every_nth_block": 1},
    "micro-batch 2 -> 1": {
        "stages.3.dataloader.batch_size.image_batch_size": 1,
        "stages.3.dataloader.batch_size.video_batch_size": 1,
        "stages.3.train.settings.gradient_accumulation_steps": 10,
    },
}


def test_every_single_change_that_is_enough_is_named_and_no_other():
    assert changed(START).recipes[3].train.settings.gradient_accumulation_steps == 5
    needs = {words: need(changed(START, **change)) for words, change in ALONE.items()}
    for limit in (-(-size // GIB) * GIB for size in needs.values()):
        if limit >= need(changed(START)):
            continue
        enough = [words for words, size in needs.items() if size <= limit]
        if "recompute on" in enough and "recompute on without attention" in enough:
            enough.remove("recompute on")  # the lesser change of the two suffices
        assert nearest(START, limit).nearest == f"nearest that fits: {', or '.join(enough)}"


def test_two_changes_are_named_only_where_none_alone_is_enough():
    singles = {words: need(changed(START, **change)) for words, change in ALONE.items()}
    pairs = {
        f"{one} and {other}": need(changed(START, **ALONE[one], **ALONE[other]))
        for one, other in itertools.combinations(ALONE, 2)
        if not (one.startswith("recompute") and other.startswith("recompute"))
    }
    limit = -(-min(pairs.values()) // GIB) * GIB
    assert limit < min(singles.values())
    said = nearest(START, limit).nearest.removeprefix("nearest that fits: ")
    assert said in {words for words, size in pairs.items() if size <= limit}


ONE_CLIP = {"stages.3.dataset.aspect_ratios": [], "stages.3.dataset.frames": [256]}


def least(params, cards):
    """Of all ways to compute stage 3, one video of eight shards an update, bytes of the smallest on so many cards."""
    content, needs = params.model_dump(), []
    shard_counts = [shards for shards in range(1, cards + 1) if 48 % shards == 0 and cards % shards == 0]
    for zero_stage, shards, recompute in itertools.product(range(4), shard_counts, ((0, False), (1, True), (1, False))):
        videos = max(1, shards // 8)
        for batch in {1, videos}:
            settings = {"zero_stage": zero_stage, "gradient_accumulation_steps": videos // batch}
            stage = {
                "train": {"settings": settings, "sequence_parallel": {"shards": shards}},
                "model": dict(zip(("recompute_every_nth_block", "not_recompute_fa"), recompute, strict=True)),
                "dataloader": {"batch_size": {"video_batch_size": batch}},
            }
            changes = {"launch": {"worker_num": cards, "master_port": 1}, "stages": {3: stage}}
            needs.append(need(config.Params.model_validate(config.merge(content, changes))))
    return min(needs)


def test_where_no_change_is_enough_a_number_of_cards_is_named():
    params = config.load("30B", ONE_CLIP)
    needs = {cards: least(params, cards) for cards in (8, 16)}
    limit = -(-needs[16] // GIB)
    assert limit * GIB < needs[8]
    params = config.load("30B", {**ONE_CLIP, "launch.max_device_memory": f"{limit}GB"})
    _, said = verdict.stage_verdict(params, 3, CARD)
    assert said.nearest.startswith("nothing fits on 8 cards; nearest that does: 16 with ZeRO ")


def test_where_no_number_of_cards_is_enough_it_says_so():
    """What every card holds whatever its job: 30B's tables and norms alone are more."""
    params = config.load("30B", {**ONE_CLIP, "launch.max_device_memory": "1GB"})
    _, said = verdict.stage_verdict(params, 3, CARD)
    assert said.nearest == "nothing fits on 8 cards, nor on up to 4,096"


def test_a_verdict_on_the_autoencoder_names_recomputation():
    params = config.load("5B", {"launch.max_device_memory": "20GB", "tae.video.recompute_every_nth_block": 0})
    said = verdict.tae_verdict(params, "opl-off", CARD)
    assert not said.fits
    assert "nearest that fits: recompute every block, or " in said.nearest
    assert verdict.tae_verdict(config.load("5B", {"launch.max_device_memory": "20GB"}), "opl-off", CARD).fits


def test_a_verdict_on_the_autoencoder_names_fewer_frames_or_clips():
    params = config.load("5B", {"launch.max_device_memory": "20GB", "tae.video.batch_size": 2})
    said = verdict.tae_verdict(params, "opl-off", CARD)
    assert not said.fits

    def fits(**change):
        video = params.tae.video.model_copy(update=change)
        other = params.model_copy(update={"tae": params.tae.model_copy(update={"video": video})})
        return tae_memory.tae_training_memory(other, "opl-off").total <= 20 * GIB

    frames = [frames for frames in (24, 16, 8) if fits(frames=frames)]
    both = [frames for frames in (24, 16, 8) if fits(frames=frames, batch_size=1)]
    if fits(batch_size=1) or frames:
        words = ["batch_size 2 -> 1"] * fits(batch_size=1) + [f"frames 32 -> {frames[0]}"] * bool(frames)
        assert said.nearest == f"nearest that fits: {', or '.join(words)}"
    elif both:
        assert said.nearest == f"nearest that fits: batch_size 2 -> 1 and frames 32 -> {both[0]}"
    else:
        assert said.nearest == "nothing near it fits"


def test_sampling_at_a_small_size_fits_and_at_a_large_one_does_not():
    small = config.load("5B", {"sample.size": [96, 160], "sample.frames": 8})
    assert verdict.sampling_verdict(small, CARD).fits
    large = config.load("5B", {"sample.batch_size": 64})
    assert str(verdict.sampling_verdict(large, CARD)).startswith("does not fit: ")
