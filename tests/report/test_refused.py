"""A notebook starts nothing that cannot fit its cards."""

import pytest

from moviegen.config import ConfigError
from moviegen.report import notebook
from moviegen.report.notebook import open_section
from tests.report.making import ready

TIGHT = (
    "--launch.device Ascend --launch.card ascend-910b --launch.max_device_memory 1GB --launch.worker_num 8 "
    "--launch.local_worker_num 8 --stages.2.train.worker_num null --stages.3.train.worker_num null "
    "--stages.1.dataloader.batch_size.image_batch_size 4096"
)


@pytest.fixture
def on_cards(monkeypatch):
    """The runs that are started on a machine with eight cards."""
    started = []
    monkeypatch.setattr("moviegen.device.accelerators", lambda: 8)
    monkeypatch.setattr(notebook, "run_job", lambda job, on_progress: started.append(job.run))
    monkeypatch.setattr(notebook, "display", lambda shown: None)
    return started


def test_what_cannot_fit_is_not_started(on_cards):
    with pytest.raises(ConfigError, match=r"stage1 on ascend-910b does not fit: .* nearest that fits: .*--force"):
        open_section("training", {"stage": 1, "overrides": TIGHT}).launch("stage1")
    assert not on_cards


def test_it_is_started_where_somebody_insists(on_cards):
    overrides = f"{TIGHT} --launch.force true"
    section = ready(open_section("training", {"stage": 1, "overrides": overrides}), "stage1")
    with pytest.raises(RuntimeError, match="did not finish"):  # our job computes nothing
        section.launch("stage1")
    assert len(on_cards) == 1


def test_of_programs_that_share_graphs_none_is_started_if_one_cannot_fit(on_cards):
    overrides = f"{TIGHT} --tae.mixkit.batch_size 64"
    with pytest.raises(ConfigError, match="tae-mixkit on ascend-910b does not fit"):
        open_section("tae_training", {"overrides": overrides}).compute_together("tae-opl-off", "tae-mixkit")
    assert not on_cards


def test_where_there_are_no_cards_it_is_shown_and_not_refused(on_cards, monkeypatch):
    monkeypatch.setattr("moviegen.device.accelerators", lambda: 0)
    assert open_section("training", {"stage": 1, "overrides": TIGHT}).launch("stage1") is None
    assert not on_cards
