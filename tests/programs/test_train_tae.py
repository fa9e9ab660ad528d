"""The runs of the TAE section: where each starts, what it is trained on, and weights that are given."""

import json
import math
import re
import shutil
from argparse import Namespace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from pydantic import ValidationError

from moviegen import config, runs
from moviegen.config import ConfigError, TAEConfig, TAELoss, TAEStage
from moviegen.config.recipe import Settings
from moviegen.data.clips import Clip, save_index
from moviegen.data.crops import RandomCrops, centre_views
from moviegen.data.pixels import resize_and_crop, to_uint8
from moviegen.data.quarantine import Quarantine
from moviegen.data.videos import write_video
from moviegen.device.compiler import NoBfloat16Error
from moviegen.device.world import World
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.programs import evaluate_tae
from moviegen.programs import train_tae as program
from moviegen.runs.arrays import CheckpointError, save_arrays
from moviegen.runs.weights import load_arrays, to_arrays
from moviegen.tae.model import TAE
from moviegen.tae.weights import export_diffusers, load_tae, load_weights, save_tae, stored_config
from moviegen.train.loop import DivergedError

ALONE = World()
VARYING = ("seconds", "data_wait", "tokens_per_second", "memory_bytes")  # of a line of metrics, from run to run
TOLD = ("state", "train", "validation")  # lines that follow from the run: others say that work goes on
FACTORS = ("shift_factor", "scaling_factor")
SMALL = {
    "tae.model": {"base_channels": 4, "channel_multipliers": [1, 1, 1, 2], "num_res_blocks": 1, "num_groups": 2},
    "tae.evaluation.size": [16, 16],
}  # fmt: skip


def stage(**changes):
    values = {"steps": 2, "batch_size": 2, "size": [16, 16], "frames": 9, "validation_interval": 2}
    return values | {"lr_scheduler": {"lr": 1e-3, "warmup_steps": 1}, "image_ratio": 0.0} | changes


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Small stages, and a finished data run of four clips in every split."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    overrides = SMALL | {"tae.image": stage(frames=1), "tae.video": stage(ema={"decay": 0.9}), "tae.mixkit": stage()}
    params = config.load("smoke", overrides)
    root = tmp_path / "smoke" / "data"
    clips = []
    for index in range(4):
        path = root / f"{index}.mp4"
        write_video(path, np.random.default_rng(index).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), 12)
        clips.append(Clip(path, caption="noise", label="Noise", group=index, frames=12, height=16, width=16))
    with runs.record(runs.find(params, "data")) as data:
        for split in ("ucf101_train", "ucf101_test", "mixkit_train", "mixkit_val"):
            save_index(data.folder / f"{split}.csv", clips, root)
    return params


def given(params, **changes):
    """The same parameters with others in `tae`; the data run does not depend on them."""
    return params.model_copy(update={"tae": params.tae.model_copy(update=changes)})


def arrays_of(tae):
    return to_arrays(dict(tae.parameters_and_names()))


def finished(params, name, tae):
    with runs.record(runs.find(params, name)) as run:
        save_tae(run.folder / "tae.safetensors", tae)
    return run


def test_phases_follow_the_original_report():
    image, off, on, mixkit = (program.PHASES[name] for name in ("image", "opl-off", "opl-on", "mixkit"))
    assert (image.start, off.start, on.start, mixkit.start) == (None, "tae-image", "tae-image", "tae-opl-off")
    assert [phase.has_outlier_penalty for phase in (image, off, on, mixkit)] == [False, False, True, False]
    assert (off.stage, off.data_set) == (on.stage, on.data_set) == ("video", "ucf101")
    assert (mixkit.stage, mixkit.data_set) == ("mixkit", "mixkit")


# --- batches ---


@pytest.fixture
def clips(tmp_path):
    """Six clips, each of one grey of its own."""
    made = []
    for index in range(6):
        path = tmp_path / f"grey-{index}.mp4"
        write_video(path, np.full((12, 16, 24, 3), 40 * index, np.uint8), 12)
        made.append(Clip(path, frames=12, height=16, width=24))
    return made


