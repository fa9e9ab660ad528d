import re

import nbformat
import papermill
import pytest
import yaml

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.report import kernel, notebook, sections
from moviegen.report.notebook import open_section
from moviegen.runs import registry
from tests.report.making import finished, ready, words


def test_defaults_are_the_scales():
    section = open_section("data", {"scale": "tiny", "overrides": "", "seed": None, "data": None})
    assert section.params == config.load("tiny")
    assert section.section.name == "data"


def test_groups_lie_over_the_scale_and_overrides_over_both():
    given = {"scale": "tiny", "sample": {"steps": 30, "fps": 8}, "overrides": "--sample.steps 10"}
    params = open_section("sampling", given).params
    assert (params.sample.steps, params.sample.fps) == (10, 8)
    assert params.sample.guidance == config.load("tiny").sample.guidance


def test_a_whole_params_file_as_papermill_writes_it_is_that_file():
    params = config.load("tiny", {"train.steps": 7})
    given = params.model_dump(mode="json")
    given["stages"] = {str(stage): values for stage, values in given["stages"].items()}
    assert open_section("training", given | {"stage": 2}).params == params


def test_a_whole_params_file_may_be_of_a_scale_of_its_own():
    params = config.load("tiny").model_copy(update={"scale": "mine"})
    assert open_section("data", params.model_dump(mode="json")).params == params
    with pytest.raises(ConfigError, match=r"no params file .*mine\.yaml"):
        open_section("data", {"scale": "mine", "seed": 3})


def test_a_params_file_that_extends_another_is_laid_over_it():
    params = open_section("training", {"scale": "mine", "extends": "smoke.yaml", "seed": 7, "stage": 1}).params
    assert (params.scale, params.seed) == ("mine", 7)
    assert params.recipes[1].train == config.load("smoke").recipes[1].train
    with pytest.raises(ConfigError, match=r"extends: there is no file .*params/mine\.yaml"):
        open_section("data", {"extends": "mine.yaml"})


@pytest.mark.parametrize("scale", ["1B", "5B", "30B", "smoke"])
def test_a_params_file_as_it_is_shipped_is_that_scale(scale):
    given = yaml.safe_load((config.project_root() / "params" / f"{scale}.yaml").read_text())
    given["stages"] = {str(stage): values for stage, values in given["stages"].items()}
    assert open_section("training", given | {"stage": 2}).params == config.load(scale)


def test_overrides_in_the_notebook_of_a_stage_are_of_that_stage_alone():
    params = open_section("training", {"stage": 2, "overrides": "--train.steps 5"}).params
    assert params.recipes == config.load("tiny", {"stages.2.train.steps": 5}).recipes


def test_the_training_notebook_is_a_section_for_each_stage():
    for stage in (3, "3"):  # papermill -p, and -r
        assert open_section("training", {"stage": stage}).section.name == "training-3"
    with pytest.raises(ConfigError, match="stage 4"):
        open_section("training", {"stage": 4})
    with pytest.raises(ConfigError, match="stage 2"):
        open_section("data", {"stage": 2})


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'overides'; did you mean 'overrides'"):
        open_section("data", {"scale": "tiny", "overides": "--seed 1"})
    with pytest.raises(ConfigError, match=r"unknown parameter 'sample\.stpes'"):
        open_section("data", {"overrides": "--sample.stpes 1"})


SHOWN = """
section = open_section("training", globals())
print(section.params.scale, [recipe.train.steps for recipe in section.params.recipes.values()])
print(section.params.data.root, section.params.sample.size, section.params.train["lr_scheduler"]["lr"])
"""


@pytest.fixture
def executed(tmp_path):
    """What the training notebook's parameters cell, then SHOWN, print where papermill gives these parameters."""
    source = nbformat.read(config.project_root() / "notebooks" / "06_training.ipynb", as_version=4)
    cells = [cell for cell in source.cells if "parameters" in cell.metadata.get("tags", [])]
    source.cells = [*cells, nbformat.v4.new_code_cell(SHOWN)]
    nbformat.write(source, tmp_path / "notebook.ipynb")

    def execute(parameters):
        with kernel.own_kernels() as own_kernel:
            done = papermill.execute_notebook(
                tmp_path / "notebook.ipynb",
                tmp_path / "out.ipynb",
                parameters,
                kernel_name="python3",
                kernel_manager_class=own_kernel,
                cwd=config.project_root() / "notebooks",
                progress_bar=False,
            )
        (printed,) = (output for output in done.cells[-1].outputs if output.output_type == "stream")
        return printed.text.splitlines()

    return execute


