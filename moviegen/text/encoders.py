"""The frozen text encoders of a report (paper 3.1.4): read from the folders that the parameters name, or stand-ins."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from moviegen import device
from moviegen.config import ConfigError, Params, TextEncoder
from moviegen.runs.weights import assign
from moviegen.text import bert, clip, folders, t5
from moviegen.text.embedding import Embedding
from moviegen.text.stand_ins import StandIn
from moviegen.text.tokenise import TOKENIZER, bytes_of, cut, read_tokeniser

BATCH = 8  # captions a pass; the last pass is filled up, so that one graph does for all


@dataclass(frozen=True)
class Family:
    """Networks of one layout."""

    kind: str
    model_types: tuple[str, ...]
    config: type[folders.EncoderConfig]
    network: Callable[..., nn.Cell]
    weights: Callable[..., Mapping[str, np.ndarray]]


T5 = Family("t5", t5.MODEL_TYPES, t5.T5Config, t5.T5Encoder, t5.weights)
CLIP = Family("clip", clip.MODEL_TYPES, clip.ClipConfig, clip.ClipTextTower, clip.weights)
BERT = Family("bert", bert.MODEL_TYPES, bert.BertConfig, bert.BertEncoder, bert.weights)
FAMILIES = {"ul2": (T5, BERT), "metaclip": (CLIP,), "byt5": (T5,)}  # that may stand in each place
PUBLISHED = {
    "ul2": "google/ul2",
    "metaclip": "facebook/metaclip-2-worldwide-giant (1280 wide; facebook/metaclip-h14-fullcc2.5b is 1024 wide)",
    "byt5": "google/byt5-small",
}


class Pretrained:
    """A text encoder in a local Hugging Face folder.

    Args:
        name: of the parameter below `text`.
        setting: its folder, the width that the transformer expects, and how many tokens of a caption it takes.

    Raises:
        ConfigError: the folder is missing or lacks a file, its config is of another kind of model, or its width is not
            `setting.width`.
    """

    def __init__(self, name: str, setting: TextEncoder) -> None:
        self.name, self.width, self.max_tokens = name, setting.width, setting.max_tokens
        self.folder = folders.find(f"text.{name}.folder", setting.folder, PUBLISHED[name])
        families = FAMILIES[name]
        kinds = {model_type: family.config for family in families for model_type in family.model_types}
        self.config = folders.read_config(self.folder, kinds)
        self.family = next(family for family in families if isinstance(self.config, family.config))
        self.kind = self.family.kind
        if self.config.width != self.width:
            raise ConfigError(
                f"text.{name}.width is {self.width}, and the encoder in {self.folder} is {self.config.width} wide: set "
                f"the parameter to {self.config.width}, or name the folder of another encoder"
            )
        folders.weight_files(self.folder)
        self.tokenise = bytes_of if name == "byt5" else read_tokeniser(self.folder)

    def encode(self, captions: Sequence[str]) -> Iterator[Embedding]:
        """Each caption's embeddings, in batches; a caption of too many tokens is cut, with a warning.

        The network lives as long as the iterator: it may fill most of the memory.

        Raises:
            CheckpointError: the folder's tensors are not this network's.
            ConfigError: the tokenizer is of an encoder with a larger vocabulary.
        """
        tokens = [self.tokens(caption) for caption in captions]
        network = self.load()
        for start in range(0, len(tokens), BATCH):
            yield from self._encode(network, tokens[start : start + BATCH])

    def tokens(self, caption: str) -> list[int]:
        """A caption's tokens, at most `max_tokens`, the end of the text the last of them."""
        tokens = self.tokenise(caption)
        if max(tokens) >= self.config.vocab_size:
            raise ConfigError(
                f"text.{self.name}: the tokenizer gives token {max(tokens)} for {caption!r}, and the encoder in "
                f"{self.folder} knows {self.config.vocab_size}: they do not belong together"
            )
        if len(tokens) > self.max_tokens:
            warnings.warn(f"{self.name} takes {self.max_tokens} tokens; cut: {caption!r}", stacklevel=2)
        return cut(tokens, self.max_tokens)

    def load(self) -> nn.Cell:
        """The network with the folder's weights, for texts of `max_tokens` tokens.

        It holds them in the type of the device's arithmetic alone, and takes them from the folder one by one.
        """
        tensors = self.family.weights(folders.weights_of(self.folder), self.config, self.max_tokens)
        folders.check_landmarks(self.folder, self.config, tensors)
        with no_init_parameters():
            network = self.family.network(self.config, self.max_tokens)
        for parameter in network.get_parameters():
            parameter.set_dtype(device.compute_dtype())
        assign(dict(network.parameters_and_names()), tensors, str(self.folder))
        return network.set_train(False)

    def sha256(self) -> str:
        """Hash of all files that its embeddings follow from."""
        return folders.folder_hash(self.folder, [folders.CONFIG, *([] if self.name == "byt5" else [TOKENIZER])])

    def __str__(self) -> str:
        return f"{self.name}: {self.folder} ({self.kind}), width {self.width}, {self.max_tokens} tokens"

    def _encode(self, network: nn.Cell, batch: list[list[int]]) -> Iterator[Embedding]:
        tokens, keep = np.zeros((BATCH, self.max_tokens), np.int32), np.zeros((BATCH, self.max_tokens), bool)
        for row, caption in enumerate(batch):
            tokens[row, : len(caption)], keep[row, : len(caption)] = caption, True
        hidden = network(ms.Tensor(tokens), ms.Tensor(keep)).asnumpy()
        for row in range(len(batch)):
            text_emb = np.where(keep[row, :, None], hidden[row], np.float32(0))
            yield Embedding(text_emb, keep[row], tokens[row].astype(np.int64))


Encoder = StandIn | Pretrained


def encoders(params: Params) -> list[Encoder]:
    """Those of UL2, MetaCLIP and ByT5 that are there, in the order the transformer takes them.

    Raises:
        ConfigError: a folder that a parameter names cannot be used; see `Pretrained`.
    """
    return [
        Pretrained(name, setting) if setting.folder else StandIn(name, setting.width, setting.max_tokens, params.seed)
        for name, setting in params.text.encoders.items()
    ]


def origin(encoder: Encoder) -> dict[str, Any]:
    """What an embedding follows from besides its caption."""
    return {"kind": encoder.kind, "sha256": encoder.sha256(), "max_tokens": encoder.max_tokens}


def origins(chosen: Iterable[Encoder]) -> dict[str, dict[str, Any]]:
    """`origin` of each, by its name."""
    return {encoder.name: origin(encoder) for encoder in chosen}
