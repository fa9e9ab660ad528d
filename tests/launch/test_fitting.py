"""A recipe that cannot fit its cards is refused before anything is started; a CPU's memory is only noted."""

import pytest

from moviegen import __main__, config, plan
from moviegen.launch import fitting
from moviegen.plan import dit_memory

GIB = 2**30
SMALL = {"launch.max_device_memory": "1GB"}  # of a card: less than any of these recipes needs
PROGRAMS = ("tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit", "stage1", "stage2", "stage3", "sample")


def ascend(changes):
    return config.load("1B", {"tae.vae_checkpoint": "", **changes})


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_cannot_fit_is_refused_with_the_plans_sentence(program):
    params = ascend(SMALL)
    with pytest.raises(config.ConfigError) as refused:
        fitting.check_fits(params, program)
    card = plan.find_card("ascend-910b")
    if program.startswith("stage"):
        verdict = plan.stage_verdict(params, int(program[-1]), card)[1]
    elif program == "sample":
        verdict = plan.sampling_verdict(params, card)
    else:
        verdict = plan.tae_verdict(params, program.removeprefix("tae-"), card)
    assert str(refused.value).startswith(f"{program} on ascend-910b does not fit: ")
    assert str(verdict) in str(refused.value)
    assert "--force" in str(refused.value)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("allowed", [{"launch.force": True}, {"launch.card": None}, {"launch.device": "CPU"}])
def test_it_is_not_where_somebody_insists_or_nobody_knows_the_card(program, allowed):
    fitting.check_fits(ascend(SMALL | allowed), program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_fits_is_let_through(program):
    small = {"launch.device": "Ascend", "launch.card": "ascend-910b", "tae.vae_checkpoint": ""}
    fitting.check_fits(config.load("tiny", small), program)


@pytest.mark.parametrize("program", ["count", "data", "text", "latents", "retrieval", "shipped", "tae-evaluation"])
def test_what_is_not_counted_is_let_through(program):
    fitting.check_fits(ascend(SMALL), program)


@pytest.mark.parametrize(
    ("program", "weights"), [("tae-image", "tae.vae_checkpoint"), ("tae-mixkit", "tae.tae_checkpoint")]
)
def test_weights_that_are_taken_as_they_are_need_no_training(program, weights):
    fitting.check_fits(ascend(SMALL | {weights: "some.safetensors"}), program)


def test_a_card_that_nobody_described_is_an_error_that_names_those_that_are():
    with pytest.raises(config.ConfigError, match=r"ascend-901b.*did you mean 'ascend-910b'"):
        fitting.check_fits(ascend({"launch.card": "ascend-901b"}), "stage1")


@pytest.mark.parametrize(
    ("words", "programs"),
    [
        (("train", "--stage", "2"), ["stage2"]),
        (("tae", "train", "--phase", "opl-on", "mixkit"), ["tae-opl-on", "tae-mixkit"]),
        (("tae", "evaluate"), []),
        (("sample",), ["sample"]),
        (("sample", "--shipped"), []),
        (("sample", "--prompts", "a.txt"), []),
        (("step",), []),
        (("report",), []),
    ],
)
def test_what_a_command_starts(words, programs):
    assert __main__.started(__main__.parser().parse_args(words)) == programs


@pytest.fixture
def computed(monkeypatch):
    """What the command line hands to a stage, in place of training."""
    handed = []
    monkeypatch.setattr("moviegen.programs.train_dit.main", lambda params, options: handed.append(params))
    monkeypatch.delenv("MOVIEGEN_RUN", raising=False)
    return handed


TRAIN = ("train", "--config", "1B", "--stage", "1", "--launch.max_device_memory", "1GB")


def test_the_command_line_refuses_before_the_program_begins(computed, capsys):
    assert __main__.main(TRAIN) == 2
    assert "error: stage1 on ascend-910b does not fit: " in capsys.readouterr().err
    assert not computed


def test_force_overrides(computed):
    assert __main__.main((*TRAIN, "--force")) == 0
    assert computed[0].launch.force


def test_a_process_that_was_started_for_a_run_leaves_it_to_who_started_it(computed, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_RUN", "stage1-01234567")
    assert __main__.main(TRAIN) == 0
    assert computed


def test_on_a_cpu_too_little_memory_is_noted_and_not_refused(computed, capsys, monkeypatch):
    params = config.load("smoke")
    launch = params.launch_of(1)
    need = launch.local_worker_num * dit_memory.fullest(params, 1)[1].total
    for have, noted in ((need, False), (need - 1, True)):
        monkeypatch.setattr("moviegen.device.limits.memory_bytes", lambda have=have: have)
        assert __main__.main(("train", "--config", "smoke", "--stage", "1")) == 0
        assert ("note: stage1 takes about" in capsys.readouterr().err) is noted
    assert len(computed) == 2
