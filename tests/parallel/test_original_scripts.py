"""Our jobs beside the original report's: its three 5B scripts flag by flag, its table of recipes for every scale.

What we have under another name is in OURS; what differs on purpose is in DIFFERENT and DIFFERENT_ZERO, with
the reason.
"""

import re
import shlex
from dataclasses import dataclass

import mindspore as ms
import pytest

from moviegen import config, plan, runs
from moviegen.config import ConfigError
from moviegen.launch.job import Job, host_commands, msrun_command
from moviegen.launch.run import run_job
from moviegen.launch.watch import StalledJobError
from moviegen.report import notebook, provenance

SCALES, STAGES = ("1B", "5B", "30B"), (1, 2, 3)

EVERY_EXPORT = {"ASCEND_RT_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "MS_MEMORY_STATISTIC": "0", "GLOG_v": "2"}
EXPORTS = {
    1: EVERY_EXPORT,
    2: EVERY_EXPORT | {"MS_DEV_ENABLE_KERNEL_PACKET": "on"},
    3: EVERY_EXPORT | {"MS_DEV_ENABLE_KERNEL_PACKET": "on"},
}

# The original 5B scripts' commands, one flag a word; only the names of folders are shortened.
EVERY_FLAG = """
    --env.mode 0 --env.jit_level O1 --env.max_device_memory 59GB --env.distributed True
    --dataset.csv_path video_caption_train.csv --dataset.video_folder mixkit
    --dataset.text_emb_folder.ul2 ul2_emb_300 --dataset.text_emb_folder.byt5 byt5_emb_100
    --dataset.deterministic_sample True --train.ema "" --train.optimizer.weight_decay 0
"""
MSRUN = "msrun --bind_core=True --master_port=8200 --worker_num=8 --local_worker_num=8 --log_dir=output"
SCRIPTS = {
    1: f"""{MSRUN} python scripts/train.py --config configs/train/stage1_t2i_256px.yaml {EVERY_FLAG}
        --train.settings.zero_stage 3 --model.recompute_every_nth_block ""
        --dataset.tae_latent_folder tae_latent_images --dataloader.batch_size 10 --valid.dataset ""
        --train.save.ckpt_save_policy latest_k --train.steps 2000 --train.output_path output""",
    2: f"""{MSRUN} python scripts/train.py --config configs/train/stage2_t2iv_256px.yaml {EVERY_FLAG}
        --model.pretrained_model_path stage1/ckpt/llama-5B-s2000.ckpt --train.settings.zero_stage 2
        --model.not_recompute_fa True --dataset.tae_latent_folder tae_latent
        --dataloader.batch_size.image_batch_size 1 --dataloader.batch_size.video_batch_size 1
        --train.lr_scheduler.lr 0.0001 --train.settings.gradient_accumulation_steps 5 --train.steps 40000
        --train.output_path output""",
    3: f"""{MSRUN} python scripts/train.py --config configs/train/stage3_t2iv_768px.yaml {EVERY_FLAG}
        --model.pretrained_model_path stage2/ckpt/llama-5B-s40000.ckpt --train.settings.zero_stage 2
        --dataset.tae_latent_folder high_tae_latent
        --dataloader.batch_size.image_batch_size 1 --dataloader.batch_size.video_batch_size 1
        --train.settings.gradient_accumulation_steps 5 --train.steps 30000 --train.output_path output""",
}

# The original report's table: (images, videos) a batch, size, frames, recomputed blocks, attention spared, accumulated
# micro-batches, ZeRO stage (0: none), shards.
# 256x455 of the table is 256x448 here: 455 is not a whole number of patches.
LOW, HIGH = (256, 448), (576, 1024)
TABLE = {
    ("30B", 1): ((10, 0), LOW, 1, 1, False, 1, 3, 1),
    ("30B", 2): ((0, 1), LOW, 256, 1, False, 1, 3, 8),
    ("30B", 3): ((0, 1), HIGH, 256, 1, False, 1, 3, 8),
    ("5B", 1): ((10, 0), LOW, 1, 0, False, 1, 3, 1),
    ("5B", 2): ((1, 1), LOW, 256, 1, True, 5, 2, 1),
    ("5B", 3): ((1, 1), HIGH, 256, 1, False, 5, 2, 1),
    ("1B", 1): ((10, 0), LOW, 1, 0, False, 1, 0, 1),
    ("1B", 2): ((1, 1), LOW, 256, 0, False, 5, 0, 1),
    ("1B", 3): ((1, 1), HIGH, 256, 1, True, 5, 0, 1),
}

# Of the same meaning: original flag -> (our parameter, what the original's words mean there).
OURS = {
    "env.jit_level": ("launch.jit_level", "O1"),
    "env.max_device_memory": ("launch.max_device_memory", "59GB"),
    "model.recompute_every_nth_block": ("model.recompute_every_nth_block", 0),  # "": none
    "train.ema": ("train.ema", None),  # "": none
    "dataloader.batch_size": ("dataloader.batch_size.image_batch_size", 10),  # of a stage that sees images only
}

# Original export or flag -> why ours is not the same.
DIFFERENT = {
    "GLOG_v": "MindSpore's warnings drown a worker's own words: 3 shows errors only; an exported value wins",
    "log_dir": "beside what the job makes, in a folder named after the parameters instead of after the time",
    "train.output_path": "the run's folder, found from the parameters: a second start goes on in it",
    "config": "all parameters of the run, resolved, in one file: nothing else is on the command line",
    "env.mode": "0 is graph mode, the only one there is: not a parameter",
    "env.distributed": "follows from worker_num",
    "dataset.csv_path": "data.root is one folder for videos and captions; the data run checks and lists them",
    "dataset.video_folder": "data.root",
    "dataset.tae_latent_folder": "empty: the latents run's, made from data.root; a folder made elsewhere may be named",
    "dataset.text_emb_folder.ul2": "empty: the text run's embeddings, of all three encoders",
    "dataset.text_emb_folder.byt5": "as for ul2",
    "dataset.deterministic_sample": "not a switch: a clip is its centre frames, draws follow from (seed, step, rank)",
    "valid.dataset": "stage 1 had no validation; ours has, because the rate is halved when its loss plateaus",
    "model.pretrained_model_path": "empty: the run of the stage before, found from the parameters",
}

# Of one stage: ours, and why.
DIFFERENT_ZERO = {
    ("5B", 3): (3, "ZeRO 2 does not fit: blocks' outputs are summed in float32, and recomputed blocks keep it")
}


@dataclass(frozen=True)
class Original:
    """One of the original scripts, parsed."""

    msrun: dict[str, str]
    program: dict[str, str]

    @classmethod
    def parse(cls, script):
        words = shlex.split(script)
        split = words.index("python")
        flags = dict(word.removeprefix("--").split("=") for word in words[1:split])
        rest = words[split + 2 :]
        return cls(flags, {name.removeprefix("--"): value for name, value in zip(rest[::2], rest[1::2], strict=True)})


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    for name in EXPORTS[2]:
        monkeypatch.delenv(name, raising=False)


def found(scale, stage, overrides=None):
    run = runs.find(config.load(scale, overrides), f"stage{stage}")
    run.write_params()
    return run, notebook.job(run)


def msrun_flags(job):
    command = msrun_command(job)
    flags = command[1 : command.index("python")]
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags)


