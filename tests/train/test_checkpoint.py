import errno
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from moviegen import config
from moviegen.config import ConfigError, Save
from moviegen.device.world import World
from moviegen.parallel import zero as zero_module
from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import CheckpointError
from moviegen.train.checkpoint import Checkpoint, Checkpoints, NoSpaceError, Part
from tests.train.conftest import parts_of

ROOT = Path(__file__).parents[2]


def saved(checkpoints, step, loss=1.0):
    """Saves one of a step."""
    made = checkpoint(step, loss)
    return checkpoints.save(step, parts_of(made.files), made.state)


def checkpoint(step, loss=1.0):
    weights = {"a.weight": np.full((2, 3), step, np.float32), "b": np.arange(4, dtype=np.float32)}
    optimizer = {"updates": np.array(step, np.float32), "moment1.b": np.ones(4, np.float32)}
    state = {"rate": {"scale": 0.5, "best": None, "waited": step}, "validation_loss": loss}
    return Checkpoint(step, {"weights": weights, "optimizer": optimizer}, state)


@pytest.fixture
def three(tmp_path):
    """Steps 2, 4 and 10: the order of numbers is not that of their digits."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", Save(keep=5))
    for step in (2, 4, 10):
        saved(checkpoints, step)
    return checkpoints


def steps(checkpoints):
    return sorted(int(folder.name.removeprefix("step-")) for folder in checkpoints.folder.iterdir())


def test_latest_is_the_newest_and_whole(three):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        latest = three.latest()
    wanted = checkpoint(10)
    assert (latest.step, latest.state["rate"]) == (10, wanted.state["rate"])
    assert latest.files.keys() == wanted.files.keys()
    for kind, saved in wanted.files.items():
        loaded = latest.files[kind]
        assert loaded.keys() == saved.keys()
        for name, array in saved.items():
            assert np.asarray(loaded[name]).dtype == array.dtype
            np.testing.assert_array_equal(loaded[name], array)


def test_a_checkpoint_is_not_held_in_memory(tmp_path):
    """Each array is read in its turn: the state of a large model is many times a rank's memory."""
    checkpoints, arrays = Checkpoints(tmp_path, Save()), {str(i): np.ones(2**18, np.float32) for i in range(20)}
    checkpoints.save(1, parts_of({"weights": arrays}), {})
    tracemalloc.start()
    held = checkpoints.latest().files["weights"]
    for name in arrays:
        assert np.asarray(held[name]).sum() == 2**18
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 2**20 <= peak < 4 * 2**20  # one array of a MiB, or two; not twenty


def test_nothing_saved_is_none(tmp_path):
    assert Checkpoints(tmp_path / "absent", Save(keep=1)).latest() is None


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, Save(keep=2))
    for step in (1, 2, 3, 20):
        saved(checkpoints, step)
    assert steps(checkpoints) == [3, 20]


def test_saving_a_step_again_replaces_it(three):
    three.make_way(10)
    three.save(10, parts_of({"weights": {"b": np.zeros(1, np.float32)}}), {})
    assert three.latest().files["weights"].keys() == {"b"}
    assert steps(three) == [2, 4, 10]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "damage"), [
    ("rank-0000.safetensors", truncate), ("state.json", truncate), ("rank-0000.safetensors", flip),
    ("rank-0000.safetensors", lambda path: path.unlink()),
])  # fmt: skip
def test_damaged_newest_is_named_and_passed_over(three, name, damage):
    damage(three.folder / "step-000010" / name)
    with pytest.warns(UserWarning, match="step-000010 is damaged"):
        latest = three.latest()
    assert latest.step == 4
    np.testing.assert_array_equal(latest.files["weights"]["a.weight"], checkpoint(4).files["weights"]["a.weight"])


def test_all_damaged_is_none_after_a_warning_each(three):
    for state in three.folder.glob("step-*/state.json"):
        state.write_text(json.dumps({"step": 1}))
    with pytest.warns(UserWarning) as warned:
        assert three.latest() is None
    assert len(warned) == 3