def batches(clips, tmp_path, world=ALONE, seed=1, **changes):
    values = TAEStage.model_validate(stage(**{"image_ratio": 0.5} | changes))
    quarantine = Quarantine(tmp_path / "quarantine.csv")
    return program.Batches(RandomCrops(clips, values, seed, world.rank, world.size, quarantine), TAEConfig())


def test_a_batch_follows_from_its_step_alone(clips, tmp_path):
    first, again = batches(clips, tmp_path), batches(clips, tmp_path)
    for step in (5, 1, 5):
        one, other = first(step, 0), again(step, 0)
        assert (one.media, one.names) == (other.media, other.names)
        for a, b in zip(one.inputs, other.inputs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first(1, 0).inputs[1][:, :, :1], first(1, 1).inputs[1][:, :, :1])


def test_images_and_videos_come_in_their_ratio_with_noise_of_the_latents_shape(clips, tmp_path):
    made = [batches(clips, tmp_path, image_ratio=0.2)(step, 0) for step in range(1, 201)]
    share = np.mean([batch.media == "image" for batch in made])
    assert share == pytest.approx(0.2, abs=0.1)  # 3.5 standard deviations
    for batch in made[:20]:
        frames, length = (1, 1) if batch.media == "image" else (9, 2)
        assert [array.shape for array in batch.inputs] == [(2, 3, frames, 16, 16), (2, 16, length, 2, 2)]
        assert all(array.dtype == np.float32 for array in batch.inputs)


def test_a_stage_of_single_frames_sees_images_only(clips, tmp_path):
    assert {batches(clips, tmp_path, frames=1, image_ratio=0.0)(step, 0).media for step in range(1, 9)} == {"image"}


def test_an_image_autoencoders_noise_has_a_frame_for_each_of_the_videos():
    config = TAEConfig(is_temporal=False)
    assert program.latent_shape((2, 3, 9, 16, 24), config) == (2, 16, 9, 2, 3)
    assert program.latent_shape((2, 3, 9, 16, 24), TAEConfig()) == (2, 16, 2, 2, 3)


def test_ranks_see_the_same_medium_and_other_clips(clips, tmp_path):
    for step in range(1, 9):
        ranks = [batches(clips, tmp_path, World(rank, 3), batch_size=2)(step, 0) for rank in range(3)]
        assert len({batch.media for batch in ranks}) == 1
        assert sorted(name for batch in ranks for name in batch.names) == [f"grey-{i}.mp4" for i in range(6)]


def test_micro_batches_of_a_step_see_other_clips(clips, tmp_path):
    made = batches(clips, tmp_path, image_ratio=0.0, settings={"gradient_accumulation_steps": 3})
    names = [name for micro in range(3) for name in made(1, micro).names]
    assert sorted(names) == [f"grey-{i}.mp4" for i in range(6)]
    assert made(2, 0).names != made(1, 0).names


def test_weights_are_not_divided():
    with pytest.raises(ValidationError, match=r"settings\.zero_stage 3 divides matrices.*use 2"):
        TAEStage.model_validate(stage(settings={"zero_stage": 3}))


def test_bfloat16_is_refused_on_a_cpu(params):
    video = params.tae.video.model_copy(update={"settings": Settings(dtype="bfloat16")})
    with pytest.raises(NoBfloat16Error, match=r"tae\.video\.settings\.dtype bfloat16 takes Ascend"):
        program.main(given(params, video=video), Namespace(phase=["opl-off"]))


def test_every_rank_draws_from_a_stream_of_its_own(clips, tmp_path, monkeypatch):
    drawn, real = set(), np.random.default_rng

    def noted(seeds):
        if len(seeds) > 2:  # of a step and micro-batch
            drawn.add(tuple(np.random.SeedSequence(seeds).generate_state(4)))
        return real(seeds)

    monkeypatch.setattr("numpy.random.default_rng", noted)
    for rank in range(3):
        batches(clips, tmp_path, World(rank, 3))(1, 0)
    assert len(drawn) == 1 + 3  # the one that all share, and each rank's