def exports(job):
    return dict(re.findall("^export ([^=]+)=(.*)$", host_commands(job)[0], re.MULTILINE))


def resolved(run, job, name):
    """A parameter as the program will read it: from the file that the command names."""
    command = msrun_command(job)
    assert command[-2] == "--config"
    params = config.load(command[-1])
    assert params == run.params
    node = params if name.startswith("launch.") else params.recipes[run.program.stage]
    for key in name.split("."):
        node = getattr(node, key)
    return node


def test_every_reason_is_of_a_flag_of_the_scripts():
    scripts = [Original.parse(script) for script in SCRIPTS.values()]
    flags = {name for script in scripts for name in (*script.msrun, *script.program)}
    assert DIFFERENT.keys() <= flags | EVERY_EXPORT.keys()
    assert OURS.keys() <= flags
    assert not DIFFERENT.keys() & OURS.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_msrun_gets_the_original_flags(stage):
    run, job = found("5B", stage)
    ours, original = msrun_flags(job), Original.parse(SCRIPTS[stage]).msrun
    assert {name: ours[name] for name in original if name not in DIFFERENT} == {
        name: value for name, value in original.items() if name not in DIFFERENT
    }
    assert ours["log_dir"] == str(run.folder / "logs")
    assert ours.keys() - original.keys() == {"join", "cluster_time_out"}  # the job waits for its workers


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("scale", SCALES)
def test_the_original_variables_are_exported(scale, stage):
    _, job = found(scale, stage)
    wanted = {name: value for name, value in EXPORTS[stage].items() if name not in DIFFERENT}
    assert {name: exports(job).get(name) for name in EXPORTS[2] if name in wanted or name not in EXPORTS[stage]} == {
        **wanted, **dict.fromkeys(EXPORTS[2].keys() - EXPORTS[stage].keys())
    }  # fmt: skip
    assert dict(job.environment) == wanted
    assert exports(job)["GLOG_v"] == "3"