@pytest.mark.parametrize("file", [None, "smoke"], ids=["alone", "over a params file"])
def test_dotted_names_are_taken_as_papermill_gives_them(executed, file):
    """`-p train.steps 50 -p stages.3.train.steps 7 ...`, with and without `-f`, which papermill writes first."""
    of_file = {} if file is None else config.load(file).model_dump(mode="json")
    dotted = {"train.steps": 50, "stages.3.train.steps": 7, "data.root": 'a "b" c', "sample.size": "[96, 96]"}
    params = config.load(file or "tiny")
    rate = params.train["lr_scheduler"]["lr"]
    steps = [50, params.recipes[2].train.steps, 7]  # of stage 1, which the notebook is
    assert executed(of_file | dotted | {"assets": "none"}) == [f"{params.scale} {steps}", f'a "b" c (96, 96) {rate}']


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train.stepz", r"unknown parameter 'stages\.1\.train\.stepz'; did you mean 'train\.steps'"),
        ("tran.steps", r"unknown parameter 'tran\.steps'; did you mean 'train\.steps'"),
        ("stages.4.train.steps", r"'stages\.4\.train\.steps': write stages\.1\.train\.steps, with stage 1, 2 or 3"),
        ("train-steps", r"unknown parameter 'train-steps'; did you mean 'train\.steps'"),
    ],
)
def test_a_wrong_dotted_name_is_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        open_section("training", {notebook.DOTTED: {name: 50}, "stage": 1})


def test_a_dotted_name_that_is_an_override_too_is_refused():
    given = {notebook.DOTTED: {"train.steps": 50}, "overrides": "--train.steps 60", "stage": 2}
    with pytest.raises(ConfigError, match=r"stages\.2\.train\.steps is given twice, as '50' and as '60'"):
        open_section("training", given)


def test_only_lines_of_papermills_own_cell_are_read_as_dotted_names():
    shown = ["# Parameters\n", "train.steps = 50\n", "seed = 3\n", "train-steps = 1\n", 'data = {"x": "a.b = 1"}\n']
    assert notebook._with_items(shown) == [
        "# Parameters\n", '_dotted["train.steps"] = 50\n', "seed = 3\n", '_dotted["train-steps"] = 1\n', shown[-1],
    ]  # fmt: skip
    assert notebook._with_items(shown[1:]) == shown[1:]  # a reader's


def test_paths_that_papermill_tells_are_no_parameters():
    told = {"PAPERMILL_INPUT_PATH": "a.ipynb", "PAPERMILL_OUTPUT_PATH": "b.ipynb"}
    assert open_section("data", told).params == config.load("tiny")


def test_what_is_no_parameter_is_let_be():
    ipython = {"In": [""], "Out": {}, "_ih": [""], "exit": print, "pytest": pytest}
    section = open_section("data", ipython)
    assert open_section("data", {"section": section, "mine": 3}).params == section.params


def test_a_notebook_goes_on_without_what_cannot_be_fetched(monkeypatch):
    monkeypatch.setattr(notebook, "provided", lambda read: read(assets="none"))
    params = open_section("data", {"overrides": "--sample.steps 10"}).params
    assert params == config.load("tiny", {"assets": "none", "sample.steps": 10})
    assert (params.data.film, params.tae.loss.lpips_checkpoint) == ("", "")


def test_run_is_none_until_it_is_complete():
    section = open_section("data", {})
    assert section.run("data") is None
    made = finished(section.params, "data")
    assert section.run("data") == made
    with pytest.raises(KeyError, match="not read by data"):
        section.run("sample")


def test_launch_runs_only_what_is_not_complete(monkeypatch, capsys):
    section = open_section("tae_training", {})
    started = []

    def run(job, on_progress):
        started.append(job)
        for step in (1, 2):
            on_progress({"kind": "train", "step": step, "steps": 2, "loss": 0.5})
        finished(section.params, "tae-image")

    monkeypatch.setattr(notebook, "run_job", run)
    first, second = section.launch("tae-image"), section.launch("tae-image")
    assert first == second
    assert len(started) == 1
    assert started[0].command[:5] == ("python", "-m", "moviegen", "tae", "train")
    assert not started[0].uses_msrun
    assert "loss=0.5000" in capsys.readouterr().out


def test_a_program_that_ends_unfinished_is_an_error(monkeypatch):
    monkeypatch.setattr(notebook, "run_job", lambda job, on_progress: None)
    with pytest.raises(RuntimeError, match="did not finish"):
        open_section("data", {}).launch("data")


