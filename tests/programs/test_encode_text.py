"""`text encode`: which captions, the files it leaves, shares of ranks, resumption, files of captions."""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.data.embeddings import caption_file, check_origins, read_embeddings
from moviegen.device.world import World
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.programs import encode_text
from moviegen.programs.encode_text import encode_captions, encode_run, encode_share, main, missing, read_captions
from moviegen.runs import patience
from moviegen.text.encoders import Pretrained, encoders, origins
from tests import small_runs
from tests.text.making import write_byt5, write_metaclip, write_ul2

ROOT = Path(__file__).parents[2]
CAPTIONS = ("a red car turns left", "a dog", "Ein Bär läuft")


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))


@pytest.fixture
def stand_ins():
    return {encoder.name: encoder for encoder in encoders(config.load("smoke"))}


@pytest.fixture
def text_run():
    """A text run, not yet done, over a data run of three captions, one of them in both splits."""
    params, (first, *others) = config.load("smoke"), CAPTIONS
    small_runs.write_data(params, [first, others[0], first, others[1]])
    return runs.find(params, "text")


@pytest.fixture
def encoded(text_run):
    """The same, done."""
    with runs.record(text_run):
        encode_run(text_run, World())
    return text_run


def embedding(encoder, caption):
    return next(encoder.encode([caption]))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.npz"))


def halved(values):
    """As they lie in a cache."""
    return values.astype(np.float16).astype(np.float32)


def listed(folder):
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(dict.fromkeys(row["name"] for row in csv.DictReader(file)))


# --- a run ---


def test_every_caption_and_the_empty_one_are_encoded_once(encoded):
    assert listed(encoded.folder) == ["", *sorted(CAPTIONS)]
    names = {caption_file(encoded.folder, "ul2", caption).name for caption in ("", *CAPTIONS)}
    assert len(names) == 4
    for encoder in config.TEXT_ENCODERS:
        assert {path.name for path in (encoded.folder / encoder).iterdir()} == names


def test_paraphrases_are_encoded_as_captions_are():
    params = config.load("smoke")
    small_runs.write_data(params, ["a dog", "a cat"], {"a cat": "some feline"})
    with runs.record(runs.find(params, "text")) as run:
        encode_run(run, World())
    assert listed(run.folder) == ["", "a cat", "a dog", "some feline"]
    for name in params.text.encoders:
        assert caption_file(run.folder, name, "some feline").is_file()


def test_an_encoder_that_is_left_out_encodes_nothing(stand_ins):
    params = config.load("smoke", {"text.ul2": None, "text.byt5": None})
    small_runs.write_data(params, list(CAPTIONS))
    with runs.record(runs.find(params, "text")) as run:
        encode_run(run, World())
    assert {path.partition("/")[0] for path in files(run.folder)} == {"metaclip"}
    (given, mask) = read_embeddings(run.folder, list(CAPTIONS), params.text)
    assert given.shape == (3, 16, 48) and mask.shape == (3, 16)
    for row, caption in zip(given, CAPTIONS, strict=True):
        assert np.array_equal(row, halved(embedding(stand_ins["metaclip"], caption).text_emb))
    with (run.folder / "index.csv").open(newline="", encoding="utf-8") as file:
        assert all((run.folder / row["file"]).is_file() for row in csv.DictReader(file))


def test_loaded_embeddings_keep_the_order_asked_for(encoded, stand_ins):
    asked = [CAPTIONS[1], "", CAPTIONS[0], CAPTIONS[1]]
    *embeddings, keep = read_embeddings(encoded.folder, asked, encoded.params.text)
    assert [array.shape for array in embeddings] == [(4, 24, 64), (4, 16, 48), (4, 32, 32)]
    assert keep.shape == (4, 24 + 16 + 32)
    for array, encoder in zip(embeddings, stand_ins.values(), strict=True):
        assert np.array_equal(array, np.stack([halved(embedding(encoder, caption).text_emb) for caption in asked]))
    masks = [np.concatenate([embedding(encoder, caption).mask for encoder in stand_ins.values()]) for caption in asked]
    assert np.array_equal(keep, np.stack(masks))


