"""The road from clips to generated videos: which program makes what, from which parameters, after which others.

    data ──┬── tae-image ──┬── tae-opl-off ── tae-mixkit ──┬── latents ──┐
           │               └── tae-opl-on ──── tae-evaluation            │
           └── text ─────────────────────────────────────────────────────┴── stage1 ── stage2 ── stage3 ── sample
                                                                                         │           └── retrieval
                                                                                         └── schedule-error

count counts the transformer's parameters and needs nothing before it. tae-evaluation scores all four autoencoders. A
file of trained weights in `tae.tae_checkpoint` takes the place of tae-mixkit, and then nothing before it is needed.

A program's fingerprint covers all that decides its result: the parameters it reads, the code it imports, the locked
environment, and the fingerprints of the programs before it. Equal fingerprint, equal result: nothing is run twice.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grimp

from moviegen.config import Params, Sample, from_root, nearest, project_root

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")


@dataclass(frozen=True)
class Program:
    """One program of the road; `arguments` follow `python -m moviegen`.

    `distributed`: it is an `msrun` job. `cards`: at an Ascend scale it needs its cards. `weights`: parameters that name
    files it reads.
    """

    name: str
    arguments: tuple[str, ...]
    module: str
    upstream: tuple[str, ...]
    reads: tuple[str, ...]
    distributed: bool = False
    cards: bool = True
    stage: int | None = None
    weights: tuple[str, ...] = ()

    def needs(self, params: Params) -> tuple[str, ...]:
        """The programs it builds on with these parameters."""
        return tuple(name for name in self.upstream if not PROGRAMS[name].replaced_by(params))

    def replaced_by(self, params: Params) -> str:
        """The file of trained weights that makes this program unnecessary; empty: there is none."""
        return params.tae.tae_checkpoint if self.name in REPLACED_BY_A_TAE else ""

    def weight_files(self, params: Params) -> dict[str, str]:
        """Files of trained weights it reads, by the parameter that names them; empty where none is named."""
        values = self.parameters(params)
        files = {name: values[name] for name in self.weights}
        if self.stage:
            recipe = params.recipes[self.stage]
            files["model.pretrained_model_path"] = recipe.model.pretrained_model_path
            latents = recipe.dataset.tae_latent_folder
            files["dataset.tae_latent_folder"] = f"{latents}/summary.json" if latents else ""
            embeddings = recipe.dataset.text_emb_folder
            files["dataset.text_emb_folder"] = f"{embeddings}/summary.json" if embeddings else ""
        if self.name == "text":
            files |= {f"text.{name}.folder": encoder.folder for name, encoder in params.text}
        return files

    def parameters(self, params: Params) -> dict[str, Any]:
        """The parameters that decide this program's result."""
        values: dict[str, Any] = {"seed": params.seed}
        for name in self.reads:
            node: Any = params.model_dump(mode="json")
            for key in name.split("."):
                node = node[key]
            values[name] = node
        if self.name == "data":
            values["frames"] = [params.ucf101_frames, params.mixkit_frames]
        if self.name == "latents":
            values["buckets"] = [(recipe.dataset.buckets, recipe.sees_images) for recipe in params.recipes.values()]
        if self.stage:
            values["recipe"] = params.recipes[self.stage].model_dump(mode="json")
            values["dit"] = params.dit_config(self.stage).model_dump(mode="json")
        if self.name in STAGE_OF:
            values["dit"] = params.dit_config(STAGE_OF[self.name]).model_dump(mode="json")
        return values


def _stage(stage: int) -> Program:
    before = (f"stage{stage - 1}",) if stage > 1 else ()
    return Program(
        name=f"stage{stage}",
        arguments=("train", "--stage", str(stage)),
        module="moviegen.train.dit",
        upstream=("tae-mixkit", "latents", "text", *before),
        reads=("launch.device", "launch.worker_num"),
        distributed=True,
        stage=stage,
    )


# What every TAE run reads of the loss; the outlier penalty only where it is on.
LOSS = ("tae.loss.reconstruction", "tae.loss.perceptual", "tae.loss.lpips_checkpoint", "tae.loss.kl")
# What the report's clips read of `sample`: all but what other programs measure.
SAMPLE = tuple(f"sample.{name}" for name in Sample.model_fields if name not in ("schedule_error", "retrieval"))
STAGE_OF = {"count": 3, "sample": 3, "retrieval": 3, "schedule-error": 2}  # whose transformer
REPLACED_BY_A_TAE = ("tae-image", "tae-opl-off", "tae-opl-on")

