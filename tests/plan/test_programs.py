"""What each program of a params file asks for, against the counts of its parts, and against the road itself."""

import dataclasses

import pytest

from moviegen import config, plan
from moviegen.config import Bucket
from moviegen.plan import duration, programs, sampling, text
from moviegen.plan.details import seen_buckets, stage_details
from moviegen.plan.text import TOWERS
from moviegen.runs.registry import ALL
from moviegen.text import encoders

CARD = plan.find_card(plan.PUBLISHED_CARD)
SPEED = plan.Speed(attention=0.5, overhead=0.1, hidden=0.0, low=0.9, high=1.2)
NOTHING_TO_COUNT = {"count", "calibration", "data", "shipped"}


def costs(params, clips=100):
    return {cost.work.program: cost for cost in programs.program_costs(params, CARD, SPEED, clips)}


@pytest.mark.parametrize("scale", ["tiny", "smoke", "1B", "5B", "30B"])
def test_every_program_of_the_road_that_computes_is_there_in_its_order(scale):
    params = config.load(scale)
    named = [work.program for work in programs.program_works(params, 100)]
    road = [program.name for program in ALL if program.name not in NOTHING_TO_COUNT]
    assert named == [name for name in road if name in named]
    missing = set(road) - set(named)
    assert missing <= {"tae-image", "text"}  # weights that are given; encoders that stand in compute nothing
    assert ("tae-image" in missing) == bool(params.tae.vae_checkpoint)
    assert ("text" in missing) == (scale == "smoke")


def test_given_weights_leave_nothing_of_the_autoencoder_to_train():
    params = config.load("1B", {"tae.tae_checkpoint": "tae.safetensors"})
    assert programs.trained_phases(params) == []
    assert programs.trained_phases(config.load("1B", {"tae.vae_checkpoint": ""})) == [
        "image", "opl-off", "opl-on", "mixkit",
    ]  # fmt: skip


def test_arithmetic_is_that_of_a_unit_of_each():
    params = config.load("5B")
    by_name = costs(params)
    tae, clip = params.tae.model, (256, 576, 1024)
    velocity = plan.dit_forward(params.dit_config(3), config.visual_tokens(*clip), params.text.lengths).total
    tiles = 6  # of 320x384, a frame; in time 8 are encoded, and 15 decoded, which overlap by half
    decoding = tiles * 15 * plan.tae_decode(tae, 4, 40, 48).total
    assert by_name["latents"].work.flops.total == tiles * 8 * plan.tae_encode(tae, 32, 320, 384).total
    assert by_name["sample"].work.flops.total == 2 * 50 * velocity + decoding
    assert by_name["retrieval"].work.flops.total == 2 * 50 * velocity
    assert by_name["stage3"].work.flops.total == plan.stage_cost(params, 3).flops
    assert by_name["tae-mixkit"].work.flops.total == plan.tae_training(tae, 32, 256, 256, recompute_every=1).total
    assert by_name["tae-evaluation"].work.flops.total == (
        plan.tae_encode(tae, 32, 256, 256).total + plan.tae_decode(tae, 4, 32, 32).total
    )
    seen = params.recipes[2].dataset.longest_clip
    small = plan.dit_forward(params.dit_config(2), config.visual_tokens(*seen), params.text.lengths).total
    gated = sum(2 * full + steps - full for steps, full in ((5, 3), (10, 5), (25, 13), (50, 25)))
    assert by_name["schedule-error"].work.flops.total == (2 * (1000 + 3 * (5 + 10 + 25 + 50)) + gated) * small


def test_memory_is_of_the_fullest_moment_of_each():
    by_name = costs(config.load("1B"))
    assert all(cost.work.memory.total == cost.verdict.memory.total for cost in by_name.values())
    whole, batch = by_name["sample"].work.memory, by_name["retrieval"].work.memory
    assert whole.moment == "in the decoder's last level" and whole.total > batch.total
    assert batch.moment == "in a block of the guided transformer"  # it decodes nothing


def test_seconds_are_told_of_the_transformer_alone():
    by_name = costs(config.load("5B"))
    told = {name for name, cost in by_name.items() if cost.seconds}
    assert told == {"stage1", "stage2", "stage3", "sample", "retrieval", "schedule-error"}
    retrieval = by_name["retrieval"]
    assert retrieval.total_seconds == pytest.approx(16 * retrieval.seconds)
    assert by_name["tae-evaluation"].total_seconds is None