def test_files_hold_what_the_readme_of_the_cache_says(encoded, stand_ins):
    with np.load(caption_file(encoded.folder, "byt5", CAPTIONS[2]), allow_pickle=False) as file:
        assert set(file.files) == {"text_emb", "mask", "tokens"}
        one = embedding(stand_ins["byt5"], CAPTIONS[2])
        assert np.array_equal(file["tokens"], one.tokens[one.mask])
        assert np.array_equal(file["mask"], one.mask)
        assert np.array_equal(file["text_emb"], one.text_emb[one.mask].astype(np.float16))
        assert file["text_emb"].dtype == np.float16


def test_summary_says_who_made_them(encoded, stand_ins):
    summary = json.loads((encoded.folder / "summary.json").read_text())
    assert summary["captions"] == 4
    assert sum("stand-in" in line for line in summary["encoders"]) == 3
    for name, encoder in stand_ins.items():
        wanted = {"kind": "stand-in", "sha256": encoder.sha256(), "max_tokens": encoder.max_tokens}
        assert summary["origin"][name] == wanted


def test_the_runs_manifest_says_it_too(text_run, stand_ins):
    main(text_run.params, argparse.Namespace(captions=None, output=None))
    assert text_run.complete
    assert {name: made_by["sha256"] for name, made_by in text_run.manifest["encoders"].items()} == {
        name: encoder.sha256() for name, encoder in stand_ins.items()
    }
    assert text_run.manifest["encoders"] == json.loads((text_run.folder / "summary.json").read_text())["origin"]


def test_cut_run_keeps_what_it_has(encoded):
    path = caption_file(encoded.folder, "ul2", "")
    kept = path.stat().st_mtime_ns
    lost = caption_file(encoded.folder, "ul2", CAPTIONS[0])
    lost.unlink()
    encode_run(encoded, World())
    assert lost.exists()
    assert path.stat().st_mtime_ns == kept


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("done", [0, 4])
def test_ranks_share_the_captions_that_are_left(tmp_path, size, done, stand_ins):
    captions = [f"caption {n}" for n in range(14)]
    chosen = list(stand_ins.values())
    before = {name: captions[: 2 * done : 2] for name in stand_ins}  # all of them of the first of two ranks
    encode_share(tmp_path, before, chosen, World())
    left = missing(tmp_path, captions, chosen)
    per_rank = []
    for rank in range(size):
        folder = tmp_path / str(rank)  # of its own: nothing another rank did is there
        encode_share(folder, left, chosen, World(rank, size))
        per_rank.append(files(folder))
    together = [file for share in (files(tmp_path), *per_rank) for file in share]
    wanted = [caption_file(tmp_path, name, caption) for name in stand_ins for caption in captions]
    assert sorted(together) == sorted(path.relative_to(tmp_path).as_posix() for path in wanted)
    assert max(map(len, per_rank)) - min(map(len, per_rank)) <= 3


def test_an_encoder_with_nothing_to_do_is_not_loaded(tmp_path, monkeypatch):
    pretrained = Pretrained("ul2", write_ul2(tmp_path / "ul2"))
    encode_share(tmp_path, {"ul2": ["", "a dog"]}, [pretrained], World())
    monkeypatch.setattr(Pretrained, "load", lambda self: pytest.fail("it was loaded"))
    left = missing(tmp_path, ["", "a dog"], [pretrained])
    encode_share(tmp_path, left, [pretrained], World())


def test_progress_is_told_caption_by_caption(tmp_path, bars_of):
    bars = bars_of(encode_text)
    encode_captions(tmp_path, CAPTIONS, config.load("smoke"), World())
    told = [(bar.desc.removeprefix("encoding captions: "), bar.total, bar.n) for bar in bars]
    assert told == [(name, 4, 4) for name in config.TEXT_ENCODERS]  # and the empty one