def test_a_save_that_was_cut_short_is_ignored_and_can_be_repeated(three):
    unfinished = three.folder / "step-000012"
    unfinished.mkdir()
    (unfinished / "rank-0001.safetensors").write_bytes(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert three.latest().step == 10
    three.sweep()
    assert not unfinished.exists()
    saved(three, 12)
    assert three.latest().step == 12


def test_top_k_keeps_the_best_and_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, Save(keep=2, ckpt_save_policy="top_k"))
    kept = []
    for step, loss in ((1, 0.5), (2, 0.9), (3, 0.4), (4, 0.8), (5, 0.6), (6, 0.1)):
        saved(checkpoints, step, loss)
        kept.append(steps(checkpoints))
    assert kept == [[1], [1, 2], [1, 3], [1, 3, 4], [1, 3, 5], [3, 6]]
    assert checkpoints.latest().step == 6


def test_a_checkpoint_without_validation_goes_before_any_with(tmp_path):
    checkpoints = Checkpoints(tmp_path, Save(keep=1, ckpt_save_policy="top_k"))
    for step, loss in ((1, None), (2, 0.9), (3, 1.2)):
        saved(checkpoints, step, loss)
    assert steps(checkpoints) == [2, 3]


def test_a_full_disk_stops_clearly_and_leaves_the_other_checkpoints(three):
    """Files of this process may not grow past a limit, as on a full disk; the error is the system's own."""
    program = (
        "import resource, signal, sys; from pathlib import Path; import moviegen; from moviegen.config import Save;"
        "from moviegen.train.checkpoint import Checkpoints; from tests.train.test_checkpoint import saved;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "saved(Checkpoints(Path(sys.argv[1]), Save(keep=1)), 12)"
    )
    done = subprocess.run(
        (sys.executable, "-c", program, str(three.folder)), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "NoSpaceError: cannot write the checkpoint of step 12" in done.stderr
    assert "make room there" in done.stderr
    assert steps(three) == [2, 4, 10]
    assert three.latest().step == 10


@pytest.mark.parametrize("policy", ["latest_k", "top_k"])
def test_training_that_went_back_past_a_damaged_checkpoint_keeps_what_it_saves_next(tmp_path, policy):
    checkpoints = Checkpoints(tmp_path, Save(keep=1, ckpt_save_policy=policy))
    saved(checkpoints, 8, loss=0.1)  # the best, but for the damage
    truncate(tmp_path / "step-000008" / "rank-0000.safetensors")
    for step in (4, 6):
        saved(checkpoints, step)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert checkpoints.latest().step == step
    assert steps(checkpoints) == ([6] if policy == "latest_k" else [4, 6])


def test_what_is_not_named_like_a_checkpoint_is_left_alone(three):
    for name in ("step-000012.old", "step-12", "step-best"):
        (three.folder / name).mkdir()
    assert three.latest().step == 10
    saved(three, 12)
    assert three.latest().step == 12
    assert (three.folder / "step-000012.old").is_dir()


def test_a_state_that_was_changed_is_damaged(three):
    state = three.folder / "step-000010" / "state.json"
    state.write_text(state.read_text().replace('"waited": 10', '"waited": 11'))
    with pytest.warns(UserWarning, match="state.json does not match its checksum"):
        assert three.latest().step == 4


def test_an_error_that_is_not_a_full_disk_keeps_its_own_words(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(OSError, match=r"exists|directory") as caught:
        saved(Checkpoints(tmp_path / "checkpoints", Save()), 12)
    assert not isinstance(caught.value, NoSpaceError)


def ends_at_call(number):
    """Ends this process, as SIGKILL would, as it is about to do its `number`-th change to the disk."""
    left = itertools.count(number, -1)
    for name in ("mkdir", "replace", "fsync", "unlink", "rmdir"):
        real = getattr(os, name)

        def counted(*arguments, real=real, **options):
            if next(left) == 0:
                os._exit(9)
            return real(*arguments, **options)

        setattr(os, name, counted)


def killed_save(checkpoints, step, number):
    """Whether a save in a process of its own was cut short at its `number`-th change to the disk."""
    child = os.fork()
    if child == 0:
        ends_at_call(number)
        checkpoints.sweep()
        checkpoints.make_way(step)
        saved(checkpoints, step)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("has_damaged", [False, True])
def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint_to_go_on_from(tmp_path, has_damaged):
    """Steps 2, 4 and 10, of which a save of step 12 keeps one; there may be a damaged one of that step."""
    found = []
    for number in itertools.count():
        checkpoints = Checkpoints(tmp_path / str(number), Save(keep=3))
        for step in (2, 4, 10, *([12] if has_damaged else [])):
            saved(checkpoints, step)
        if has_damaged:
            truncate(checkpoints.folder / "step-000012" / "rank-0000.safetensors")
        checkpoints.keep = 2
        was_killed = killed_save(checkpoints, 12, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(checkpoints.latest().step)
        for step in checkpoints.steps():
            left = set(os.listdir(checkpoints.path(step)))
            assert left == {"rank-0000.safetensors", "rank-0000.sha256", "state.json"}
        checkpoints.sweep()  # resumed training comes to that step again
        checkpoints.make_way(12)
        saved(checkpoints, 12)
        assert steps(checkpoints) == [10, 12]
        assert checkpoints.latest().step == 12
        if not was_killed:
            break
    assert len(found) > 12
    assert found == sorted(found)  # once the new one is there it stays
    assert set(found) == {10, 12}


@pytest.mark.parametrize(
    ("save", "frequency"), [("train.save", "valid.frequency"), ("tae.video.save", "tae.video.validation_interval")]
)
def test_the_best_are_ranked_by_their_own_validation_only(save, frequency):
    changes = {f"{save}.ckpt_save_policy": "top_k", f"{save}.interval": 6}
    config.load("smoke", changes | {frequency: 3})
    with pytest.raises(ConfigError, match=r"save.interval 6 is not a multiple of the 4 steps between"):
        config.load("smoke", changes | {frequency: 4})
    config.load("smoke", changes | {frequency: 4, f"{save}.ckpt_save_policy": "latest_k"})


# ---- several ranks


class Weights(nn.Cell):
    """Of 15, 5, 1 and 8 numbers: ranks have unequal parts of some, and none of one."""

    def __init__(self):
        super().__init__()
        for name, shape in {"a": (3, 5), "b": (5,), "c": (1,), "d": (2, 2, 2)}.items():
            setattr(self, name, ms.Parameter(ms.Tensor(np.random.default_rng(len(shape)).random(shape, np.float32))))


def zero_of(stage, rank, ranks, monkeypatch):
    """What a rank holds, in a process that is in no job: nothing is gathered."""
    monkeypatch.setattr(zero_module, "GatherOnHost", lambda: None)
    return Zero(Weights(), stage, World(rank, ranks))


def parts_held(zero):
    """Of the weights, as the training state writes them."""
    for name, master in zero.masters.items():
        start, values = zero.written(name, master.asnumpy())
        if values.size:
            yield Part(f"weights/{name}", zero.shapes[name], start, values)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("saving", [1, 2, 3, 7])
def test_what_n_ranks_write_once_together_m_ranks_read_by_intervals(saving, stage, tmp_path, monkeypatch):
    wholes = {name: weight.asnumpy() for name, weight in Weights().parameters_and_names()}
    for rank in reversed(range(saving)):  # rank 0 commits when all are there
        zero = zero_of(stage, rank, saving, monkeypatch)
        Checkpoints(tmp_path, Save(), zero.world).save(1, parts_held(zero), {})
    latest = Checkpoints(tmp_path, Save()).latest()
    assert {name: np.asarray(array).tobytes() for name, array in latest.files["weights"].items()} == {
        name: whole.tobytes() for name, whole in wholes.items()
    }
    pieces = [piece for array in latest.files["weights"].values() for _, piece in array.pieces]
    assert sum(piece.shape[0] for piece in pieces) == sum(whole.size for whole in wholes.values())
    for ranks, other in itertools.product((1, 2, 4), (0, 3)):
        for rank in range(ranks):
            zero = zero_of(other, rank, ranks, monkeypatch)
            for name, master in zero.masters.items():
                assert zero.held(latest.files["weights"][name]).tobytes() == master.asnumpy().tobytes()


def test_ranks_write_about_as_much_each_also_of_what_all_hold(tmp_path, monkeypatch):
    for stage in (0, 2):
        sizes = [
            sum(part.values.size for part in parts_held(zero_of(stage, rank, 4, monkeypatch))) for rank in range(4)
        ]
        assert sum(sizes) == 29
        assert max(sizes) == 4 + 2 + 1 + 2  # a quarter of each array, rounded up
        assert min(sizes) == 3 + 0 + 0 + 2


def test_an_interval_is_read_without_the_rest(tmp_path):
    whole = np.random.default_rng(0).random((7, 11), np.float32)
    for rank, (start, stop) in reversed(list(enumerate(((0, 20), (20, 21), (21, 77))))):
        part = Part("weights/a", whole.shape, start, whole.reshape(-1)[start:stop])
        Checkpoints(tmp_path, Save(), World(rank, 3)).save(1, [part], {})
    stored = Checkpoints(tmp_path, Save()).at(1).files["weights"]["a"]
    (tmp_path / "step-000001" / "rank-0002.safetensors").unlink()
    for start, stop in itertools.combinations_with_replacement(range(22), 2):
        np.testing.assert_array_equal(stored.interval(start, stop), whole.reshape(-1)[start:stop])
    with pytest.raises(ConfigError, match=r"cannot read .*rank-0002"):
        stored.interval(20, 22)


def test_nothing_is_committed_until_every_rank_has_said_all_of_its_checksum(tmp_path):
    ranks = [Checkpoints(tmp_path, Save(), World(rank, 2)) for rank in (0, 1)]
    saved(ranks[1], 2)
    said = tmp_path / "step-000002" / "rank-0001.sha256"
    content = said.read_text()
    said.write_text(content[:-1])  # on its way
    ranks[0].silence = 0.5
    with pytest.raises(CheckpointError, match=r"rank-0001.safetensors did not grow .*all hosts must share"):
        saved(ranks[0], 2)
    assert ranks[0].steps() == []
    said.write_text(content)
    saved(ranks[0], 2)
    assert ranks[0].steps() == [2]


def test_every_rank_checks_its_share_and_all_together_everything(tmp_path):
    for rank in reversed(range(5)):
        saved(Checkpoints(tmp_path, Save(), World(rank, 5)), 1)
    checkpoints = Checkpoints(tmp_path, Save())
    for damaged in range(5):
        path = tmp_path / "step-000001" / f"rank-{damaged:04d}.safetensors"
        flip(path)
        found = []
        for rank in range(2):
            try:
                checkpoints.check(1, World(rank, 2))
            except CheckpointError as error:
                found.append((rank, str(error)))
        assert found == [(damaged % 2, f"{path.name} does not match its checksum")]
        flip(path)


# ---- file systems


def test_what_cannot_be_deleted_ends_nothing_and_goes_later(tmp_path, monkeypatch):
    """NFS keeps a deleted file that is still read as `.nfs...`: its folder is not empty."""
    checkpoints, rmdir = Checkpoints(tmp_path, Save(keep=1)), os.rmdir
    saved(checkpoints, 1)

    def busy(path, **options):
        raise OSError(errno.ENOTEMPTY, "Directory not empty", path)

    monkeypatch.setattr(os, "rmdir", busy)
    saved(checkpoints, 2)
    assert checkpoints.path(1).is_dir() and checkpoints.steps() == [2]
    checkpoints.sweep()
    assert checkpoints.latest().step == 2
    monkeypatch.setattr(os, "rmdir", rmdir)
    saved(checkpoints, 3)
    assert steps(checkpoints) == [3]


def test_where_nothing_can_be_renamed_the_commit_file_decides(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "replace", refused)
    checkpoints = Checkpoints(tmp_path, Save())
    for step in (1, 2):
        saved(checkpoints, step)
    assert checkpoints.latest().step == 2
    content = (checkpoints.path(2) / "state.json").read_text()
    for length in (0, 1, len(content) // 2, len(content) - 3):  # as far as it was copied
        (checkpoints.path(2) / "state.json").write_text(content[:length])
        with pytest.warns(UserWarning, match="step-000002 is damaged"):
            assert checkpoints.latest().step == 1


def test_files_say_their_checksums_as_sha256sum_does(three):
    done = subprocess.run(("sha256sum", "-c", "rank-0000.sha256"), cwd=three.path(10), capture_output=True, check=False)
    assert done.stdout == b"rank-0000.safetensors: OK\n"
