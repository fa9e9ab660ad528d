"""What another job, a trial or a dry run left in the environment changes no result; what a worker was told stays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moviegen.device.environment import leftovers

ROOT = Path(__file__).parents[2]
JOB = {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": "9", "RANK_ID": "1"}
STEP = """
import os, sys
if len(sys.argv) > 1:
    import moviegen
import mindspore as ms, numpy as np
from mindspore import nn
net = nn.Dense(2, 1, weight_init="ones", bias_init="zeros")
step = nn.TrainOneStepCell(net, nn.SGD(net.trainable_params(), 0.5))
ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")
print([float(step(ms.Tensor([[1.0, 2.0]]))) for _ in range(2)])
"""


def python(folder, code, *arguments, **environment):
    """Runs a file: MindSpore compiles no code from `-c`."""
    script = folder / "script.py"
    script.write_text(code)
    unwanted = leftovers(os.environ)
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment = inherited | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [sys.executable, script, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )


SWITCHES = {
    "MS_COMPILER_CACHE_ENABLE": "1", "MS_DEV_PRECOMPILE_ONLY": "1", "MS_JIT": "0", "MS_KERNEL_LAUNCH_SKIP": "all",
    "MS_SIMULATION_LEVEL": "1",
}  # fmt: skip
# 1 * 1 + 1 * 2 = 3; after half a step along the inputs and the bias: 0.5 * 1 + 0 * 2 - 0.5 = 0
LOSSES = "[3.0, 0.0]\n"


def test_no_switch_changes_a_training_step(tmp_path):
    done = python(tmp_path, STEP, "with moviegen", **SWITCHES)
    assert done.stdout == LOSSES
    assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == [
        f"note: left out of the environment, as no result may follow from it: {', '.join(SWITCHES)}"
    ]


@pytest.mark.whole_job
@pytest.mark.parametrize("switch", ["MS_KERNEL_LAUNCH_SKIP", "MS_SIMULATION_LEVEL"])
def test_without_moviegen_a_switch_changes_it(tmp_path, switch):
    assert python(tmp_path, STEP, **{switch: SWITCHES[switch]}).stdout != LOSSES


def test_a_program_does_not_wait_for_the_scheduler_of_a_job_that_is_over(tmp_path):
    code = "from moviegen.device.collectives import join_world\nprint(join_world())"
    done = python(tmp_path, code, **JOB)
    assert done.stdout == "World(rank=0, size=1)\n"
    assert all(name in done.stderr for name in JOB)


SHOW = "import json, os, moviegen\nprint(json.dumps(dict(os.environ)))"


@pytest.mark.parametrize("words", [["msrun", "--worker_num=2"], ["python", "-m", "mindspore.parallel.cluster.run"]])
def test_what_msrun_tells_its_worker_stays_also_below_a_script(tmp_path, words):
    (tmp_path / "shown.py").write_text(SHOW)
    inner = f"import subprocess, sys; subprocess.run([sys.executable, {str(tmp_path / 'shown.py')!r}], check=True)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    if words[0] == "msrun":
        (tmp_path / "msrun").write_text(code)
        command = [sys.executable, tmp_path / "msrun", *words[1:]]
    else:
        command = [sys.executable, "-c", code, *words[1:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | JOB | {"MS_SIMULATION_LEVEL": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    shown = json.loads(done.stdout)
    assert JOB.items() <= shown.items(), done.stderr
    assert "MS_SIMULATION_LEVEL" not in shown


def test_what_says_how_cards_compute_and_what_is_logged_stays():
    ours = ("ASCEND_RT_VISIBLE_DEVICES", "HCCL_IF_BASE_PORT", "GLOG_v", "MS_SUBMODULE_LOG_v", "MS_MEMORY_STATISTIC",
            "MS_DEV_ENABLE_KERNEL_PACKET", "MS_DEV_SAVE_GRAPHS", "MS_DEV_SAVE_GRAPHS_PATH", "MS_CPU_COMM_OP_TIMEOUT",
            "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "PYTHONPATH", "ms_role")  # fmt: skip
    assert leftovers(dict.fromkeys((*ours, "MS_DEV_JIT_SYNTAX_LEVEL", "MS_ROLE"), "")) == [
        "MS_DEV_JIT_SYNTAX_LEVEL",
        "MS_ROLE",
    ]