def test_a_run_counts_its_captions_over_all_encoders(encoded):
    """A notebook's bar follows these lines."""
    lines = [(line["step"], line["steps"], line["encoder"]) for line in encoded.metrics()]
    assert lines == [(step, 12, config.TEXT_ENCODERS[(step - 1) // 4]) for step in range(1, 13)]
    caption_file(encoded.folder, "byt5", CAPTIONS[0]).unlink()
    encode_run(encoded, World())  # one is left
    assert [(line["step"], line["steps"]) for line in encoded.metrics()] == [(1, 1)]


@pytest.mark.parametrize(("seconds", "is_refused"), [(1, False), (60, True)])
def test_a_run_that_would_take_too_long_stops_early(monkeypatch, seconds, is_refused):
    params = config.load("smoke", {"data.patience_hours": 1})
    small_runs.write_data(params, [f"caption {n}" for n in range(100)])
    run, now, write = runs.find(params, "text"), [0.0], encode_text.save_embedding

    def save(path, **arrays):
        now[0] += seconds
        return write(path, **arrays)

    monkeypatch.setattr(patience, "monotonic", lambda: now[0])
    monkeypatch.setattr(encode_text, "save_embedding", save)
    if not is_refused:
        encode_run(run, World())
        return
    with pytest.raises(
        ConfigError, match=r"encoding captions with ul2 takes 1\.6 hours more.*Set data\.max_clips to 54 "
    ):
        encode_run(run, World())
    assert now[0] < 10 * seconds


@pytest.mark.whole_job
def test_two_workers_write_what_one_writes_to_the_last_bit(tmp_path):
    """The two go on where a run was cut: a caption is already there, and stays as it is."""
    captions = ["a dog", "a red car turns left", "Ein Bär läuft", "x" * 20, "犬が走る"]
    path = written(tmp_path, "c.txt", "\n".join(captions))
    params, alone, shared = config.load("smoke"), tmp_path / "alone", tmp_path / "shared"
    encode_captions(alone, captions, params, World())
    encode_captions(shared, captions[1:2], params, World())
    kept = {file: (shared / file).stat().st_mtime_ns for file in files(shared)}
    words = ("text", "encode", "--config", "smoke", "--captions", str(path), "--output", str(shared))
    job = Job(
        command=("python", "-m", "moviegen", *words), log_dir=tmp_path / "logs", worker_num=2, local_worker_num=2,
        environment={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    run_job(job)
    assert files(shared) == files(alone)
    assert len(files(alone)) == 3 * 6
    for file in files(alone):
        assert (shared / file).read_bytes() == (alone / file).read_bytes()
    assert kept == {file: (shared / file).stat().st_mtime_ns for file in kept}
    for name in ("summary.json", "index.csv", "encoders.json"):
        assert (shared / name).read_bytes() == (alone / name).read_bytes()


# --- files of captions ---


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_captions_of_a_text_file(tmp_path):
    path = written(tmp_path, "c.txt", 'a dog\r\nEin Bär läuft\n\n"quoted", with a comma\n 犬が走る 🐕 \u2028 there\n')
    assert read_captions(path) == [
        "a dog", "Ein Bär läuft", "", '"quoted", with a comma', " 犬が走る 🐕 \u2028 there",
    ]  # fmt: skip
    assert read_captions(written(tmp_path, "no_end.txt", "a\nb")) == ["a", "b"]
    assert read_captions(written(tmp_path, "marked.txt", b"\xef\xbb\xbfa dog\n")) == ["a dog"]


def test_captions_of_a_csv_file(tmp_path):
    rows = 'video,caption\na.mp4,"he said ""no"", then\nleft"\nb.mp4,Ein Bär läuft\nc.mp4,\n'
    assert read_captions(written(tmp_path, "c.csv", rows)) == [
        'he said "no", then\nleft',
        "Ein Bär läuft",
        "",
    ]
    assert read_captions(written(tmp_path, "marked.csv", b"\xef\xbb\xbfcaption\na dog\n")) == ["a dog"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "video,text\na.mp4,a dog\n", r"lacks the columns \['caption'\]; it has \['video', 'text'\]"),
        ("c.csv", "", "c.csv is empty"),
        ("c.csv", "caption\n", "c.csv is empty"),
        ("c.csv", "video,caption\na.mp4,\n", "holds no captions"),
        ("c.csv", "caption\na dog, running\n", "line 2 has 2 fields and the header 1"),
        ("c.csv", "caption\nein B\xe4r\n".encode("cp1252"), "c.csv, line 2: byte 0xe4 is not utf-8"),
        ("c.txt", "", "holds no captions"),
        ("c.txt", "\n\n", "holds no captions"),
        ("c.txt", b"\xff\xfe\x00", "cannot read .*c.txt"),
        ("c.json", "[]", "read from .csv and .txt"),
    ],
)
def test_file_of_captions_that_cannot_be_used(tmp_path, name, content, message):
    with pytest.raises(ConfigError, match=message):
        read_captions(written(tmp_path, name, content))


def test_missing_file_of_captions(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none.txt"):
        read_captions(tmp_path / "none.txt")


def pretrained_params(folder):
    """Small encoders of all three kinds in a folder, and the parameters that name them."""
    overrides = {}
    for name, write in (("ul2", write_ul2), ("metaclip", write_metaclip), ("byt5", write_byt5)):
        setting = write(folder / name)
        overrides |= {f"text.{name}.{key}": value for key, value in setting.model_dump().items()}
    return config.load("smoke", overrides)


def test_a_file_through_pretrained_encoders(tmp_path, monkeypatch):
    params = pretrained_params(tmp_path)
    path = written(tmp_path, "c.txt", "a red dog\n\na red dog\n犬\n")
    options = argparse.Namespace(captions=str(path), output=str(tmp_path / "out"))
    main(params, options)
    assert listed(tmp_path / "out") == ["", "a red dog", "犬"]
    assert len(files(tmp_path / "out")) == 9
    *embeddings, keep = read_embeddings(tmp_path / "out", ["犬", ""], params.text)
    assert [array.shape for array in embeddings] == [(2, 8, 16), (2, 10, 16), (2, 20, 12)]
    assert keep.sum(1).tolist() == [2 + 3 + 4, 1 + 2 + 1]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [summary["origin"][name]["kind"] for name in config.TEXT_ENCODERS] == ["t5", "clip", "t5"]
    monkeypatch.setattr(Pretrained, "load", lambda self: pytest.fail("everything was there"))
    main(params, options)


def test_a_file_without_a_folder_gets_one_of_its_own(tmp_path, monkeypatch, capsys):
    """Named after its captions, whatever their order, and after the encoders, so that none is overwritten."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))

    def encoded(captions, params):
        path = written(tmp_path, "c.txt", captions)
        main(params, argparse.Namespace(captions=str(path), output=None))
        return Path(capsys.readouterr().out.splitlines()[-1])

    smoke = config.load("smoke")
    folder = encoded("a dog\n犬\n", smoke)
    assert folder.parent == tmp_path / "smoke" / "embeddings"
    assert listed(folder) == ["", "a dog", "犬"]
    check_origins(folder, origins(encoders(smoke)))
    assert encoded("犬\na dog\n犬\n", smoke) == folder
    others = [encoded("a cat\n", smoke), encoded("a dog\n犬\n", config.load("smoke", {"seed": 7}))]
    params = pretrained_params(tmp_path / "encoders")
    others.append(encoded("a dog\n犬\n", params))
    weights = tmp_path / "encoders" / "byt5" / "model.safetensors"
    os.utime(weights, (0, 0))
    assert encoded("a dog\n犬\n", params) == others[-1]  # the content counts, not its time
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit of one weight
    others.append(encoded("a dog\n犬\n", params))
    assert len({folder, *others}) == 5
    assert listed(folder) == ["", "a dog", "犬"]


def test_a_folder_without_captions_is_refused():
    with pytest.raises(ConfigError, match="--output out goes with --captions FILE"):
        main(config.load("smoke"), argparse.Namespace(captions=None, output="out"))


def test_from_the_command_line(tmp_path):
    def call(captions, *more):
        words = ("text", "encode", "--config", "smoke", "--captions", str(captions), "--output", str(tmp_path / "out"))
        environment = os.environ | {"MOVIEGEN_OUTPUTS": str(tmp_path / "outputs")}
        command = (sys.executable, "-m", "moviegen", *words, *more)
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    done = call(written(tmp_path, "c.csv", "caption\na dog\n"))
    assert done.returncode == 0, done.stderr
    assert len(files(tmp_path / "out")) == 6
    assert not (tmp_path / "outputs").exists()  # outside of any run
    done = call(tmp_path / "c.csv", "--text.ul2.folder", str(tmp_path / "none"))
    assert done.returncode == 2
    assert f"there is no folder {tmp_path / 'none'}" in done.stderr
    assert "Traceback" not in done.stderr