def test_without_its_device_a_recipe_is_shown_and_not_run(monkeypatch, capsys):
    monkeypatch.setattr("moviegen.report.provenance.accelerators", lambda: 1)
    monkeypatch.setattr("moviegen.device.accelerators", lambda: 1)
    monkeypatch.setattr(notebook, "run_job", lambda *_, **__: pytest.fail("it was started"))
    shown = []
    monkeypatch.setattr(notebook, "display", shown.append)
    section = open_section(
        "training",
        {"stage": 1, "overrides": "--launch.device Ascend --launch.worker_num 8 --launch.local_worker_num 8"},
    )
    assert section.launch("stage1") is None
    assert "not run here" in shown[0].data
    assert "written for 8 Ascend cards a host, and this machine has 1." in shown[0].data
    assert "msrun" in shown[0].data
    assert "--worker_num=8" in shown[0].data


TWO_HOSTS = (
    "--launch.worker_num 16 --launch.local_worker_num 8 --launch.master_addr 10.0.0.1 --launch.master_port 8200 "
    "--launch.device Ascend --stages.2.train.worker_num null --stages.3.train.worker_num null "
)


@pytest.mark.parametrize("host", [0, 1])
def test_a_host_that_starts_shows_what_to_type_on_the_other(host, monkeypatch):
    monkeypatch.setattr("moviegen.device.accelerators", lambda: 8)
    overrides = f"{TWO_HOSTS} --launch.node_rank {host}"
    section = ready(open_section("training", {"stage": 1, "overrides": overrides}), "stage1")
    shown = []
    monkeypatch.setattr(notebook, "display", lambda page: shown.append(page.data))

    def run(job, on_progress):
        (page,) = shown  # before it waits for the other
        assert f"This is host {host} of 2; it waits {job.cluster_time_out} s" in page
        assert re.findall(r"^# host (\d)$", page.replace("<pre>", "\n"), re.MULTILINE) == [str(1 - host)]
        assert re.findall(r"^msrun .*--node_rank=(\d) ", page, re.MULTILINE) == [str(1 - host)]
        finished(section.params, "stage1")

    monkeypatch.setattr(notebook, "run_job", run)
    assert section.launch("stage1").complete
    assert len(shown) == 2


def test_a_job_of_one_host_shows_no_other(monkeypatch):
    section = ready(open_section("training", {"stage": 1}), "stage1")
    shown = []
    monkeypatch.setattr(notebook, "display", shown.append)
    monkeypatch.setattr(notebook, "run_job", lambda job, on_progress: finished(section.params, "stage1"))
    section.launch("stage1")
    assert len(shown) == 1


def test_runs_that_share_graphs_are_computed_by_one_process_but_for_those_that_are_there(monkeypatch):
    names, started = ("tae-opl-off", "tae-opl-on", "tae-mixkit"), []
    section = ready(open_section("tae_training", {}), *names)

    def run(job, on_progress):
        started.append(job.run.split(":"))
        for name in names[1:]:
            on_progress({"kind": "state", "step": 0})
            on_progress({"kind": "train", "step": 20, "steps": 20, "loss": 1.0})
            finished(section.params, name)

    monkeypatch.setattr(notebook, "run_job", run)
    section.compute_together(*names[:1])  # one alone is `launch`'s
    assert not started
    finished(section.params, names[0])
    section.compute_together(*names)
    assert started == [[runs.find(section.params, name).name for name in names[1:]]]
    assert all(section.launch(name).complete for name in names)
    section.compute_together(*names)
    assert len(started) == 1


def test_a_recipe_can_run_where_there_are_as_many_cards_as_local_workers(monkeypatch):
    params = open_section("training", {"stage": 2, "overrides": "--launch.device Ascend"}).params
    for cards, enough in ((0, False), (1, False), (params.launch.local_worker_num, True)):
        monkeypatch.setattr("moviegen.device.accelerators", lambda cards=cards: cards)
        assert sections.can_run_here(params, "stage1") is enough
        assert sections.can_run_here(params, "count")


def test_without_shipped_weights_nothing_is_sampled_with_them(monkeypatch):
    section = open_section("sampling", {"overrides": "--shipped.tae '' --shipped.transformer ''"})
    monkeypatch.setattr(notebook, "run_job", lambda job, on_progress: pytest.fail("it was started"))
    assert section.launch("shipped") is None
    assert "shipped" not in section.provenance().data


def test_shipped_weights_are_sampled_by_a_program_of_their_own(monkeypatch):
    overrides, started = "--shipped.tae a --shipped.transformer b", []
    section = ready(open_section("sampling", {"overrides": overrides}), "shipped")

    def run(job, on_progress):
        started.append(job.command[:5])
        finished(section.params, "shipped")

    monkeypatch.setattr(notebook, "run_job", run)
    assert section.launch("shipped").complete
    assert started == [("python", "-m", "moviegen", "sample", "--shipped")]


# --- what is not there yet ---


