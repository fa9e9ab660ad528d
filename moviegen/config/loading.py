"""Params files and overrides: read, laid over each other, checked, and refused by name."""

from __future__ import annotations

import difflib
import functools
import math
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from moviegen.config.networks import SIZES, ConfigError
from moviegen.config.params import Params
from moviegen.config.recipe import STAGE_GROUPS, Recipe, merge
from moviegen.config.shapes import check_tables
from moviegen.config.strict_yaml import YAMLError, read_yaml

ASSET = "asset:"  # a path of a params file, to what was fetched


def project_root(start: Path | None = None) -> Path:
    """The checkout's top folder, from anywhere inside it.

    Raises:
        ConfigError: `start` (default: the working folder) is not inside a checkout.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise ConfigError(f"{start} is not inside a checkout of the report (no folder above it has params/ and notebooks/)")


def outputs_root() -> Path:
    """`outputs/`, or `MOVIEGEN_OUTPUTS` where that is set (tests use it): a path as in a params file, see `from_root`.

    A relative one is the same folder to a notebook, which runs in another.
    """
    named = Path(os.path.expanduser(os.environ.get("MOVIEGEN_OUTPUTS") or "outputs"))
    return named if named.is_absolute() else project_root() / named


def outputs_folder(params: Params) -> Path:
    """`outputs/<scale>`."""
    return outputs_root() / params.scale


def from_root(path: str) -> Path:
    """A path of a params file: relative ones start at the checkout's top, `~` is the home folder.

    `asset:lpips` is what `data assets` fetched of that name.
    """
    if path.startswith(ASSET):
        return outputs_root() / "assets" / path.removeprefix(ASSET)
    return project_root() / os.path.expanduser(path)  # unlike pathlib's, leaves a folder called ~x alone


def weights_file(parameter: str, path: str) -> Path:
    """The file of trained weights a parameter names.

    Raises:
        ConfigError: it is not there; the message says where it is published and how it is converted.
    """
    file = from_root(path)
    if not file.is_file():
        raise ConfigError(
            f"{parameter}: there is no file {file}; README.md, 'Pretrained weights', says where to get it and how to "
            f"convert it"
        )
    return file


def load(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Params:
    """Reads a params file and lays `overrides` over it.

    Args:
        source: a path, or a scale's name (`tiny` means `params/tiny.yaml`).
        overrides: dotted name to value. `train.steps` sets every stage, `stages.2.train.steps` one.

    Raises:
        ConfigError: no such file, not YAML, an unknown name, a bad value.
    """
    path = Path(os.path.expanduser(source))
    if path.suffix not in (".yaml", ".yml") and path.name == str(source):
        path = project_root() / "params" / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ConfigError(
            f"no params file {path}{nearest(path.stem, known.split(', '))}; there are: {known or 'none in that folder'}"
        )
    return parse(read_file(path), overrides, origin=str(path))


def read_file(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The content of a params file, laid over that of the file which it `extends`, if it does.

    Args:
        extending: the files that extend this one, the first one first.

    Raises:
        ConfigError: there is no such file, it is not YAML, or it extends itself.
    """
    path = path.resolve()
    if path in extending:
        raise ConfigError(f"{' extends '.join(map(str, (*extending, path)))}: a file cannot extend itself")
    if not path.is_file():
        raise ConfigError(f"{extending[-1]}: extends: there is no file {path}")
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML as parameters are written: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no parameters")
    content = with_numbers(content)
    base = content.pop("extends", None)
    return (
        merge(read_file(path.parent / os.path.expanduser(str(base)), (*extending, path)), content) if base else content
    )


def parse(content: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, origin: str = "parameters") -> Params:
    """Builds `Params` from a nested mapping; see `load`."""
    content, overrides = with_numbers(content), dict(overrides or {})
    content = without_assets(content, overrides.get("assets", content.get("assets")))
    for name, value in overrides.items():
        content = _override(content, name, value)
    where = f"{origin} with {overrides}" if overrides else origin
    params = _validated(Params, content, where)
    for stage in params.stages:
        place = f"{where}, stage {stage}"
        check_job(_validated(Recipe, params.recipe_values(stage), place), params, place)
    try:
        check_tables("sample", params.sample.frames, params.sample.size, params.recipes[3].model.max_size)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    return params


def without_assets(content: Mapping[str, Any], assets: Any) -> dict[str, Any]:
    """The content of a params file, with what it says for that case laid over it where `assets` is none."""
    if assets != "none" or not isinstance(content.get("without_assets"), Mapping):
        return dict(content)
    return merge({**content, "without_assets": {}}, with_numbers(content["without_assets"]))


