"""How many workers may compute a program: one, as many as its recipe asks for, or any number."""

import shlex

import pytest

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.device.world import World
from moviegen.runs.ranks import check_workers
from moviegen.runs.registry import PROGRAMS

WORKERS = {name: program.workers for name, program in PROGRAMS.items()}
RECIPE = ("stage1", "stage2", "stage3")
PHASES = ("tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit")
ANY = ("text", "latents", "tae-evaluation", "sample", "shipped", "retrieval", "schedule-error")


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))


def find(name, **overrides):
    return runs.find(config.load("smoke", overrides), name)


def test_training_follows_its_recipe_and_what_is_only_computed_takes_any_number():
    assert {name for name, workers in WORKERS.items() if workers == "recipe"} == {*RECIPE, *PHASES}
    assert {name for name, workers in WORKERS.items() if workers == "any"} == set(ANY)


@pytest.mark.parametrize("name", sorted(set(WORKERS) - {*RECIPE, *PHASES, *ANY}))
def test_a_program_of_one_worker_refuses_several_and_names_the_command(name):
    run = find(name)
    check_workers(run, World())
    assert not run.folder.exists()
    for world in (World(0, 2), World(1, 2), World(0, 8)):
        with pytest.raises(ConfigError) as raised:
            check_workers(run, world)
        said, command, _ = str(raised.value).split("`")
        assert said == f"{name} is computed by one worker and was started with {world.size}: run "
        words = ["python", "-m", "moviegen", *PROGRAMS[name].arguments, "--config", str(run.params_path)]
        assert shlex.split(command) == words
    assert config.load(run.params_path) == run.params  # the command names a file that is there


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_what_is_encoded_scored_and_sampled_is_by_any_number(name, size):
    run = find(name)
    for rank in range(size):
        check_workers(run, World(rank, size))
    assert not run.folder.exists()


@pytest.mark.parametrize("name", RECIPE)
def test_a_stage_refuses_other_workers_and_names_both_ways_out(name):
    run = find(name)
    check_workers(run, World(0, 2))
    assert not run.folder.exists()
    with pytest.raises(ConfigError) as raised:
        check_workers(run, World(0, 3))
    said, command, _, change, _ = str(raised.value).split("`")
    assert said == f"{name} asks for 2 workers and was started with 3: run "
    assert shlex.split(command)[:3] == ["msrun", "--worker_num=2", "--local_worker_num=2"]
    assert shlex.split(command)[-2:] == ["--config", str(run.params_path)]
    overrides = config.parse_overrides(change, run.program.stage)  # as the command line reads them
    changed = config.load("smoke", overrides)
    assert changed.launch.worker_num == 3
    check_workers(runs.find(changed, name), World(0, 3))


@pytest.mark.parametrize("size", [1, 3])
def test_a_stage_may_take_some_of_the_workers(size):
    run = find("stage2", **{"stages.2.train.worker_num": 2, "launch.worker_num": 4, "launch.local_worker_num": 4})
    check_workers(run, World(0, 2))
    with pytest.raises(ConfigError) as raised:
        check_workers(run, World(0, size))
    said, command, _, change, _ = str(raised.value).split("`")
    assert said == f"stage2 asks for 2 workers and was started with {size}: run "
    assert shlex.split(command)[:3] == ["msrun", "--worker_num=2", "--local_worker_num=2"]
    changed = config.load("smoke", config.parse_overrides(change, 2))
    check_workers(runs.find(changed, "stage2"), World(0, size))


def test_a_stage_of_one_worker_is_started_without_msrun():
    run = find("stage1", **{"stages.1.train.worker_num": 1})
    assert not run.job().uses_msrun
    assert runs.find(run.params, "stage2").job().worker_num == 2
    check_workers(run, World())


@pytest.mark.parametrize("name", ANY)
def test_any_number_is_all_cards_on_a_cpu_one_worker_or_as_many_as_a_params_file_says(name):
    cards = runs.find(config.load("5B", {"launch.worker_num": 16}), name).job()
    assert (cards.worker_num, cards.local_worker_num, cards.host_num) == (16, 8, 2)
    assert not find(name).job().uses_msrun
    asked = find(name, **{"launch.inference_worker_num": 2})
    assert (asked.job().worker_num, asked.job().local_worker_num) == (2, 2)
    assert asked.folder == find(name).folder  # their number decides no result


@pytest.mark.parametrize("name", PHASES)
def test_a_phase_takes_all_cards_or_as_many_workers_as_it_says_which_its_result_follows_from(name):
    group = PROGRAMS[name].phase
    trained = {"tae.vae_checkpoint": ""}
    assert runs.find(config.load("5B", trained), name).job().worker_num == 8
    run, other = find(name), find(name, **{f"tae.{group}.worker_num": 2})
    assert not run.job().uses_msrun
    assert other.job().worker_num == 2
    assert other.folder != run.folder
    check_workers(other, World(0, 2))
    with pytest.raises(ConfigError) as raised:
        check_workers(run, World(0, 2))
    said, _, _, change, _ = str(raised.value).split("`")
    assert said == f"{name} asks for 1 workers and was started with 2: run "
    check_workers(runs.find(config.load("smoke", config.parse_overrides(change)), name), World(0, 2))


@pytest.mark.parametrize(("name", "file"), [("tae-image", "vae_checkpoint"), ("tae-mixkit", "tae_checkpoint")])
def test_weights_that_are_taken_as_they_are_take_one_worker(name, file):
    run = runs.find(config.load("5B", {f"tae.{file}": "models/own.safetensors"}), name)
    assert not run.job().uses_msrun
