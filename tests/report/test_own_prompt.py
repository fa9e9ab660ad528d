"""Prompts of one's own, from a form in JupyterLab or on a local page: what is started, said, refused and kept."""

import os
import sys
import threading
from unittest.mock import MagicMock

import numpy as np
import pytest
import yaml

from moviegen import __main__, config, runs
from moviegen.config import ConfigError
from moviegen.data import videos
from moviegen.launch.watch import WorkerError
from moviegen.report import demo, jupyter, own_prompt
from moviegen.report.own_prompt import NotMadeError
from moviegen.report.pages import sampling as page
from moviegen.report.panel import Panel
from tests.report.making import finished, words

FORM = {"prompt": " a cat\non a wall ", "seed": 7, "steps": 4, "guidance": 2.5, "schedule": "linear", "weights": ()}
SHIPPED = {"shipped.tae": "{}/tae.safetensors", "shipped.transformer": "{}/dit.safetensors"}


@pytest.fixture
def shipped(tmp_path):
    """Parameters that name shipped weights, which are there."""
    for name in ("tae", "dit"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"weights")
    return config.load("smoke", {name: path.format(tmp_path) for name, path in SHIPPED.items()})


@pytest.fixture
def started(monkeypatch):
    """The jobs that were started; each writes its clip when it is let."""
    jobs, let = [], threading.Event()

    def run(job, on_progress):
        jobs.append(job)
        on_progress({"kind": "state", "step": 0})
        assert let.wait(20)
        on_progress({"kind": "step", "step": 1, "steps": 5})
        folder = job.metrics[0].parent
        videos.write_video(folder / "000.mp4", np.zeros((4, 32, 32, 3), np.uint8), 8)

    monkeypatch.setattr(own_prompt, "run_job", run)
    monkeypatch.setattr(own_prompt, "TICK_SECONDS", 0.01)
    jobs.append(let)
    yield jobs
    let.set()


def test_the_job_is_one_that_the_command_line_takes_with_just_what_was_asked_for(shipped, started):
    titled = own_prompt.weights(shipped)
    assert list(titled) == [own_prompt.SHIPPED]
    asked = own_prompt.read(FORM | {"weights": titled[own_prompt.SHIPPED]})
    making = own_prompt.Making(shipped, asked)
    started[0].set()
    path = making.clip()
    assert path == making.folder / "000.mp4" and config.outputs_folder(shipped) in path.parents
    _, job = started
    options, rest = __main__.parser().parse_known_args(job.command[3:])
    assert rest == [] and job.command[:3] == ("python", "-m", "moviegen")
    assert (options.verb, options.seed, options.steps, options.guidance) == ("sample", "7", "4", "2.5")
    assert (options.schedule, options.dit, options.tae) == ("linear", shipped.shipped.transformer, shipped.shipped.tae)
    assert options.prompts and (making.folder / "prompt.txt").read_text() == "a cat on a wall\n"
    assert config.parse(yaml.safe_load((making.folder / "params.yaml").read_text()), {}, origin="it") == shipped
    assert job.log_dir.parent == making.folder


def test_the_reports_own_weights_come_first_where_they_are_there(shipped):
    for name in own_prompt.WEIGHTS_OF:
        finished(shipped, name)
    own, other = own_prompt.weights(shipped).items()
    assert runs.find(shipped, "stage3").name in own[0] and own[1] == ()
    assert other[0] == own_prompt.SHIPPED


def test_another_wish_goes_to_another_folder(shipped, started):
    started[0].set()
    wishes = [FORM, FORM | {"seed": 8}, FORM | {"prompt": "a dog"}, FORM | {"guidance": 3.0}, FORM]
    folders = [own_prompt.Making(shipped, own_prompt.read(wish)).clip().parent for wish in wishes]
    assert len(set(folders)) == 4 and folders[0] == folders[-1]


def test_other_frames_go_to_another_folder(shipped, started):
    started[0].set()
    one = shipped.model_copy(update={"sample": shipped.sample.model_copy(update={"frames": 1})})
    folders = [own_prompt.Making(params, own_prompt.read(FORM)).clip().parent for params in (shipped, one)]
    assert shipped.sample.frames != 1 and folders[0] != folders[1]


def test_a_job_starts_only_after_the_one_before_ended_though_it_was_stopped(shipped, monkeypatch):
    seeds, begun, let = [], threading.Event(), threading.Event()

    def run(job, on_progress):
        seeds.append(job.command[job.command.index("--seed") + 1])
        begun.set()
        assert let.wait(20)
        on_progress({"kind": "state", "step": 0})
        seeds.append("over")
        (job.metrics[0].parent / "000.png").touch()

    monkeypatch.setattr(own_prompt, "run_job", run)
    first = own_prompt.Making(shipped, own_prompt.read(FORM))
    assert begun.wait(20)
    first.stop()
    dropped, second = (own_prompt.Making(shipped, own_prompt.read(FORM | {"seed": seed})) for seed in (8, 9))
    dropped.stop()
    assert not second.is_over and seeds == ["7"]
    let.set()
    assert second.clip() == second.folder / "000.png"
    for stopped in (first, dropped):
        with pytest.raises(NotMadeError, match=own_prompt.STOPPED):
            stopped.clip()
    assert seeds == ["7", "9", "over"]


