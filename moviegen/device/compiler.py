"""Compiles `operators.cpp` for the processor that this is, once, and finds the library again.

A library is named after the level of the processor's instructions and after all it was made from: another processor,
compiler or source finds none of its own and makes one. It comes under its name whole, and checked in a process of its
own; its last bytes are a digest of the others, so that a damaged file is never opened.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

SOURCE = Path(__file__).with_name("operators.cpp")  # and what it includes: see `sources`
CPUINFO = Path("/proc/cpuinfo")
COMPILERS = ("c++", "g++", "clang++")  # after $CXX
# Nobody asks for errno or traps, and a * b + c may be rounded once; sums keep their order.
FLAGS = ("-O3", "-std=c++20", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
         "-fvisibility=hidden", "-shared", "-fPIC", "-pthread")  # fmt: skip
# Levels of x86-64, by what /proc/cpuinfo calls an instruction set -> the option that has a compiler use it (older ones
# do not know `-march=x86-64-v4`).
AVX2 = {"avx2": "-mavx2", "fma": "-mfma", "f16c": "-mf16c", "bmi1": "-mbmi", "bmi2": "-mbmi2", "abm": "-mlzcnt",
        "movbe": "-mmovbe"}  # fmt: skip
AVX512 = {f"avx512{part}": f"-mavx512{part}" for part in ("f", "bw", "cd", "dq", "vl")}
LEVELS = {"x86-64-v4": AVX2 | AVX512, "x86-64-v3": AVX2, "x86-64": {}}
BFLOAT16 = ("amx_tile", "amx_bf16", "avx512_bf16")  # what products of bfloat16 take beyond the highest level
WIDE = "-mprefer-vector-width=512"
CHECKED = 14  # what `moviegen_check` of a library that computes right returns
CHECK = f"import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).moviegen_check() != {CHECKED})"
BUILD_SECONDS, CHECK_SECONDS = 900, 60  # of the slowest machine


class NotCompiledError(RuntimeError):
    """There is no library of compiled operators here; the message says why, and what to do, in one line."""


class NoBfloat16Error(NotCompiledError):
    """There are no products of bfloat16 here; the message says why, and what to do, in one line."""


@dataclass(frozen=True)
class Target:
    """What a library is made for: the level of the processor's instructions, and its options."""

    level: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: the command's first words, and what it calls itself."""

    command: tuple[str, ...]
    version: str


def sources() -> list[Path]:
    """SOURCE and the headers beside it, in the folder that has its name."""
    return [SOURCE, *sorted(SOURCE.with_suffix("").glob("*.h"))]


def library() -> Path:
    """The library of this machine, made if there is none.

    Raises:
        NotCompiledError: there is no compiler, or it fails, or what it makes does not run, or can be written nowhere.
    """
    compiler, target = find_compiler(), processor()
    if compiler is None:  # one that has gone since
        found = [path for folder in folders() for path in sorted(folder.glob(f"{_stem(target)}-*.so")) if _opens(path)]
        if found:
            return found[0]
        raise NotCompiledError("no C++ compiler found: install one (Debian and Ubuntu: g++), or name it in CXX")
    name = f"{_stem(target)}-{_digest(compiler.version)}.so"
    for folder in folders():
        if _opens(folder / name):
            return folder / name
    return _build(name, compiler, target)


def processor() -> Target:
    """The highest level of instructions that this machine has."""
    if platform.machine() != "x86_64":
        return Target(platform.machine(), ())
    has = instructions()
    level = next(level for level, sets in LEVELS.items() if sets.keys() <= has)
    return Target(level, (*LEVELS[level].values(), *([WIDE] if level == "x86-64-v4" else [])))


def instructions() -> set[str]:
    """The processor's instruction sets, as Linux calls them."""
    lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines() if CPUINFO.is_file() else []
    return {word for line in lines if line.startswith("flags") for word in line.split()}


def find_compiler() -> Compiler | None:
    """The one that $CXX names, else the system's."""
    for words in (os.environ.get("CXX", "").split(), *([name] for name in COMPILERS)):
        if words and (program := shutil.which(words[0])):
            with suppress(OSError, subprocess.TimeoutExpired):  # no program; one that waits for something
                done = subprocess.run(
                    [program, *words[1:], "--version"], stdin=subprocess.DEVNULL, capture_output=True,
                    timeout=CHECK_SECONDS,
                )  # fmt: skip
                command = (program, *words[1:])
                return Compiler(command, f"{command}\n{done.stdout.decode(errors='replace')}")
    return None


def folders() -> list[Path]:
    """Where libraries lie: with the environment; where that cannot be written, in the user's folder of caches."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    places = (Path(sys.prefix, "share", "moviegen"), Path(cache, "moviegen"))
    # a relative one would be another in each folder; MindSpore ends a library's name at the first colon
    return [place for place in places if place.is_absolute() and ":" not in str(place)]


def _stem(target: Target) -> str:
    return f"operators-{target.level}-{_digest(*(path.read_bytes() for path in sources()), *FLAGS, *target.options)}"


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part if isinstance(part, bytes) else part.encode()).digest())
    return whole.hexdigest()[:12]


def _build(name: str, compiler: Compiler, target: Target) -> Path:
    """Makes a library in the first folder that can be written; one process does, others wait for it."""
    refused = "there is no folder for it"
    for folder in folders():
        path, part = folder / name, folder / f".{name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part.touch()  # before others are waited for: where nothing can be written there is nothing to wait for
            with _alone_in(folder):
                if not _opens(path):
                    print(f"compiling operators for {target.level} with {compiler.command[0]} ...", file=sys.stderr)
                    _compile(part, compiler, target)
                    _check(part)
                    _seal(part)
                    part.replace(path)
                return path
        except OSError as error:
            refused = f"{error.filename or folder}: {error.strerror or error}"
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    raise NotCompiledError(f"a library can be written nowhere ({refused}): set XDG_CACHE_HOME to a folder that can")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps others from making the same; where the file system has no locks they do, and the last library stays."""
    lock = filelock.FileLock(folder / ".lock")
    with suppress(OSError, NotImplementedError):
        lock.acquire(timeout=BUILD_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _compile(path: Path, compiler: Compiler, target: Target) -> None:
    command = [*compiler.command, *FLAGS, *target.options, "-o", str(path), str(SOURCE)]
    try:
        done = subprocess.run(
            command, env=os.environ | {"LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=BUILD_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotCompiledError(f"{compiler.command[0]} did not run: {error}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it says nothing")
        raise NotCompiledError(f"{compiler.command[0]} failed ({first}): mend it, or name another one in CXX")


def _check(path: Path) -> None:
    """Has a new library compute something in a process of its own, which it may end."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", CHECK, str(path)], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=CHECK_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotCompiledError("what was compiled does not come to an end: name another compiler in CXX") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        how = (
            signal.Signals(-done.returncode).name if done.returncode < 0 else said[-1] if said else "it computes wrong"
        )
        raise NotCompiledError(f"what was compiled does not run ({how}): name another compiler in CXX")


def _seal(path: Path) -> None:
    """Adds a digest to a library's end, which whoever loads it does not mind."""
    content = path.read_bytes()
    with path.open("ab") as file:
        file.write(hashlib.sha256(content).digest())


def _opens(path: Path) -> bool:
    """Whether a whole library lies there that this machine takes: one of a shared folder may need newer libraries."""
    try:
        content = path.read_bytes()
        size = hashlib.sha256().digest_size
        if hashlib.sha256(content[:-size]).digest() != content[-size:]:
            return False
        return ctypes.CDLL(str(path)).moviegen_check() == CHECKED
    except (OSError, AttributeError):
        return False
