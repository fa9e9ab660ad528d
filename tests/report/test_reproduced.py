"""Two reports that are the same but for their clocks are; one digit or one byte that differs is found and named."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pytest

from moviegen.config import ConfigError, outputs_folder
from moviegen.report import sections, verify
from tests.report.making import finished

METRICS = [
    {"kind": "state", "step": 0, "parameters": 8},
    {"kind": "validating", "step": 0},
    {"kind": "train", "step": 1, "loss": 0.1, "seconds": 1.5, "memory_bytes": 5},
]
COLUMNS = "<thead><tr><th>loss</th><th>s/step</th></tr></thead>"


def card(name, content):
    return f'<figure class="card" id="{name}">{content}</figure>'


def page(name, step):
    """A loss and a drawing that must be the same, and seconds that need not."""
    table = f"<table>{COLUMNS}<tbody><tr><td>0.127</td><td>{step}</td></tr></tbody></table>"
    shown = {
        "tae-training.html": card("terms", table)
        + card("terms-2", table.replace("0.127", "0.25"))
        + card("losses", '<svg d="M 0 0"></svg>'),
        "sampling.html": card("error_curves", f'<svg d="M {step} 0"></svg>'),
        "provenance.html": card("numbers", table.replace("s/step", "numbers")),
        "index.html": card("summary", table.replace("0.127", "sampling (s/clip)").replace("s/step", "value")),
    }
    return shown.get(name, "")


def write_report(folder, name, lines, seconds):
    """A report of one run and of pages that show its loss."""
    run = folder / "runs" / name
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "errors.csv").write_text(f"schedule,error,seconds\nlinear,0.25,{seconds}\n")
    (run / "summary.json").write_text(json.dumps({"prompts": 4, "seconds": {"sampling": seconds}}))
    (run / "weights.bin").write_bytes(b"\x00\x01")
    np.savez(run / "latent.npz", latent=np.float32([1, 2]), seconds=float(seconds))
    (run / "logs").mkdir()
    (run / "logs" / "worker_0.log").write_text(seconds)
    (folder / "html").mkdir()
    for section in sections.SECTIONS:
        (folder / "html" / section.page).write_text(page(section.page, seconds))
    return run


@pytest.fixture
def second(params, tmp_path_factory):
    """The run of a second report that took longer, and said once more that it was alive."""
    here = finished(params, "data", seconds=2, machine={"cpu": "a"})
    write_report(outputs_folder(params), here.name, METRICS, "2")
    folder = tmp_path_factory.mktemp("second") / params.scale
    later = [*METRICS[:2], METRICS[1], METRICS[2] | {"seconds": 2.5, "memory_bytes": 7}]
    run = write_report(folder, here.name, later, "3")
    shutil.copyfile(here.folder / "params.yaml", run / "params.yaml")
    manifest = json.loads((here.folder / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"seconds": 3, "machine": {"cpu": "b"}}))
    return run


def compared(params, run, capsys):
    """What is printed, and whether it failed."""
    try:
        verify.main(params, Namespace(against=str(run.parents[2])))
    except SystemExit as error:
        return capsys.readouterr().out + str(error), True
    return capsys.readouterr().out, False


def recorded(params):
    return json.loads((outputs_folder(params) / sections.COMPARISON).read_text())


def test_reports_that_differ_in_seconds_alone_are_the_same(params, second, capsys):
    printed, failed = compared(params, second, capsys)
    assert not failed
    # kind, step and loss; schedule and error; prompts; status; an array; two files
    assert f"{second.name}: 10 values, 0 pictures and clips, 0 not the same" in printed
    assert "provenance.html: 3 values, 0 pictures and clips, 0 not the same" in printed
    # of each of two tables its heads, and its loss
    assert "tae-training.html: 6 values, 1 pictures and clips, 0 not the same" in printed
    assert recorded(params)["runs"] == [second.name]
    assert (recorded(params)["pictures"], recorded(params)["differing"]) == (1, {})


def test_the_last_digit_a_byte_a_file_or_a_picture_that_differs_is_named(params, second, capsys):
    site = second.parents[1] / "html"
    for path, old, new, said in (
        (second / "metrics.jsonl", "0.1,", "0.10000000000000002,", "metrics.jsonl, loss: 0.1 here, 0.1000"),
        (second / "errors.csv", "0.25", "0.250", "errors.csv, error: '0.25' here, '0.250' there"),
        (second / "summary.json", "4", "5", "summary.json, prompts: 4 here, 5 there"),
        (second / "weights.bin", "\x01", "\x02", "weights.bin: "),
        (second / "params.yaml", "seed: 42", "seed: 43", "params.yaml: "),
        (site / "tae-training.html", "0.25", "0.26", "tae-training.html#terms-2, cell 3: 0.25 here, 0.26 there"),
        (site / "tae-training.html", "M 0 0", "M 0 1", "tae-training.html#losses, picture 1, svg: "),
    ):
        before = path.read_text()
        assert before.count(old) == 1
        path.write_text(before.replace(old, new))
        printed, failed = compared(params, second, capsys)
        assert failed and said in printed, said
        assert list(recorded(params)["differing"].values()) == [1]
        path.write_text(before)
    np.savez(second / "latent.npz", latent=np.nextafter(np.float32([1, 2]), 2, dtype=np.float32), seconds=3.0)
    assert "latent.npz, latent: float32 (2,) " in compared(params, second, capsys)[0]
    (second / "weights.bin").unlink()
    assert "weights.bin: " in compared(params, second, capsys)[0]
    (site / "data.html").unlink()
    assert f"{site / 'data.html'} is not there" in compared(params, second, capsys)[0]
    shutil.rmtree(second)
    assert f"{second} is not there" in compared(params, second, capsys)[0]


def test_a_folder_without_a_report_is_refused(params, tmp_path):
    with pytest.raises(ConfigError, match=r"--against .*: no report of tiny is published there"):
        verify.main(params, Namespace(against=str(tmp_path / "none")))