def test_sampling_takes_its_arithmetic_at_the_speed_of_training_and_the_overhead_of_each_step():
    params = config.load("1B", {"sample.shards": 1})
    one = sampling.samplings(params)["sample"]
    velocity = 2 * plan.dit_forward(params.dit_config(3), config.visual_tokens(*one.clip), params.text.lengths)
    peak = CARD.flops("bfloat16")
    computed = (velocity.projections + velocity.feed_forward) / (328 / 376 * peak) + velocity.attention / (0.5 * peak)
    assert sampling.sampling_seconds(params, one, CARD, SPEED) == pytest.approx(50 * (computed + 0.1))


@pytest.mark.parametrize(
    ("values", "share"),
    [({"guidance": 1}, 0.5), ({"guidance": 0}, 0.5), ({"guidance_gate": 0.5}, 0.75), ({"guidance_gate": 0.01}, 0.51)],
)
def test_what_guidance_does_not_ask_for_is_not_counted(values, share):
    params = {name: config.load("1B", {f"sample.{key}": value for key, value in some.items()}) for name, some in
              {"all": {}, "some": values}.items()}  # fmt: skip
    found = {name: sampling.samplings(own)["sample"].calls for name, own in params.items()}
    asked = {name: sum(calls * velocities for calls, velocities in own) for name, own in found.items()}
    assert asked["some"] == share * asked["all"] == share * 100


def test_shards_divide_the_seconds_of_a_clip_and_cards_sample_as_many_as_there_are_groups():
    alone, shared = (config.load("5B", {"sample.shards": shards}) for shards in (1, 8))
    one, eighth = (costs(params)["retrieval"] for params in (alone, shared))
    assert one.seconds == pytest.approx(8 * eighth.seconds, rel=0.1)  # text is computed by each card, and tokens pass
    assert one.total_seconds == pytest.approx(2 * one.seconds)  # sixteen prompts on eight cards
    assert eighth.total_seconds == pytest.approx(16 * eighth.seconds)


def test_30b_samples_on_two_cards_and_on_no_fewer():
    fits = {}
    for cards in (1, 2, 8):
        launch = {"launch.worker_num": cards, "launch.local_worker_num": cards}
        shards = {f"stages.{stage}.train.sequence_parallel.shards": 1 for stage in (2, 3)}
        params = config.load("30B", launch | shards)
        clip = sampling.sampling_memory(
            params, dataclasses.replace(sampling.samplings(params)["sample"], decodes=False)
        )
        fits[cards] = clip.total <= 59 * 2**30
        assert set(clip.parts) >= {"weights", "live block"} and clip.moment == sampling.SAMPLING
    assert fits == {1: False, 2: True, 8: True}


def test_divided_weights_are_what_a_rank_that_samples_holds():
    """Of 30B's 29.3 billion weights 2 bytes each, over eight cards; and the matrices of two blocks whole."""
    params = config.load("30B")
    memory = sampling.sampling_memory(params, sampling.samplings(params)["retrieval"])
    matrices = plan.matrix_count(params.dit_config(3))
    assert memory.parts["weights"] == pytest.approx(2 * matrices / 8, rel=0.01)
    block = 8 * 6144**2 + 3 * 6144 * 16384
    assert memory.parts["gathered weights"] == 2 * (2 * block + 6144 * 16384)


def test_what_ranks_exchange_for_a_velocity_is_of_weights_tokens_and_the_velocity():
    params = config.load("30B")
    one = sampling.samplings(params)["retrieval"]
    rows = {row.purpose: row for row in sampling.sampling_traffic(params, one, 2)}
    tokens, width = config.visual_tokens(*one.clip), 6144
    time = width * (256 + width)
    assert rows["weights of products"].size == 2 * (plan.matrix_count(params.dit_config(3)) - time)
    assert rows["weights that embed the time"].size == 4 * time
    assert rows["attention to tokens"].size == 48 * 2 * 2 * tokens // 8 * width
    assert rows["queries, keys and values to heads"].size == 3 * rows["attention to tokens"].size
    assert rows["velocity of all tokens"].size == 2 * tokens * 64 * 4
    assert sampling.sampling_traffic(config.load("30B", {"launch.inference_worker_num": 1}), one, 2) == []


# ---- a stage's duration


