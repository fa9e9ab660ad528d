"""The environment is prepared before MindSpore loads, and the fast convolution is the one that runs."""

import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import pytest

from moviegen import config, device
from moviegen.__main__ import main

CONVOLUTION = """
import {first}
import mindspore as ms, numpy as np
net = ms.nn.Conv2d(32, 32, 3, pad_mode="pad", padding=1)
net(ms.Tensor(np.ones((1, 32, 16, 16)), ms.float32)).asnumpy()
"""
COUNT_ON_A_HOST_WITH_CARDS = """
import os, sys
from moviegen import device
device.accelerators = lambda: 8
del os.environ["ONEDNN_MAX_CPU_ISA"]  # nothing sets it where a card is seen first
from moviegen.__main__ import main
status = main(["count", "--config", "smoke", "--launch.device", sys.argv[1], "--launch.operators", sys.argv[2]])
import mindspore as ms
print("status", status, ms.get_context("device_target"), os.environ.get("ONEDNN_MAX_CPU_ISA"))
"""
COUNT = """
import os, sys
from moviegen.__main__ import main
status = main(["count", "--config", "smoke", "--launch.operators", sys.argv[1]])
print(status, "mindspore" in sys.modules, os.environ.get("ONEDNN_MAX_CPU_ISA"))
"""
SET_HERE = ("ONEDNN_MAX_CPU_ISA", "MOVIEGEN_OPERATORS")
HAS_AVX512 = Path("/proc/cpuinfo").exists() and "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def run_python(folder, code, *arguments, **environment):
    """Runs a file (MindSpore compiles no code from `-c`) without what this process has set."""
    script = folder / "script.py"
    script.write_text(code)
    kept = {name: value for name, value in os.environ.items() if name not in SET_HERE}
    return subprocess.run([sys.executable, script, *arguments], env=kept | environment, capture_output=True, text=True)


def implementations(output):
    return {line.split(",")[6] for line in output.splitlines() if ",exec," in line and ",convolution," in line}


@pytest.mark.skipif(device.target() != "CPU", reason="only CPU needs it")
def test_importing_moviegen_chooses_fast_convolutions_and_keeps_the_users_choice(tmp_path):
    code = "import moviegen, os; print(os.environ['ONEDNN_MAX_CPU_ISA'])"
    assert run_python(tmp_path, code).stdout.strip() == "AVX2"
    assert run_python(tmp_path, code, ONEDNN_MAX_CPU_ISA="AVX512_CORE").stdout.strip() == "AVX512_CORE"


@pytest.mark.skipif(not HAS_AVX512, reason="this CPU has no AVX-512, so nothing is slow without the setting")
def test_convolutions_run_on_a_real_kernel_and_would_not_without_the_setting(tmp_path):
    ours = run_python(tmp_path, CONVOLUTION.format(first="moviegen"), ONEDNN_VERBOSE="1")
    default = run_python(tmp_path, CONVOLUTION.format(first="numpy"), ONEDNN_VERBOSE="1")
    assert implementations(ours.stdout), ours.stderr
    assert not any("ref" in name for name in implementations(ours.stdout))
    assert any("ref" in name for name in implementations(default.stdout)), "the control no longer needs the setting"


def test_a_recipe_for_cpu_runs_there_also_where_there_are_cards(tmp_path):
    done = run_python(tmp_path, COUNT_ON_A_HOST_WITH_CARDS, "CPU", "mindspore", MOVIEGEN_OUTPUTS=str(tmp_path))
    assert done.stdout.splitlines()[-1] == "status 0 CPU AVX2", done.stderr


@pytest.mark.parametrize(
    ("operators", "given", "mode"),
    [
        ("mindspore", {}, "AVX2"),
        ("compiled", {}, "None"),
        ("compiled", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "AVX2"),
        ("mindspore", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "AVX512_CORE"),
        ("auto", {"MOVIEGEN_OPERATORS": "compiled"}, "None"),
    ],
)
def test_onednn_is_limited_where_mindspore_convolves(tmp_path, operators, given, mode):
    done = run_python(tmp_path, COUNT, operators, MOVIEGEN_OUTPUTS=str(tmp_path), **given)
    assert done.stdout.splitlines()[-1] == f"0 True {mode}", done.stderr


@pytest.mark.parametrize(
    ("cards", "recipe", "target"), [(8, "CPU", "CPU"), (8, "Ascend", "Ascend"), (0, "CPU", "CPU"), (0, "Ascend", "CPU")]
)
def test_the_target_is_the_recipes_where_the_machine_has_it(monkeypatch, cards, recipe, target):
    monkeypatch.setattr(device, "accelerators", lambda: cards)
    monkeypatch.setenv(device.CHOICE, "")  # so that it is put back
    device.choose(recipe)
    assert device.target() == target