def test_a_prompt_that_no_file_can_hold_is_refused(shipped):
    with pytest.raises(NotMadeError, match=r"^error: .*surrogates"):
        own_prompt.Making(shipped, own_prompt.read(FORM | {"prompt": "\ud800"})).clip()


@pytest.mark.parametrize("before", ["", "operators: compiled\n"])
def test_errors_are_those_of_the_command_line(before, shipped, monkeypatch, tmp_path):
    log = tmp_path / "worker_0.log"
    log.write_text(f"{before}error: sample.steps = '0': it is too small\nwrite more\n")

    def run(job, on_progress):
        raise WorkerError("0", "failed", "Traceback ...", log, 2)

    monkeypatch.setattr(own_prompt, "run_job", run)
    with pytest.raises(NotMadeError) as error:
        own_prompt.Making(shipped, own_prompt.read(FORM)).clip()
    assert str(error.value) == "error: sample.steps = '0': it is too small\nwrite more"
    log.write_text("killed")
    with pytest.raises(NotMadeError, match=r"^error: worker 0 failed"):
        own_prompt.Making(shipped, own_prompt.read(FORM)).clip()


def test_the_panel_says_how_far_it_is_refuses_a_second_press_and_shows_the_clip(shipped, started):
    panel = Panel(shipped, own_prompt.weights(shipped))
    assert panel.start() is None and "write a prompt first" in panel.words.value
    panel.fields["prompt"].value = "a <cat>"
    follower = panel.start()
    assert panel.start() is None and "one clip is being made" in panel.words.value
    assert len(started) <= 2
    started[0].set()
    follower.join(20)
    (player,) = panel.clips.children
    assert "data:video/mp4;base64," in player.value and "a &lt;cat&gt; (seed" in player.value
    assert not panel.begins.disabled and panel.ends.disabled
    assert len(started) == 2
    panel.fields["seed"].value += 1
    panel.start().join(20)
    assert len(panel.clips.children) == 2


def test_what_is_stopped_is_not_made(shipped, started):
    panel = Panel(shipped, own_prompt.weights(shipped))
    panel.fields["prompt"].value = "a cat"
    follower = panel.start()
    panel.stop()
    started[0].set()
    follower.join(20)
    assert own_prompt.STOPPED in panel.words.value and panel.clips.children == ()


def test_the_local_page_tells_the_same(shipped, started):
    form = FORM | {"weights": own_prompt.weights(shipped)[own_prompt.SHIPPED]}
    told = demo.made(shipped, form, "unchanged")
    assert next(told)[0] == "unchanged"
    started[0].set()
    clip, said = list(told)[-1]
    assert clip.endswith("000.mp4") and "a cat on a wall (seed 7, 4 steps, linear, guidance 2.5)" in said
    ((clip, said),) = demo.made(shipped, form | {"prompt": " "}, "unchanged")
    assert clip == "unchanged" and "error: write a prompt first" in said


def test_without_weights_or_gradio_the_local_page_says_what_to_do(shipped, monkeypatch):
    with pytest.raises(ConfigError, match=r"06_training\.ipynb"):
        demo.main(config.load("smoke"), None)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match="`make demo`"):
        demo.main(shipped, None)


def test_the_local_page_is_this_machines_alone(shipped, monkeypatch):
    gradio = MagicMock()
    gradio.Blocks.return_value.__enter__.return_value.launch.return_value = (None, "http://127.0.0.1:7860", None)
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    demo.main(shipped, None)
    told = gradio.Blocks.return_value.__enter__.return_value.launch.call_args.kwargs
    assert (told["server_name"], told["share"]) == ("127.0.0.1", False)
    assert told["allowed_paths"] == [str(config.outputs_folder(shipped) / "samples")]
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert gradio.Blocks.call_args.kwargs["analytics_enabled"] is False


def test_a_report_shows_a_sentence_and_a_person_the_panel(shipped, monkeypatch):
    assert "make lab" in words(page.panel(shipped))
    monkeypatch.setattr(jupyter, "is_notebook", lambda: True)
    assert "application/vnd.jupyter.widget-view+json" in page.panel(shipped)._repr_mimebundle_()
    assert "no weights" in words(page.panel(config.load("smoke")))
    with jupyter.as_published():  # derived again in a person's notebook
        assert "make lab" in words(page.panel(shipped))
    assert jupyter.is_live()
