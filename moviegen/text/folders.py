"""Local Hugging Face folders: `config.json` and safetensors, whole or in shards. Nothing is downloaded or unpickled."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, PositiveInt, ValidationError

from moviegen.config import ConfigError, from_root
from moviegen.runs.arrays import StoredTensor, stored_tensors
from moviegen.runs.hashes import file_hash, named_hash

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HELP = "README.md, 'Pretrained weights', has the commands"


class EncoderConfig(BaseModel, frozen=True):
    """What a network reads of `config.json`: this much, whatever its layout, and its family's own."""

    vocab_size: PositiveInt

    @property
    @abstractmethod
    def width(self) -> int:
        """Of an embedding."""


Config = TypeVar("Config", bound=EncoderConfig)


def find(parameter: str, named: str, published: str) -> Path:
    """The folder that a parameter names.

    Raises:
        ConfigError: it is not there; the message says what to fetch and where to put it.
    """
    folder = from_root(named)
    if not folder.is_dir():
        raise ConfigError(
            f"{parameter}: there is no folder {folder}. Fetch {published} and put its config.json, tokenizer.json "
            f"(ByT5 has none) and safetensors there; {HELP}. With the parameter empty a stand-in takes its place"
        )
    return folder


def read_config(folder: Path, kind: type[Config], model_types: tuple[str, ...]) -> Config:
    """What an encoder needs of `config.json`, or of the `text_config` inside.

    Raises:
        ConfigError: it is missing or damaged, describes another kind of model, or lacks a value.
    """
    path = folder / CONFIG
    content = _read_json(path)
    if content.get("model_type") not in model_types:
        raise ConfigError(f"{path}: model_type {content.get('model_type')!r} is not one of {', '.join(model_types)}")
    try:
        return kind.model_validate(content.get("text_config") or content)
    except ValidationError as error:
        listed = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{path}: {listed}") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the model.

    Raises:
        ConfigError: there are none, or a shard that the index lists is missing.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickles = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        refused = f": {pickles} can run code when opened, and is not" if pickles else ""
        raise ConfigError(f"{folder} has neither {WEIGHTS} nor {INDEX}{refused}; {HELP} that write safetensors")
    shards = sorted({folder / name for name in _read_json(folder / INDEX).get("weight_map", {}).values()})
    missing = [path.name for path in shards if not path.is_file()]
    if missing or not shards:
        raise ConfigError(f"{folder / INDEX} lists files that are not there: {', '.join(missing) or 'it lists none'}")
    return shards


def weights_of(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder by its name there; none is read.

    Raises:
        CheckpointError: a file is damaged.
    """
    return {name: tensor for path in weight_files(folder) for name, tensor in stored_tensors(path).items()}


def folder_hash(folder: Path, others: Iterable[str]) -> str:
    """SHA-256 over the names and contents of the safetensors files and of `others`."""
    files = sorted([*weight_files(folder), *(folder / name for name in others)])
    return named_hash((path.name, file_hash(path)) for path in files)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path.parent} has no {path.name}; {HELP}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object")
    return content
