"""Local Hugging Face folders: `config.json` and safetensors, whole or in shards. Nothing is downloaded or unpickled."""

from __future__ import annotations

import json
import os.path
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, PositiveInt, ValidationError, model_validator

from moviegen.config import ConfigError, from_root
from moviegen.runs.arrays import Arrays, CheckpointError, StoredTensor, check_fits, stored_tensors, unwrapped
from moviegen.runs.folders import listed
from moviegen.runs.hashes import file_hash, named_hash
from moviegen.runs.signatures import what_it_is

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ORIGINAL = "take the one of float32, bfloat16 or float16 that it was made from"
HELP = "README.md, 'Pretrained weights', has the commands"
# what lies in a folder instead, by suffix
UNUSABLE = {
    ".bin": "can run code when opened, and is not",
    ".gguf": "holds quantised weights, which are not read",
    ".incomplete": "is a download that has not finished",
    ".msgpack": "is Flax's",
    ".h5": "is TensorFlow's",
}


class EncoderConfig(BaseModel, frozen=True):
    """What a network reads of `config.json`: this much, whatever its layout, and its family's own."""

    vocab_size: PositiveInt

    @property
    @abstractmethod
    def width(self) -> int:
        """Of an embedding."""

    @property
    @abstractmethod
    def landmarks(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of some tensors, from which all sizes of the network follow; one is of the last layer."""


class HiddenConfig(EncoderConfig, frozen=True):
    """The sizes of a network whose heads divide its width, under the keys that CLIP and BERT share."""

    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.hidden_size

    @model_validator(mode="after")
    def _divisible(self) -> HiddenConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )
        return self


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


def read_config(folder: Path, kinds: Mapping[str, type[Config]]) -> Config:
    """What an encoder needs of `config.json`, or of the `text_config` inside.

    Args:
        kinds: by the `model_type` that the file names.

    Raises:
        ConfigError: it is missing or damaged, describes another kind of model, or lacks a value.
    """
    path = folder / CONFIG
    content = _read_json(path)
    model_type = content.get("model_type")
    if not isinstance(model_type, str) or model_type not in kinds:
        raise ConfigError(f"{path}: model_type {model_type!r} is not one of {', '.join(kinds)}")
    if "quantization_config" in content:
        raise ConfigError(f"{path} is of a quantised model (quantization_config), which is not read: {ORIGINAL}")
    try:
        return kinds[model_type].model_validate(content.get("text_config") or content)
    except ValidationError as error:
        listed = "; ".join(": ".join([*map(str, item["loc"]), item["msg"]]) for item in error.errors())
        raise ConfigError(f"{path}: {listed}") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the model.

    Raises:
        ConfigError: there are none, or a shard that the index lists is missing.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in UNUSABLE)
        reasons = "; ".join(f"{name} {UNUSABLE[Path(name).suffix]}" for name in others)
        refused = f": {reasons}" if reasons else ""
        raise ConfigError(f"{folder} has neither {WEIGHTS} nor {INDEX}{refused}; {HELP} that write safetensors")
    shards = sorted({folder / name for name in _weight_map(folder).values()})
    missing = [path.name for path in shards if not os.path.isfile(path)]  # no error for a name that cannot be
    if missing or not shards:
        raise ConfigError(f"{folder / INDEX} lists files that are not there: {', '.join(missing) or 'it lists none'}")
    return shards


def _weight_map(folder: Path) -> dict[str, str]:
    """The name of each tensor's file, as the index has it."""
    names = _read_json(folder / INDEX).get("weight_map", {})
    files = names.values() if isinstance(names, dict) else [None]
    if not all(isinstance(file, str) and Path(file).name == file for file in files):
        raise ConfigError(f"{folder / INDEX}: weight_map is not a list of tensors and the names of their files")
    return names


def weights_of(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder by its name there; none is read.

    Raises:
        CheckpointError: a file is damaged, or lacks a tensor that the index says it holds.
    """
    files = weight_files(folder)
    file_of = {} if files == [folder / WEIGHTS] else _weight_map(folder)
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        stored = stored_tensors(path).items()
        tensors |= {name: tensor for name, tensor in stored if file_of.get(name, path.name) == path.name}
    if missing := [f"{name} in {file}" for name, file in file_of.items() if name not in tensors]:
        raise CheckpointError(
            f"{folder / INDEX} lists tensors that are not there: {listed(missing, 8)} "
            f"({len(missing)} of {len(file_of)}): the index and the files are not of one model"
        )
    return unwrapped(tensors)


def check_landmarks(folder: Path, config: EncoderConfig, tensors: Arrays) -> None:
    """Refuses a config that is not of these tensors, before a network of its sizes is built.

    Raises:
        CheckpointError: a tensor that follows from the config is missing, or of another shape.
    """
    known = {name: tensors[name] for name in config.landmarks if name in tensors}
    check_fits(config.landmarks, known, f"what {folder} holds")


def folder_hash(folder: Path, others: Iterable[str]) -> str:
    """SHA-256 over the names and contents of the safetensors files and of `others`."""
    files = sorted([*weight_files(folder), *(folder / name for name in others)])
    return named_hash((path.name, file_hash(path)) for path in files)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path.parent} has no {path.name}; {HELP}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is {what_it_is(path) or f'not JSON: {error}'}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object")
    return content