@pytest.mark.parametrize(
    "words",
    [
        "train --stage 2",
        "tae train --phase image",
        "tae evaluate",
        "tae export --output tae.safetensors",
        "text encode",
        "text encode --captions prompts.txt",
        "precompute",
        "sample",
        "sample --prompts prompts.txt --dit dit.safetensors --tae tae.safetensors",
        "schedule-error",
        "retrieval",
        "count",
        "step",
    ],
)
def test_every_program_starts_the_device_as_its_parameters_say(monkeypatch, tmp_path, words):
    class Started(Exception):
        pass

    def start(seed, launch=None):
        raise Started(seed, launch.jit_level, launch.max_device_memory)

    monkeypatch.setattr(device, "start", start)
    monkeypatch.setenv(device.CHOICE, "")  # so that it is put back
    (tmp_path / "prompts.txt").write_text("a dog")
    words = [str(tmp_path / word) if "." in word else word for word in words.split()]
    with pytest.raises(Started, match=r"\(42, 'O0', '30GB'\)"):
        main([*words, "--config", "smoke", "--launch.jit_level", "O0", "--launch.max_device_memory", "30GB"])


def test_a_card_is_started_with_them(monkeypatch):
    told = []
    monkeypatch.setattr(device, "target", lambda: "Ascend")
    monkeypatch.setattr(ms, "set_device", told.append)
    monkeypatch.setattr(ms, "set_context", lambda **settings: told.append(settings))
    monkeypatch.setattr(ms.runtime, "set_memory", lambda **settings: told.append(settings))
    params = config.load("smoke", {"launch.jit_level": "O0", "launch.max_device_memory": "30GB"})
    device.start(1, params.launch)
    wanted = [{"mode": ms.GRAPH_MODE}, "Ascend", {"jit_config": {"jit_level": "O0"}}, {"max_size": "30GB"}]
    assert told == wanted


def test_a_card_adds_in_one_order_where_that_is_asked_for(monkeypatch):
    told = []
    monkeypatch.setattr(device, "target", lambda: "Ascend")
    for place, name in ((ms, "set_device"), (ms, "set_context"), (ms.runtime, "set_memory")):
        monkeypatch.setattr(place, name, lambda *words, **settings: None)
    monkeypatch.setattr(ms, "set_deterministic", lambda wanted: told.append((wanted, dict(os.environ))))
    for name in device.DETERMINISTIC_ENVIRONMENT:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    device.start(1, config.load("smoke").launch)
    assert told == []
    device.start(1, config.load("smoke", {"launch.deterministic": True}).launch)
    ((wanted, environment),) = told
    assert wanted
    assert environment["HCCL_DETERMINISTIC"] == "true"
    assert environment["LCCL_DETERMINISTIC"] == environment["TE_PARALLEL_COMPILER"] == "1"


def test_what_a_user_has_set_of_it_is_left_out_as_no_fingerprint_would_know():
    set_by_user = {"HCCL_DETERMINISTIC": "true", "LCCL_DETERMINISTIC": "1", "HCCL_CONNECT_TIMEOUT": "7200"}
    assert device.environment.leftovers(set_by_user, in_job=True) == ["HCCL_DETERMINISTIC", "LCCL_DETERMINISTIC"]


@pytest.mark.parametrize(("recipe", "noted"), [("Ascend", True), ("CPU", False)])
def test_a_recipe_for_cards_that_a_cpu_computes_is_noted(monkeypatch, capsys, recipe, noted):
    monkeypatch.setattr(device, "accelerators", lambda: 0)
    monkeypatch.setenv(device.CHOICE, recipe)
    device.start(seed=1)
    assert ("this machine has no card: its CPU computes" in capsys.readouterr().err) == noted


def test_mindspore_imported_first_is_refused(tmp_path):
    result = run_python(tmp_path, "import mindspore\nimport moviegen")
    assert result.returncode == 1
    assert "mindspore was imported before moviegen" in result.stderr


def test_light_modules_do_not_load_mindspore(tmp_path):
    modules = "moviegen, moviegen.report.run, moviegen.report.notebook, moviegen.launch.run, moviegen.plan"
    result = run_python(tmp_path, f"import sys\nimport {modules}\nprint('mindspore' in sys.modules)")
    assert result.stdout.strip() == "False", result.stderr
