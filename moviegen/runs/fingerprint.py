"""Fingerprints: equal ones mean equal results, so that nothing is run twice.

A program's fingerprint covers the parameters that decide its result, the content of the files that they name, the code
that computes it, the form of the operators, the versions of the packages which that code imports, and the fingerprints
of the programs before it.
Where files lie and when they were written does not count, nor how a run is started, watched and saved, nor comments,
docstrings and messages.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import grimp

from moviegen.config import Params, from_root
from moviegen.device import compiled, compiler
from moviegen.runs import hashes, registry
from moviegen.runs.folders import VIDEO_SUFFIXES

CLIPS = (*VIDEO_SUFFIXES, ".csv")  # what counts in a folder of clips
MODELS = (".json", ".safetensors", ".npz", ".csv")  # what counts in a folder of weights, latents or embeddings
# Import name -> distribution of the packages that a result's numbers come from.
PACKAGES = {
    "PIL": "pillow", "av": "av", "decord": "decord", "mindspore": "mindspore", "numpy": "numpy", "pandas": "pandas",
    "scipy": "scipy", "skimage": "scikit-image", "tokenizers": "tokenizers",
}  # fmt: skip
# Code that starts, watches, names and records runs cannot change what they compute, but for what reads arrays.
BOOKKEEPING = ("moviegen.launch", "moviegen.runs")
NOT_BOOKKEEPING = ("moviegen.runs.arrays", "moviegen.runs.weights")


def fingerprint(params: Params, name: str) -> str:
    """16 hexadecimal digits over all that decides a program's result; computed once in a process."""
    return _fingerprint(params.model_dump_json(), name)


@functools.cache
def _fingerprint(content: str, name: str) -> str:
    params, program = Params.model_validate_json(content), registry.find(name)
    parts = {
        "parameters": program.parameters(params),
        "files": _files(content, name),
        "code": [code_hash(module) for module in program.modules],
        "packages": {name: version for module in program.modules for name, version in packages(module).items()},
        "upstream": {upstream: _fingerprint(content, upstream) for upstream in program.needs(params)},
    }
    if form := operators(params, name):
        parts["operators"] = {form.name: _cpp_hash(compiler.sources()) if form.library else ""}
    return digest(parts)


def operators(params: Params, name: str) -> compiled.Form | None:
    """The form of the operators that compute a program; None where its result does not follow from the device."""
    launch = params.launch
    return compiled.form(launch.operators, launch.device) if "launch.device" in registry.find(name).reads else None


@functools.cache
def _files(content: str, name: str) -> dict[str, str]:
    return _files_now(Params.model_validate_json(content), name)


def _files_now(params: Params, name: str) -> dict[str, str]:
    paths = registry.find(name).local_paths(params)
    return {parameter: content_hash(parameter, path) for parameter, path in paths.items()}


def changed_files(params: Params, name: str) -> list[str]:
    """Parameters that name what is no longer as it was when this process computed the program's fingerprint."""
    before, now = _files(params.model_dump_json(), name), _files_now(params, name)
    return [parameter for parameter in now if now[parameter] != before[parameter]]


def digest(value: Any) -> str:
    """16 hexadecimal digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def content_hash(parameter: str, path: str) -> str:
    """Hash of the file or folder that a parameter names; empty where it names none, `missing` where it is not there."""
    place = from_root(path)
    if not path:
        return ""
    if place.is_dir():
        return hashes.folder_hash(place, CLIPS if parameter == "data.root" else MODELS)
    return hashes.file_hash(place) if place.is_file() else "missing"


def forget() -> None:
    """Has files and code looked at again: a notebook's kernel outlives what is edited beside it."""
    for function in (_fingerprint, _files, code_hash, packages, _import_graph, _syntax, _version):
        function.cache_clear()
    compiled.forget()


@functools.cache
def code_hash(module: str, without: tuple[str, ...] = BOOKKEEPING) -> str:
    """Hash of the syntax trees of a module and of every module of the package it imports, directly or not.

    Comments, formatting, docstrings and messages do not count.

    Args:
        without: rooms that do not count either, nor what is imported by them alone.
    """
    return digest({name: _syntax(name) for name in _code(module, without)})


@functools.cache
def packages(module: str) -> dict[str, str]:
    """The versions of those PACKAGES that a module's code imports, directly or not."""
    graph = _import_graph()
    code = _code(module, BOOKKEEPING)
    imported = {name for part in code for name in graph.find_modules_directly_imported_by(part)}
    return {PACKAGES[name]: _version(PACKAGES[name]) for name in sorted(imported & set(PACKAGES))}


@functools.cache
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def _import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("moviegen", include_external_packages=True, cache_dir=None)


def _code(module: str, without: tuple[str, ...]) -> list[str]:
    """A module and those of the package it imports, directly or not."""
    graph, reached, waiting = _import_graph(), set(), [module]
    while waiting:
        name = waiting.pop()
        if name.startswith("moviegen") and name not in reached and not _is_in(name, without):
            reached.add(name)
            waiting += graph.find_modules_directly_imported_by(name)
    return sorted(reached)


def _is_in(module: str, rooms: tuple[str, ...]) -> bool:
    return module not in NOT_BOOKKEEPING and f"{module}.".startswith(tuple(f"{room}." for room in rooms))


@functools.cache
def _syntax(module: str) -> str:
    """The syntax tree of a module, without words."""
    return ast.dump(_WithoutWords().visit(ast.parse(_source(module).read_text(encoding="utf-8"))))


def _cpp_hash(sources: list[Path]) -> str:
    """Hash of C++ files without their comments."""
    words_or_comments = r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/'
    text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    text = re.sub(words_or_comments, _no_comment, text, flags=re.DOTALL)
    return digest([line.split() for line in text.splitlines() if line.strip()])


def _no_comment(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith('"') else " "


def _source(module: str) -> Path:
    path = Path(__file__).parents[2].joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class _WithoutWords(ast.NodeTransformer):
    """Takes out what is only read by people: docstrings, and the texts of errors, warnings, progress and help."""

    SPEAKING = ("warn", "print", "tqdm")  # functions whose texts are messages
    SPOKEN = ("description", "desc", "help", "mend")  # arguments that are

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A text that stands alone: a docstring."""
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """The texts of an error; which error it is, and when it is raised, counts."""
        return _Silenced().visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """The texts of a message."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in self.SPEAKING:
            node.args = [ast.Constant("") if _is_text(argument) else argument for argument in node.args]
        node.keywords = [_Silenced().visit(word) if word.arg in self.SPOKEN else word for word in node.keywords]
        return self.generic_visit(node)


class _Silenced(ast.NodeTransformer):
    """Takes out every text."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if _is_text(node) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