@pytest.mark.parametrize("stage", STAGES)
def test_the_config_file_holds_what_the_original_flags_say(stage):
    run, job = found("5B", stage)
    for name, value in Original.parse(SCRIPTS[stage]).program.items():
        if name in DIFFERENT:
            continue
        ours, wanted = OURS.get(name, (name, None))
        got = resolved(run, job, ours)
        if name not in OURS:
            wanted = value if isinstance(got, str) else type(got)(float(value) if value != "True" else True)
        if name == "train.settings.zero_stage":
            wanted, _ = DIFFERENT_ZERO.get(("5B", stage), (wanted, ""))
        if name == "train.steps":  # theirs are micro-batches, ours updates
            got *= run.params.recipes[stage].train.settings.gradient_accumulation_steps
        assert got == wanted, name


@pytest.mark.parametrize("stage", STAGES)
def test_what_differs_from_the_original_is_as_its_reason_says(stage):
    run, job = found("5B", stage)
    assert ms.GRAPH_MODE == ms.get_context("mode") == 0  # by `device.start`, which tests/conftest.py has called
    assert job.uses_msrun
    assert resolved(run, job, "dataset.tae_latent_folder") == resolved(run, job, "dataset.text_emb_folder") == ""
    assert {"latents", "text"} <= set(run.program.needs(run.params))
    assert resolved(run, job, "model.pretrained_model_path") == ""
    assert (f"stage{stage - 1}" in run.program.needs(run.params)) is (stage > 1)
    assert resolved(run, job, "valid.frequency") > 0
    assert resolved(run, job, "train.save.ckpt_save_policy") == "latest_k"  # named for stage 1 only
    words = msrun_command(job)
    assert words[words.index("python") :] == [
        "python", "-m", "moviegen", "train", "--stage", str(stage), "--config", str(run.folder / "params.yaml"),
    ]  # fmt: skip


def test_the_originals_zero_stage_would_not_fit_where_ours_differs():
    for (scale, stage), (ours, _) in DIFFERENT_ZERO.items():
        params = config.load(scale)
        card = plan.find_card(params.launch.card)
        original = config.load(scale, {f"stages.{stage}.train.settings.zero_stage": TABLE[scale, stage][-2]})
        assert params.recipes[stage].train.settings.zero_stage == ours
        assert plan.stage_verdict(params, stage, card)[1].fits
        assert not plan.stage_verdict(original, stage, card)[1].fits


@pytest.mark.parametrize(("scale", "stage"), TABLE)
def test_recipes_are_those_of_the_original_table(scale, stage):
    run, job = found(scale, stage)
    recipe = run.params.recipes[stage]
    batch, model = recipe.dataloader.batch_size, recipe.model
    *others, zero_stage, shards = TABLE[scale, stage]
    zero_stage, _ = DIFFERENT_ZERO.get((scale, stage), (zero_stage, ""))
    assert (*others, zero_stage, shards) == (
        (batch.image_batch_size, batch.video_batch_size),
        recipe.dataset.size,
        recipe.dataset.longest,
        model.recompute_every_nth_block,
        model.not_recompute_fa,
        recipe.train.settings.gradient_accumulation_steps,
        recipe.train.settings.zero_stage,
        recipe.train.sequence_parallel.shards,
    )
    assert job.worker_num == job.local_worker_num == 8  # cards
    assert (job.bind_core, job.master_port) == (True, 8200)
    assert model.size == scale


# The columns of the table, and what follows from one: no images in a batch is none among the batches.
COLUMNS = {
    "model.size", "model.recompute_every_nth_block", "model.not_recompute_fa", "dataset.size", "dataset.frames",
    "dataloader.batch_size.image_batch_size", "dataloader.batch_size.video_batch_size", "dataloader.image_ratio",
    "train.settings.zero_stage", "train.settings.gradient_accumulation_steps", "train.sequence_parallel.shards",
}  # fmt: skip
# What 30B asks for beside the table, to fit eight cards, and for its validation to be a small share of an update.
BESIDE_THE_TABLE = {"30B": {"train.settings.gradient_dtype", "valid.max_clips"}, "1B": set()}


def leaves(group, prefix=""):
    """Every parameter of a group by its dotted name."""
    found = {}
    for name, value in group.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


