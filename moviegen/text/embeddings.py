"""A caption's embeddings on disk: `<encoder>/<hash of the caption>.npz` below a folder.

Each holds `text_emb` (L, width) float32, zero where `mask` (L,) is False, and `tokens` (L,) int64.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moviegen import runs
from moviegen.config import ConfigError, Text
from moviegen.config.params import TextEncoder
from moviegen.weights import npz_shapes, read_npz, replace_npz

MEND = "remove it and encode its caption again"
ENCODERS = ("ul2", "metaclip", "byt5")


@dataclass(frozen=True)
class Embedding:
    """One caption through one encoder."""

    text_emb: np.ndarray
    mask: np.ndarray
    tokens: np.ndarray


def caption_file(folder: Path, encoder: str, caption: str) -> Path:
    """Where a caption's embedding lies in a folder of them."""
    return folder / encoder / f"{hashlib.sha256(caption.encode()).hexdigest()[:16]}.npz"


def save_embedding(path: Path, embedding: Embedding) -> None:
    """Writes one whole or not at all."""
    replace_npz(path, text_emb=embedding.text_emb, mask=embedding.mask, tokens=embedding.tokens)


def read_embeddings(folder: Path, captions: list[str], settings: Text) -> tuple[np.ndarray, ...]:
    """Captions' embeddings from a folder: three (B, L, width) float32, and the tokens to keep (B, sum of L) bool.

    Raises:
        ConfigError: a caption has none there, or one is of another shape than the parameters say; names the file.
    """
    loaded = [[_read(folder, name, caption, getattr(settings, name)) for caption in captions] for name in ENCODERS]
    keep = np.concatenate([np.stack([one.mask for one in encoder]) for encoder in loaded], 1)
    return *(np.stack([one.text_emb for one in encoder]) for encoder in loaded), keep


def check_captions(folder: Path, captions: list[str], settings: Text) -> None:
    """Looks at every caption's embeddings in a folder without reading them.

    Raises:
        ConfigError: as `read_embeddings`.
    """
    for name in ENCODERS:
        for caption in sorted(set(captions)):
            path = _existing(folder, name, caption)
            _check_shapes(path, name, getattr(settings, name), *npz_shapes(path, "text_emb", "mask", mend=MEND))


def load_embeddings(run: runs.Run, captions: list[str]) -> tuple[np.ndarray, ...]:
    """Captions' embeddings from a finished text run; see `read_embeddings`."""
    return read_embeddings(run.folder, captions, run.params.text)


def _read(folder: Path, name: str, caption: str, setting: TextEncoder) -> Embedding:
    path = _existing(folder, name, caption)
    embedding = Embedding(*read_npz(path, "text_emb", "mask", "tokens", mend=MEND))
    _check_shapes(path, name, setting, embedding.text_emb.shape, embedding.mask.shape)
    return embedding


def _existing(folder: Path, name: str, caption: str) -> Path:
    path = caption_file(folder, name, caption)
    if not path.is_file():
        raise ConfigError(f"{path} is missing, the {name} embedding of {caption!r}: `python -m moviegen text encode`")
    return path


def _check_shapes(path: Path, name: str, setting: TextEncoder, found: tuple[int, ...], mask: tuple[int, ...]) -> None:
    if found != (setting.max_tokens, setting.width):
        raise ConfigError(
            f"{path} holds {'x'.join(map(str, found))} values (tokens x width), and text.{name} says "
            f"{setting.max_tokens}x{setting.width}: encode the captions again, or change max_tokens and width"
        )
    if mask != (setting.max_tokens,):
        raise ConfigError(
            f"{path} holds a mask of shape {mask} for {setting.max_tokens} tokens: remove it and encode its caption "
            f"again"
        )