def with_numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a params file with its stages by number: JSON, and papermill, write every key as text.

    What is left of other keys is refused when parameters are checked.
    """
    stages = content.get("stages")
    if not isinstance(stages, Mapping):
        return dict(content)
    numbered = {int(key) if str(key).isdecimal() else key: values for key, values in stages.items()}
    return {**content, "stages": numbered}


def check_job(recipe: Recipe, params: Params, where: str) -> None:
    """Refuses what the workers of `launch` cannot do with a stage's recipe."""
    launch, some, shards = params.launch, recipe.train.worker_num, recipe.train.sequence_parallel.shards
    if some and some > launch.local_worker_num:
        raise ConfigError(
            f"{where}: train.worker_num {some} is more than launch.local_worker_num {launch.local_worker_num}: set it "
            "to null, or start more workers"
        )
    if some and launch.worker_num > launch.local_worker_num:
        raise ConfigError(
            f"{where}: train.worker_num {some} is for a job of one host, and launch.worker_num {launch.worker_num} "
            f"asks for {launch.worker_num // launch.local_worker_num}: set it to null"
        )
    name, workers = ("train.worker_num", some) if some else ("launch.worker_num", launch.worker_num)
    if workers % shards:
        both, fewer = math.gcd(workers, SIZES[recipe.model.size].num_heads), workers // shards * shards
        raise ConfigError(
            f"{where}: {name} {workers} is not a multiple of train.sequence_parallel.shards {shards}: use "
            f"{f'{fewer} or ' if fewer else ''}{fewer + shards} workers, or "
            f"shards {max(count for count in range(1, shards) if both % count == 0)}"
        )


def parse_overrides(words: str | Iterable[str], stage: int | None = None) -> dict[str, Any]:
    """`"--train.steps 7 sample.steps=10"` to `{"train.steps": 7, "sample.steps": 10}`.

    A parameter that holds text takes its text as it is; other values are read as YAML.

    Args:
        stage: where only this stage is computed: what is said of a stage's groups is said of it alone.

    Raises:
        ConfigError: a name without a value, a value without a name, a name twice, or what is not UTF-8.
    """
    try:
        words = shlex.split(words) if isinstance(words, str) else list(words)
    except ValueError as error:
        raise ConfigError(f"cannot read {words!r}: {error}") from None
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{words}: a name that is not UTF-8 cannot be written down; rename that file or folder"
        ) from None
    overrides: dict[str, Any] = {}
    texts: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if not equals:
            if not name.startswith("--"):
                raise ConfigError(f"{name!r} is not a parameter: write --name value, or name=value")
            if (following := next(remaining, None)) is None:
                raise ConfigError(f"{name} has no value")
            value = following
        name = name.removeprefix("--")
        full = f"stages.{stage}.{name}" if stage and name.partition(".")[0] in STAGE_GROUPS else name
        if full in overrides:
            raise ConfigError(f"{full} is given twice, as {texts[full]!r} and as {value!r}: keep one of them")
        overrides[full], texts[full] = _read_value(name, value), value
    return overrides


def _read_value(name: str, text: str) -> Any:
    """The value of an override; an unknown name's is refused later."""
    if not text or _is_text(known_fields().get(".".join(_without_stage(name.split("."))))):
        return text
    try:
        return read_yaml(text)
    except YAMLError as error:
        raise ConfigError(f"{name}: {text!r} is not YAML: {error}") from None


def _is_text(annotation: Any) -> bool:
    """Whether a parameter's type is text, freely or of a few words."""
    return annotation is str or (
        get_origin(annotation) is Literal and all(isinstance(word, str) for word in get_args(annotation))
    )


def _without_stage(keys: list[Any]) -> list[Any]:
    """`stages.2.train.steps` is `train.steps`, said of one stage."""
    return keys[2:] if keys[0] == "stages" else keys


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"`, or nothing where no known name is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def known_names() -> list[str]:
    """Every dotted parameter name."""
    return list(known_fields())


@functools.cache
def known_fields() -> dict[str, Any]:
    """The type of every parameter, by its dotted name."""
    return _fields_of(Params)


def _fields_of(group: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, field in group.model_fields.items():
        is_stage_group = group is Params and name in STAGE_GROUPS  # plain values there, as a stage may lay its own over
        annotation = (Recipe.model_fields[name] if is_stage_group else field).annotation
        inner = next((t for t in (annotation, *get_args(annotation)) if _is_group(t)), None)
        fields |= _fields_of(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}": annotation}
    return fields


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _override(content: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Lays one dotted override over `content`; an override of a stage group also wins over every stage's own value."""
    keys: list[Any] = name.split(".")
    _check_name(name, keys)
    if keys[0] == "stages":
        keys[1] = int(keys[1])
        return merge(content, _nest(keys, value))
    content = merge(content, _nest(keys, value))
    if keys[0] in STAGE_GROUPS:
        for stage, values in content.get("stages", {}).items():
            if _has(values, keys):
                content = merge(content, _nest(["stages", stage, *keys], value))
    return content


def _check_name(name: str, keys: list[str]) -> None:
    plain = _without_stage(keys)
    if keys[0] == "stages" and (len(keys) < 3 or keys[1] not in ("1", "2", "3")):
        raise ConfigError(f"{name!r}: write stages.1.train.steps, with stage 1, 2 or 3")
    known = known_names()
    if not any(full == ".".join(plain) or full.startswith(".".join(plain) + ".") for full in known):
        raise ConfigError(f"unknown parameter {name!r}{nearest('.'.join(plain), known)}")


def _nest(keys: list[Any], value: Any) -> dict[Any, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _has(content: Any, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            return False
        content = content[key]
    return True


def _validated(group: type[BaseModel], content: Mapping[str, Any], where: str) -> Any:
    try:
        return group.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}:\n" + "\n".join(f"  {_explain(item)}" for item in error.errors())) from None


def _explain(item: Mapping[str, Any]) -> str:
    name = ".".join(str(key) for key in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}{nearest(name, known_names())}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("value_error", "missing"):
        return f"{name}: {message}" if name else message
    return f"{name} = {item['input']!r}: {message}"