@pytest.mark.parametrize("scale", ["1B", "30B"])
def test_scales_without_scripts_are_the_5b_scripts_but_for_the_table(scale):
    ours, scripted = config.load(scale), config.load("5B")
    for stage in STAGES:
        one, other = (leaves(params.recipes[stage].model_dump()) for params in (ours, scripted))
        assert one.keys() == other.keys()
        for leaf in (one, other):  # as many micro-batches, however many an update takes
            for counted in ("train.steps", "valid.frequency"):
                leaf[counted] *= leaf["train.settings.gradient_accumulation_steps"]
        assert {name for name in one if one[name] != other[name]} <= COLUMNS | BESIDE_THE_TABLE[scale]
    assert ours.launch == scripted.launch


# --- around it ---


def test_cards_the_caller_chose_are_kept(monkeypatch):
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "4,5")
    _, job = found("5B", 1, {"launch.worker_num": 2, "launch.local_worker_num": 2})
    assert exports(job)["ASCEND_RT_VISIBLE_DEVICES"] == "4,5"
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES")
    assert exports(notebook.job(found("5B", 1)[0]))["ASCEND_RT_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"


@pytest.mark.parametrize(("program", "cards"), [("latents", "0,1,2,3,4,5,6,7"), ("calibration", "0")])
def test_a_program_takes_all_cards_that_it_can_be_computed_by(program, cards):
    job = notebook.job(runs.find(config.load("5B"), program))
    assert job.environment["ASCEND_RT_VISIBLE_DEVICES"] == cards
    assert job.uses_msrun is (len(cards) > 1)
    assert "MS_DEV_ENABLE_KERNEL_PACKET" not in job.environment


def test_a_job_on_cpu_needs_no_variables():
    assert dict(notebook.job(runs.find(config.load("tiny"), "stage2")).environment) == {}


TWO_HOSTS = {"launch.worker_num": 16, "launch.local_worker_num": 8, "launch.master_addr": "10.0.0.1"}


def test_two_hosts_get_a_line_each():
    run, job = found("5B", 2, TWO_HOSTS)
    page = provenance.would_run(run, job).data
    lines = re.findall("^msrun .*$", page, re.MULTILINE)
    assert len(lines) == 2
    for rank, line in enumerate(lines):
        for flag in ("worker_num=16", "local_worker_num=8", "master_addr=10.0.0.1", "master_port=8200"):
            assert f"--{flag} " in line
        assert f"--node_rank={rank} " in line
        assert f"# host {rank}\n" in page
    assert page.count("export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3,4,5,6,7\n") == 2
    assert "launch.master_addr" not in page
    assert "host 0 (with its address in launch.master_addr)" in provenance.would_run(
        run, notebook.job(found("5B", 2, {**TWO_HOSTS, "launch.master_addr": "127.0.0.1"})[0])
    ).data  # fmt: skip


def test_one_host_gets_no_heading():
    assert "# host" not in provenance.would_run(*found("5B", 2)).data


def test_another_host_keeps_its_logs_apart_and_works_in_the_same_run():
    first, job = found("5B", 2, TWO_HOSTS)
    second, other = found("5B", 2, TWO_HOSTS | {"launch.node_rank": 1})
    assert first.folder == second.folder
    assert (job.first_rank, other.first_rank) == (0, 8)
    assert job.log_dir != other.log_dir


def test_a_host_that_is_not_one_of_them_is_refused():
    with pytest.raises(ConfigError, match="node_rank 2 is not one of the 2 hosts"):
        config.load("5B", TWO_HOSTS | {"launch.node_rank": 2})
    with pytest.raises(ConfigError, match="node_rank 1 is not one of the 1 hosts"):
        config.load("5B", {"launch.node_rank": 1})


def test_a_job_ends_when_it_has_written_nothing_for_an_hour():
    assert notebook.job(found("5B", 1)[0]).stall_timeout == 3600
    assert notebook.job(found("5B", 1, {"launch.stall_timeout": 60})[0]).stall_timeout == 60
    for program in ("data", "text"):  # they write no metrics
        assert notebook.job(runs.find(config.load("5B"), program)).stall_timeout is None
    with pytest.raises(ConfigError, match=r"launch\.stall_timeout"):
        config.load("5B", {"launch.stall_timeout": 0})


def test_the_jobs_own_timeout_ends_it(tmp_path):
    command = ("python", "-c", "import time; time.sleep(600)")
    with pytest.raises(StalledJobError, match="for 2 s; the job was ended"):
        run_job(Job(command, tmp_path / "logs", metrics=(tmp_path / "metrics.jsonl",), stall_timeout=2))