def test_an_update_is_the_mean_of_images_and_videos_as_often_as_they_are_seen():
    params = config.load("5B", {"dataloader.image_ratio": 0.25})
    seconds = {
        clip: plan.update_seconds(plan.stage_work(params, 2, clip), CARD, SPEED)
        for clip in (Bucket(1, 256, 448), Bucket(256, 256, 448))
    }
    image, video = seconds.values()
    assert duration.stage_duration(params, 2, CARD, SPEED, 100).update == pytest.approx(0.25 * image + 0.75 * video)
    alone = duration.stage_duration(config.load("30B"), 2, CARD, SPEED, 100)  # videos only
    assert alone.update == plan.update_seconds(plan.stage_work(config.load("30B"), 2), CARD, SPEED)


def test_validation_is_spread_over_the_updates_between_two():
    params = config.load("5B", {"valid.frequency": 50, "valid.sampling_steps": 4})
    forward = plan.update_seconds(duration.forward_work(params, 3, Bucket(256, 576, 1024)), CARD, SPEED)
    whole = duration.validation_seconds(params, 3, CARD, SPEED, 100)
    assert whole == pytest.approx(-(-20 * 4 // 8) * forward)  # a fifth is held out; eight cards, a clip each
    assert duration.stage_duration(params, 3, CARD, SPEED, 100).validation == pytest.approx(whole / 50)


@pytest.mark.parametrize(("guidance", "samples"), [(1, 1), (0, 1), (7.5, 2)])
def test_what_a_validation_samples_takes_its_forward_passes(guidance, samples):
    """Two captions of each of two splits, in ten steps, with and without the caption where guidance needs both."""
    plain = config.load("5B")
    asked = config.load("5B", {"valid.samples": {"prompts": 2, "steps": 10, "guidance": guidance}})
    work = duration.forward_work(plain, 3, Bucket(256, 576, 1024), samples)
    before, after = (duration.validation_seconds(one, 3, CARD, SPEED, 100) for one in (plain, asked))
    assert after - before == pytest.approx(4 * 10 * plan.update_seconds(work, CARD, SPEED))
    assert work.products == pytest.approx(samples * duration.forward_work(plain, 3, Bucket(256, 576, 1024)).products)


def test_a_validation_is_of_no_more_clips_than_the_recipe_says():
    params = config.load("30B", {"stages.3.valid.max_clips": 3})
    assert duration.validated(params, 3, 10) == 2  # a fifth of them is held out
    assert duration.validated(params, 3, 100) == 3
    fewer, all_of_them = (config.load("5B", {"valid.max_clips": most}) for most in (4, 0))
    whole = duration.validation_seconds(all_of_them, 3, CARD, SPEED, 100)
    assert duration.validation_seconds(fewer, 3, CARD, SPEED, 100) == pytest.approx(whole / 5)


@pytest.mark.parametrize("stage", [2, 3])
def test_validation_is_a_small_share_of_a_30b_updates_seconds(stage):
    spread = duration.stage_duration(config.load("30B"), stage, CARD, SPEED, 100)
    assert spread.validation < 0.06 * spread.update


def test_a_forward_pass_is_about_a_third_of_an_update_without_recomputation():
    params = config.load("1B", {"stages.3.model.recompute_every_nth_block": 0})
    clip = Bucket(256, 576, 1024)
    work, forward = plan.stage_work(params, 3, clip), duration.forward_work(params, 3, clip)
    assert work.products / forward.products == pytest.approx(3, rel=0.01)
    assert work.attention / forward.attention == pytest.approx(3.5)  # scores are computed again


def test_shards_divide_a_forward_pass_and_exchange_for_it():
    params = config.load("30B")
    forward = duration.forward_work(params, 3, Bucket(256, 576, 1024))
    alone = plan.dit_forward(params.dit_config(3), config.visual_tokens(256, 576, 1024), params.text.lengths)
    assert forward.attention == alone.attention / 8
    matrices = plan.matrix_count(params.dit_config(3))
    assert forward.gathered == 4 * matrices  # ZeRO 3, float32
    assert forward.swapped > 0 and duration.forward_work(config.load("5B"), 3, Bucket(256, 576, 1024)).swapped == 0


def test_checkpoints_and_reading_are_counted_where_storage_is_described():
    params = config.load("5B")
    unknown = duration.stage_duration(params, 3, CARD, SPEED, 100)
    assert not unknown.is_storage_known and unknown.checkpoint == unknown.waiting == 0
    slow = dataclasses.replace(CARD, storage=1e6)
    known = duration.stage_duration(params, 3, slow, SPEED, 100)
    assert known.checkpoint == 0  # written while the card computes
    slower = duration.stage_duration(params, 3, dataclasses.replace(CARD, storage=1e5), SPEED, 100)
    written = plan.checkpoint_bytes(params, 3).total / 1e5 / 500
    assert slower.checkpoint == pytest.approx(written - known.update)  # the next one waits for it
    read = plan.training_reads(params, 3, 1.0).update / 1e6
    assert known.waiting == pytest.approx(max(0, read - known.update))
    assert known.each == pytest.approx(known.update + known.validation + known.waiting + known.checkpoint)
    assert known.total == pytest.approx(6000 * known.each)
    fast = duration.stage_duration(params, 3, dataclasses.replace(CARD, storage=1e12), SPEED, 100)
    assert fast.waiting == 0  # read while the card computes


# ---- details


def test_details_have_each_bucket_once_and_what_makes_up_their_totals():
    params = config.load("5B")
    details = stage_details(params, 2, CARD, SPEED, 100)
    buckets = [bucket["clip"] for bucket in details["buckets"]]
    assert len(buckets) == len(set(buckets)) == 4 * 11  # images and three lengths, in thirteen ratios of eleven sizes
    shared = [bucket for graph in details["graphs"] for bucket in graph["buckets"]]
    assert sorted(shared) == sorted(buckets)
    assert len(details["graphs"]) == 4 * 4  # of four areas
    assert buckets == list(map(str, seen_buckets(params, 2)))
    for bucket in details["buckets"]:
        assert sum(bucket["memory_bytes"]["parts"].values()) == bucket["memory_bytes"]["all"]
        kinds = {name: flops for name, flops in bucket["flops_an_update"].items() if name != "all"}
        assert sum(kinds.values()) == bucket["flops_an_update"]["all"]
        likely, low, high = bucket["seconds_an_update"]
        assert (low, high) == pytest.approx((0.9 * likely, 1.2 * likely))
    tokens = [bucket["tokens"] for bucket in details["buckets"]]
    assert tokens == sorted(tokens)
    assert details["updates"] == 8000


def test_stages_without_images_have_no_bucket_of_them():
    assert all(clip.frames > 1 for clip in seen_buckets(config.load("30B"), 2))


def test_the_recipes_updates_are_the_releases_micro_batches():
    """40,000 and 30,000 of those, at 1B and 5B five an update."""
    for scale in ("1B", "5B", "30B"):
        for stage, micro_steps in ((2, 40_000), (3, 30_000)):
            train = config.load(scale).recipes[stage].train
            assert train.steps * train.settings.gradient_accumulation_steps == micro_steps


# ---- text


@pytest.mark.parametrize(
    ("place", "millions"),
    [(("ul2", 384), 22.7), (("byt5", 1472), 217), (("metaclip", 1024), 352)],
)
def test_encoders_have_as_many_weights_as_their_cards_say(place, millions):
    """all-MiniLM-L6-v2's, and the encoders of ByT5-small (217 M of 300 M) and of CLIP ViT-H/14 (352 M of text)."""
    assert TOWERS[place].weights == pytest.approx(1e6 * millions, rel=0.03)


def test_ul2s_encoder_is_half_of_its_twenty_billion():
    assert 8e9 < TOWERS["ul2", 4096].weights < 10e9


def test_a_captions_arithmetic_is_twice_the_matrices_for_each_token_and_attention():
    tower = TOWERS["ul2", 384]
    matrices = tower.weights - tower.rows * tower.width
    attention = tower.layers * 2 * 2 * 40 * 40 * 384
    assert tower.flops(40).total == 2 * 40 * matrices + attention
    params = config.load("tiny")
    assert costs(params)["text"].work.flops.total == tower.flops(params.text.ul2.max_tokens).total


def test_an_unknown_encoder_is_left_out_of_the_plan():
    assert "text" not in costs(config.load("tiny", {"text.ul2.width": 768}))


def test_a_pass_of_an_encoder_is_of_as_many_captions_as_the_program_takes():
    assert text.BATCH == encoders.BATCH
    small, large = (text.encoding_memory(TOWERS["ul2", 4096], tokens) for tokens in (64, 512))
    assert small.parts["weights"] == large.parts["weights"] == 4 * TOWERS["ul2", 4096].weights
    scores, hidden = 4 * encoders.BATCH * 16 * 512**2, 4 * encoders.BATCH * 512 * 16_384
    assert large.largest[1] == max(scores, hidden)
    on_card = text.encoding_memory(TOWERS["ul2", 4096], 512, is_card=True)
    assert on_card.parts["weights"] == 2 * TOWERS["ul2", 4096].weights