def test_a_program_that_needs_others_says_so_and_runs_with_them_where_that_is_asked_for(monkeypatch):
    section, started, shown = open_section("training", {"stage": 1}), [], []
    finished(section.params, "data")

    def run(job, on_progress):
        started.append(job.run.rpartition("-")[0])
        finished(section.params, started[-1])

    monkeypatch.setattr(notebook, "run_job", run)
    monkeypatch.setattr(notebook, "display", shown.append)
    assert section.launch("stage1") is None
    assert not started
    needed = sections.missing(section.params, "stage1")
    assert "data" not in needed
    assert f"It first needs {', '.join(needed[:-1])} and {needed[-1]}" in words(shown[0])
    assert "03_tae_training.ipynb" in words(shown[0])
    assert section.launch("stage1", with_upstream=True).complete
    assert started == [*needed, "stage1"]
    for place, name in enumerate(started):
        before = {"data", *started[:place]}
        assert before.issuperset(registry.find(name).needs(section.params))


def test_a_damaged_run_is_left_out_with_the_reason_and_waited_for(monkeypatch):
    section, shown = open_section("tae_evaluation", {}), []
    monkeypatch.setattr(notebook, "display", shown.append)
    run = finished(section.params, "tae-image")
    (run.folder / "manifest.json").write_text('{"status": "comp')
    assert section.run("tae-image") is None
    assert "manifest.json is damaged" in words(shown[0])
    assert sections.state(section.params, section.section)[run.name] == "damaged"
    assert "damaged" in section.provenance().data
    assert "tae-image" in sections.missing(section.params, "tae-evaluation")


# --- what is used in the place of a program ---


@pytest.fixture
def shown(monkeypatch):
    """What is displayed; starting a program is an error."""
    pages = []
    monkeypatch.setattr(notebook, "display", pages.append)
    monkeypatch.setattr(notebook, "run_job", lambda job, on_progress: pytest.fail(f"{job.command} was started"))
    return pages


@pytest.mark.parametrize(
    ("program", "parameter"),
    [("latents", "dataset.tae_latent_folder"), ("text", "dataset.text_emb_folder")],
)
def test_a_stage_that_names_latents_or_embeddings_needs_none_made(tmp_path, shown, program, parameter):
    folder = tmp_path / "made <elsewhere>"
    section = open_section("training", {"stage": 2, "overrides": f"--stages.2.{parameter} '{folder}'"})
    assert section.launch(program) is None
    assert words(shown[0]).startswith(f"{program} is not run: ")
    assert "made &lt;elsewhere&gt;" in shown[0].data
    finished(section.params, program)  # by a stage that names none
    assert section.run(program) is None
    assert program not in {row.split("</td>")[0] for row in section.provenance().data.split("<td>")}
    assert "stage2" in section.provenance().data


def test_the_stages_that_name_none_have_them_made(tmp_path, monkeypatch):
    overrides = f"--stages.2.dataset.tae_latent_folder {tmp_path}"
    section = ready(open_section("training", {"stage": 1, "overrides": overrides}), "latents")
    monkeypatch.setattr(notebook, "run_job", lambda job, on_progress: finished(section.params, "latents"))
    assert section.launch("latents").complete


def test_a_replaced_program_is_not_looked_for(tmp_path, shown, monkeypatch):
    section = open_section("training", {"stage": 2, "overrides": f"--stages.2.dataset.tae_latent_folder {tmp_path}"})
    monkeypatch.setattr(runs, "find", lambda params, name: pytest.fail(f"{name} was looked for"))
    assert section.launch("latents") is None
    assert section.run("latents") is None


def test_a_trained_autoencoder_takes_the_place_of_those_before_it(tmp_path, shown):
    checkpoint = tmp_path / "tae.safetensors"
    checkpoint.write_bytes(b"weights")
    given = {"overrides": f"--tae.tae_checkpoint {checkpoint}"}
    training, evaluation = open_section("tae_training", given), open_section("tae_evaluation", given)
    for name in ("tae-image", "tae-opl-off", "tae-opl-on"):
        assert training.launch(name) is None
        finished(evaluation.params, name)
    made = finished(evaluation.params, "tae-mixkit")
    assert len(shown) == 3
    assert training.launch("tae-mixkit") == made
    assert evaluation.tae_runs() == {"tae-image": None, "tae-opl-off": None, "tae-opl-on": None, "tae-mixkit": made}


def test_what_was_edited_since_is_looked_at_when_a_notebook_is_opened(tmp_path):
    folder = tmp_path / "latents"
    folder.mkdir()
    given = {"stage": 2, "overrides": f"--stages.2.dataset.tae_latent_folder {folder}"}
    names = []
    for content in (b"one", b"another", b"one"):
        (folder / "clip.npz").write_bytes(content)
        names.append(runs.find(open_section("training", given).params, "stage2").name)
    assert names[0] != names[1]
    assert names[0] == names[2]