_ALL = (
    Program("count", ("count",), "moviegen.count", (), (), cards=False),
    Program("data", ("data", "index"), "moviegen.data.prepare", (), ("data",)),
    Program("tae-image", ("tae", "train", "--phase", "image"), "moviegen.train.tae", ("data",),
            ("tae.model", *LOSS, "tae.image", "tae.vae_checkpoint"),
            weights=("tae.vae_checkpoint", "tae.loss.lpips_checkpoint")),
    Program("tae-opl-off", ("tae", "train", "--phase", "opl-off"), "moviegen.train.tae", ("data", "tae-image"),
            ("tae.model", *LOSS, "tae.video"), weights=("tae.loss.lpips_checkpoint",)),
    Program("tae-opl-on", ("tae", "train", "--phase", "opl-on"), "moviegen.train.tae", ("data", "tae-image"),
            ("tae.model", *LOSS, "tae.loss.outlier", "tae.loss.outlier_radius", "tae.video"),
            weights=("tae.loss.lpips_checkpoint",)),
    Program("tae-mixkit", ("tae", "train", "--phase", "mixkit"), "moviegen.train.tae", ("data", "tae-opl-off"),
            ("tae.model", *LOSS, "tae.mixkit", "tae.tae_checkpoint"),
            weights=("tae.tae_checkpoint", "tae.loss.lpips_checkpoint")),
    Program("tae-evaluation", ("tae", "evaluate"), "moviegen.evaluate",
            ("data", "tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit"), ("tae.model", "tae.evaluation")),
    Program("text", ("text", "encode"), "moviegen.text", ("data",), ("text",)),
    Program("latents", ("precompute",), "moviegen.precompute", ("data", "tae-mixkit"), ("tae.model",)),
    _stage(1),
    _stage(2),
    _stage(3),
    Program("sample", ("sample",), "moviegen.sample", ("data", "tae-mixkit", "latents", "text", "stage3"),
            ("tae.model", *SAMPLE)),
    Program("retrieval", ("retrieval",), "moviegen.retrieval", ("data", "tae-mixkit", "latents", "text", "stage3"),
            ("sample.retrieval",)),
    Program("schedule-error", ("schedule-error",), "moviegen.schedule_error", ("data", "text", "stage2"),
            ("sample.guidance", "sample.schedule_error")),
)  # fmt: skip
PROGRAMS: dict[str, Program] = {program.name: program for program in _ALL}


def find(name: str) -> Program:
    """The program called `name`; KeyError with the nearest name otherwise."""
    if name not in PROGRAMS:
        raise KeyError(f"no program {name!r}{nearest(name, PROGRAMS)}")
    return PROGRAMS[name]


def fingerprint(params: Params, name: str) -> str:
    """16 hexadecimal digits over all that decides a program's result."""
    program = find(name)
    parts = {
        "parameters": program.parameters(params),
        "code": code_hash(program.module),
        "environment": file_hash(project_root() / "requirements.lock"),
        "upstream": {upstream: fingerprint(params, upstream) for upstream in program.needs(params)},
        "weights": {name: file_mark(path) for name, path in program.weight_files(params).items()},
    }
    if name == "data":
        parts["files"] = folder_listing(params.data.root)
    return digest(parts)


def digest(value: Any) -> str:
    """16 hexadecimal digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """16 hexadecimal digits of a file's bytes."""
    stat = path.stat()
    return _hash_of_version(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hash_of_version(path: Path, size: int, time: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@functools.cache
def _import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("moviegen", cache_dir=None)


@functools.cache
def code_hash(module: str) -> str:
    """Hash of the syntax trees of a module and of every module of the package it imports, directly or not.

    Comments and formatting do not count: they cannot change a result.
    """
    graph = _import_graph()
    sources: Mapping[str, str] = {
        name: ast.dump(ast.parse(_source(name).read_text()))
        for name in sorted({module, *graph.find_upstream_modules(module)})
    }
    return digest(sources)


@functools.cache
def folder_listing(root: str) -> list[tuple[str, int, int]]:
    """Name, size and time of every video and CSV below a data folder, which stand for their content.

    A folder is listed once in a process: every program's fingerprint asks for it.
    """
    if not root:
        return []
    folder = from_root(root)
    files = (path for path in folder.rglob("*") if path.suffix.lower() in (*VIDEO_SUFFIXES, ".csv"))
    return sorted((str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def file_mark(path: str) -> tuple[int, int] | dict[str, Any] | None:
    """Size and time of a file of weights, which stand for its content; None where there is none.

    Of a folder: those of each of its JSON and safetensors files.
    """
    file = from_root(path)
    if path and file.is_dir():
        return {one.name: file_mark(str(one)) for one in file.iterdir() if one.suffix in (".json", ".safetensors")}
    if not path or not file.is_file():
        return None
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _source(module: str) -> Path:
    path = Path(__file__).parent.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