def test_a_clip_that_proves_damaged_is_replaced_and_named_as_its_stand_in(clips, tmp_path):
    clips[0].path.write_bytes(clips[0].path.read_bytes()[:200])
    with pytest.warns(UserWarning, match="set aside"):
        names = [name for step in (1, 2, 3) for name in batches(clips, tmp_path)(step, 0).names]
    assert sorted(names) == [f"grey-{i}.mp4" for i in (1, 1, 2, 3, 4, 5)]


def test_fewer_clips_than_workers_are_refused(clips):
    program.check_enough(clips, World(0, 6), "training")
    with pytest.raises(ConfigError, match="6 training clips for 8 workers"):
        program.check_enough(clips, World(0, 8), "training")


# --- training ---


def test_a_phase_that_takes_over_the_graphs_of_another_leaves_what_it_leaves_alone(params, capsys):
    """To the last bit, after the run with the penalty; which logs every term, and names what it left out."""
    finished(params, "tae-image", TAE(params.tae.model.model_copy(update={"is_temporal": False})))
    run, off = (runs.find(params, f"tae-{phase}") for phase in ("opl-on", "opl-off"))
    left = []
    for phases in (["opl-on", "opl-off"], ["opl-off"]):
        shutil.rmtree(off.folder, ignore_errors=True)
        program.main(params, Namespace(phase=phases))
        told = [line for line in off.metrics() if line["kind"] in TOLD]
        lines = [{**line, **dict.fromkeys(VARYING)} for line in told]
        compiled = [line for line in off.metrics() if line["kind"] == "compile"]
        assert len(compiled) == 2 - len(phases)  # the other phase had compiled what this one needs
        left.append(((off.folder / "tae.safetensors").read_bytes(), lines))
    assert left[0] == left[1]
    assert {line.get("outlier") for line in off.metrics()} == {None}
    assert json.loads((off.folder / "summary.json").read_text())["terms"] == ["reconstruction", "kl"]
    assert "perceptual loss is left out" in capsys.readouterr().err
    lines = [line for line in run.metrics() if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        weighed = line["reconstruction"] + 1e-6 * line["kl"] + line["outlier"]
        assert line["loss"] == pytest.approx(weighed, rel=1e-5)
        assert "perceptual" not in line
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary == {"terms": ["reconstruction", "kl", "outlier"], "set_aside": 0}
    assert load_tae(run.folder / "tae.safetensors").config.is_temporal


def test_fine_tuning_starts_from_the_run_without_the_penalty(params):
    tae = TAE(params.tae.model)
    for parameter in tae.get_parameters():
        parameter.set_data(parameter + 0.25)
    finished(params, "tae-opl-off", tae)
    start = program.starting_point(runs.find(params, "tae-mixkit"), program.PHASES["mixkit"])
    for name, array in arrays_of(start).items():
        np.testing.assert_array_equal(array, arrays_of(tae)[name])


def test_fine_tuning_may_start_from_a_file_and_the_other_phases_never_do(params, tmp_path):
    tae = TAE(params.tae.model)
    for parameter in tae.get_parameters():
        parameter.set_data(parameter - 0.5)
    save_tae(tmp_path / "trained.safetensors", tae)
    params = given(params, start_checkpoint=str(tmp_path / "trained.safetensors"))
    start = program.starting_point(runs.find(params, "tae-mixkit"), program.PHASES["mixkit"])
    for name, array in arrays_of(start).items():
        np.testing.assert_array_equal(array, arrays_of(tae)[name])
    assert runs.find(params, "tae-mixkit").program.needs(params) == ("data",)
    assert (
        runs.find(params, "tae-opl-off").fingerprint
        == runs.find(given(params, start_checkpoint=""), "tae-opl-off").fingerprint
    )


@pytest.mark.usefixtures("eager")
def test_a_loss_that_is_not_finite_stops_the_run_naming_step_and_clips(params):
    broken = TAE(params.tae.model.model_copy(update={"is_temporal": False}))
    finished(params, "tae-image", broken)
    with runs.record(runs.find(params, "tae-opl-off")) as run:
        start = program.starting_point

        def poisoned(run, phase):
            tae = start(run, phase)
            tae.decoder.conv_out.conv_spat.bias.set_data(ms.Tensor([np.nan] * 3, ms.float32))
            return tae

        program.starting_point = poisoned
        try:
            with pytest.raises(DivergedError, match="loss nan at step 0"):
                program.train(run, program.PHASES["opl-off"], World())
        finally:
            program.starting_point = start


def test_validation_measures_psnr_as_the_evaluation_does():
    """On views whose first clip comes back as it was, and the other with every value two grey levels off."""
    rng = np.random.default_rng(0)
    frames = rng.integers(2, 254, (2, 9, 16, 16, 3), dtype=np.uint8)
    views = np.stack([resize_and_crop(clip, 16, 16) for clip in frames])
    off = views + np.float32([0, 2.4 * 2 / 255]).reshape(2, 1, 1, 1, 1)  # rounds to two levels
    restored, best = program.mean_psnr(off, views), 10 * math.log10(255**2 * 12)
    assert restored == pytest.approx((best + 20 * math.log10(255 / 2)) / 2)
    pairs = zip(frames, map(to_uint8, off), strict=True)
    assert restored == np.mean([evaluate_tae.score(*pair)["psnr"] for pair in pairs])


def test_black_clips_leave_validation_finite():
    measured = program.validation(lambda video: video, np.full((3, 3, 9, 16, 16), -1, np.float32), 2)(lambda: None)
    assert measured == {"loss": 0, "psnr": pytest.approx(10 * math.log10(255**2 * 12))}


def test_validation_of_a_network_that_diverged_is_no_number():
    measured = program.validation(lambda video: video * float("nan"), np.zeros((2, 3, 1, 16, 16), np.float32), 2)(
        lambda: None
    )
    assert math.isnan(measured["loss"]) and math.isnan(measured["psnr"])  # the training's loop refuses it, on all ranks


@pytest.mark.whole_job
def test_two_workers_that_divide_state_and_batch_train_what_one_does_alone(tmp_path):
    """ZeRO 2 and two micro-batches of one clip each, against four clips at once: weights and their average."""
    found = {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        command = ("python", "-m", "tests.programs.tae_parallel_worker", str(folder))
        root = str(Path(__file__).parents[2])
        run_job(Job(command, folder / "logs", workers, workers, environment={"PYTHONPATH": root}))
        found[workers] = [load_arrays(folder / f"{name}.safetensors")[0] for name in ("weights", "averages")]
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found[workers].append([[line[term] for term in ("loss", "kl", "outlier")] for line in lines
                               if line["kind"] == "train"])  # fmt: skip
    for alone, together in zip(found[1][:2], found[2][:2], strict=True):
        for name, array in alone.items():
            np.testing.assert_allclose(together[name], array, atol=2e-6)
    np.testing.assert_allclose(found[2][2], found[1][2], rtol=1e-5)
    weights, averages = found[1][:2]
    assert max(np.abs(weights[name] - averages[name]).max() for name in weights) > 1e-3  # training moved them


# --- the scale of latents ---

SD35, FLUX = (0.0609, 1.5305), (0.1159, 0.3611)  # shift and scaling, as both are published


@pytest.fixture
def views():
    return np.random.default_rng(0).uniform(-1, 1, (3, 3, 1, 16, 16)).astype(np.float32)


def autoencoder(params, views, right, given):
    """One of single frames whose latents are what `right` (shift, scaling) makes 0 and 1; its config says `given`."""
    shape = {"is_temporal": False, "shift_factor": given[0], "scaling_factor": given[1]}
    tae = TAE(params.tae.model.model_copy(update=shape))
    latents = np.concatenate([tae.encode(ms.Tensor(view[None]))[0].asnumpy() for view in views])
    times = 1 / right[1] / latents.std()
    last = tae.encoder.conv_out.conv_spat
    last.weight.set_data(last.weight * float(times))
    shift = np.where(np.arange(32) < 16, right[0] - latents.mean() * times, 0).astype(np.float32)
    last.bias.set_data(last.bias + ms.Tensor(shift))
    return tae


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("factors", [SD35, FLUX])
def test_factors_that_fit_are_kept_and_open_ones_measured(params, views, factors):
    shift, scaling = factors
    kept = program.measure_latents(autoencoder(params, views, factors, factors), views)
    assert (kept.shift_factor, kept.scaling_factor) == factors
    for given in ((None, None), (shift, None), (None, scaling)):
        found = program.measure_latents(autoencoder(params, views, factors, given), views)
        assert (found.shift_factor, found.scaling_factor) == pytest.approx(factors, rel=1e-3)
        for value, wanted in zip((found.shift_factor, found.scaling_factor), given, strict=True):
            assert wanted is None or value == wanted


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("right", "given", "deviation"),
    [(FLUX, SD35, "4.24"), (SD35, FLUX, "0.236"), ((1.5, 1.0), (0.0, 1.0), "1, "), (SD35, (0.0609, 4.0), "2.61")],
)
def test_factors_of_another_autoencoder_are_refused_with_the_right_ones(params, views, right, given, deviation):
    with pytest.raises(ConfigError, match="standard deviation " + deviation) as refusal:
        program.measure_latents(autoencoder(params, views, right, given), views)
    assert f"tae.model.shift_factor {given[0]:.4g} and scaling_factor {given[1]:.4g}" in str(refusal.value)
    measured = re.search(r"measured as shift_factor (\S+) and scaling_factor (\S+): set these", str(refusal.value))
    assert [float(value) for value in measured.groups()] == pytest.approx(right, rel=1e-3)


@pytest.mark.usefixtures("eager")
def test_one_that_sees_nothing_is_refused(params, views):
    tae = autoencoder(params, views, SD35, (None, None))
    tae.encoder.conv_out.conv_spat.weight.set_data(ms.ops.zeros_like(tae.encoder.conv_out.conv_spat.weight) * np.nan)
    with pytest.raises(ConfigError, match="standard deviation nan"):
        program.measure_latents(tae, views)


@pytest.mark.usefixtures("eager")
def test_an_inflated_one_of_another_scale_is_refused_before_it_is_trained(params, views):
    params = given(params, model=params.tae.model.model_copy(update=dict(zip(FACTORS, SD35, strict=True))))
    finished(params, "tae-image", autoencoder(params, views, FLUX, SD35))
    for phase in ("opl-off", "opl-on"):
        run = runs.find(params, f"tae-{phase}")
        with pytest.raises(ConfigError, match="another autoencoder's"), runs.record(run):
            program.train(run, program.PHASES[phase], ALONE)
        assert not run.metrics_path.exists()


@pytest.mark.usefixtures("eager")
def test_a_given_one_of_another_scale_is_not_adopted_and_a_trained_one_not_lost(params, views, tmp_path):
    params = given(params, model=params.tae.model.model_copy(update=dict(zip(FACTORS, SD35, strict=True))))
    inflated = TAE(params.tae.model)
    export_diffusers(tmp_path / "image.safetensors", autoencoder(params, views, FLUX, SD35))
    load_weights(inflated, tmp_path / "image.safetensors")
    save_tae(tmp_path / "given.safetensors", inflated)
    with pytest.raises(ConfigError, match="another autoencoder's"), runs.record(runs.find(params, "tae-mixkit")) as run:
        program.adopt(run, program.PHASES["mixkit"], tmp_path / "given.safetensors")
    assert not (run.folder / "tae.safetensors").exists()
    with pytest.raises(ConfigError, match=rf"tae.tae_checkpoint {run.folder}/tae.safetensors it need not be trained"):
        program.measured(run, inflated, views)
    assert load_tae(run.folder / "tae.safetensors").config.is_temporal


# --- weights that are given ---


@pytest.mark.parametrize("phase", ["image", "mixkit"])
def test_weights_that_are_given_are_taken_instead_of_training(phase, params, tmp_path):
    is_image = phase == "image"
    tae = TAE(params.tae.model.model_copy(update={"is_temporal": not is_image}))
    file = tmp_path / "given.safetensors"
    (export_diffusers if is_image else save_tae)(file, tae)
    params = given(params, **{"vae_checkpoint" if is_image else "tae_checkpoint": str(file)})
    chosen = program.PHASES[phase]
    assert program.pretrained(params, chosen) == file
    with runs.record(runs.find(params, f"tae-{phase}")) as run:
        program.adopt(run, chosen, file)
    adopted = load_tae(run.folder / "tae.safetensors")
    assert adopted.config.is_temporal is not is_image
    for name, array in arrays_of(tae).items():
        np.testing.assert_array_equal(arrays_of(adopted)[name], array)


@pytest.mark.parametrize("named", [None, "shift_factor", "scaling_factor"])
def test_a_file_that_says_its_factors_keeps_those_that_the_parameters_leave_open(params, views, tmp_path, named):
    """They are not measured anew: the transformer that came with it was trained by them."""
    opened = params.tae.model.model_copy(update=dict.fromkeys(FACTORS))
    ms.set_seed(0)
    tae = TAE(opened)
    measured = program.measure_latents(tae, views)
    stored = {"scaling_factor": 1.125 * measured.scaling_factor, "shift_factor": measured.shift_factor + 1e-3}
    save_tae(tmp_path / "given.safetensors", tae, opened.model_copy(update=stored))
    own = {name: getattr(measured, name) for name in [named] if name}
    params = given(params, model=opened.model_copy(update=own), tae_checkpoint=str(tmp_path / "given.safetensors"))
    with runs.record(runs.find(params, "tae-mixkit")) as run:
        program.adopt(run, program.PHASES["mixkit"], tmp_path / "given.safetensors")
    adopted = load_tae(run.folder / "tae.safetensors").config
    assert {name: getattr(adopted, name) for name in FACTORS} == stored | own


def test_a_file_that_says_no_factors_has_them_measured(params, tmp_path):
    opened = params.tae.model.model_copy(update=dict.fromkeys(FACTORS))
    ms.set_seed(0)
    tae = TAE(opened)
    _, held_out = program.PHASES["mixkit"].splits(runs.find(params, "data"))
    views = centre_views(held_out, 9, (16, 16), Quarantine(tmp_path / "quarantine.csv"))
    measured = program.measure_latents(tae, views)
    save_tae(tmp_path / "open.safetensors", tae)
    save_arrays(tmp_path / "elsewhere.safetensors", arrays_of(tae))
    assert stored_config(tmp_path / "open.safetensors") == opened
    assert stored_config(tmp_path / "elsewhere.safetensors") is None
    for name in ("open", "elsewhere"):
        file = tmp_path / f"{name}.safetensors"
        params = given(params, model=opened, tae_checkpoint=str(file))
        with runs.record(runs.find(params, "tae-mixkit")) as run:
            program.adopt(run, program.PHASES["mixkit"], file)
        adopted = load_tae(run.folder / "tae.safetensors").config
        for factor in FACTORS:
            assert getattr(adopted, factor) == pytest.approx(getattr(measured, factor), rel=1e-5)


def test_a_file_that_is_not_there_or_of_another_shape_is_named(params, tmp_path):
    with pytest.raises(ConfigError, match=r"tae.vae_checkpoint: there is no file .*nowhere.*Pretrained weights"):
        program.pretrained(given(params, vae_checkpoint="models/nowhere.safetensors"), program.PHASES["image"])
    with pytest.raises(ConfigError, match=r"tae.loss.lpips_checkpoint: there is no file"):
        program.perceptual(TAELoss(lpips_checkpoint="models/nowhere.safetensors"))
    wide = TAE(params.tae.model.model_copy(update={"is_temporal": False, "base_channels": 8}))
    export_diffusers(tmp_path / "wide.safetensors", wide)
    with pytest.raises(CheckpointError, match="of another shape"):
        program.adopt(runs.find(params, "tae-image"), program.PHASES["image"], tmp_path / "wide.safetensors")


def test_only_the_phases_that_may_be_replaced_read_a_file(params, tmp_path):
    params = given(params, tae_checkpoint="a", vae_checkpoint="b")
    assert program.pretrained(params, program.PHASES["opl-off"]) is None
    assert program.pretrained(params, program.PHASES["opl-on"]) is None


def test_a_term_of_weight_zero_needs_no_file(capsys):
    assert program.perceptual(TAELoss(perceptual=0, lpips_checkpoint="models/nowhere.safetensors")) is None
    assert capsys.readouterr().err == ""
