"""The cache of text embeddings: `<encoder>/<hash of the caption>.npz` below a folder.

Each holds `text_emb` (L, width) float32, zero where `mask` (L,) is False, and `tokens` (L,) int64. `summary.json` says
which encoders made them, by a hash of their files: embeddings of others are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moviegen.config import ConfigError, Text, TextEncoder, from_root
from moviegen.runs import Run
from moviegen.runs.arrays import npz_shapes, read_npz, save_npz
from moviegen.runs.files import read_json

COMMAND = "`python -m moviegen text encode --captions FILE`"
MEND = "remove it and encode its caption again"

Origins = Mapping[str, Mapping[str, Any]]  # encoder -> what its embeddings follow from besides their captions
TextArrays = tuple[np.ndarray, ...]  # (B, L, width) of each encoder, then the tokens that are not padding (B, sum of L)


def caption_file(folder: Path, encoder: str, caption: str) -> Path:
    """Where a caption's embedding lies in a folder of them."""
    return folder / encoder / f"{hashlib.sha256(caption.encode()).hexdigest()[:16]}.npz"


def save_embedding(path: Path, text_emb: np.ndarray, mask: np.ndarray, tokens: np.ndarray) -> None:
    """Writes one whole or not at all."""
    save_npz(path, text_emb=text_emb, mask=mask, tokens=tokens)


def text_arrays(embeddings: Iterable[Iterable[tuple[np.ndarray, np.ndarray]]]) -> TextArrays:
    """What the transformer takes of captions, from each encoder's (text_emb, mask) of each caption."""
    texts, masks = [], []
    for captions in embeddings:
        text, mask = zip(*captions, strict=True)
        texts.append(np.stack(text))
        masks.append(np.stack(mask))
    return *texts, np.concatenate(masks, 1)


def read_embeddings(folder: Path, captions: list[str], settings: Text) -> TextArrays:
    """Captions' embeddings from a folder.

    Raises:
        ConfigError: a caption has none there, or one is of another shape than the parameters say; names the file.
    """
    return text_arrays(
        [_read(folder, name, caption, encoder) for caption in captions] for name, encoder in settings.encoders.items()
    )


def check_captions(folder: Path, captions: list[str], settings: Text) -> None:
    """Looks at every caption's embeddings in a folder without reading them.

    Raises:
        ConfigError: as `read_embeddings`.
    """
    for name, encoder in settings.encoders.items():
        for caption in sorted(set(captions)):
            path = _existing(folder, name, caption)
            _check_shapes(path, name, encoder, *npz_shapes(path, "text_emb", "mask", mend=MEND))


def check_origins(folder: Path, origins: Origins) -> None:
    """Refuses embeddings that other encoders made.

    Args:
        folder: what `encode_text` wrote.
        origins: of the parameters' encoders.

    Raises:
        ConfigError: its encoders are others, or it is not finished.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        raise ConfigError(f"{folder} holds no finished embeddings (no summary.json): run {COMMAND}")
    recorded = read_json(summary, f"encode the captions again with {COMMAND}").get("origin")
    for name, origin in origins.items():
        maker = recorded.get(name) if isinstance(recorded, dict) else None
        if maker != origin:
            raise ConfigError(
                f"the {name} embeddings in {folder} were made by {_described(maker)}, and the "
                f"parameters under text.{name} name {_described(origin)}: encode the captions again with {COMMAND}, or "
                f"name the encoder of then"
            )


def embeddings_folder(run: Run, stage: int, origins: Origins) -> Path:
    """Where the embeddings of a stage lie: the text run's folder, or the one that the stage's recipe names.

    Raises:
        ConfigError: other encoders made them; see `check_origins`.
    """
    named = run.params.recipes[stage].dataset.text_emb_folder
    folder = from_root(named) if named else run.upstream("text").folder
    check_origins(folder, origins)
    return folder


def _read(folder: Path, name: str, caption: str, encoder: TextEncoder) -> tuple[np.ndarray, np.ndarray]:
    path = _existing(folder, name, caption)
    text, mask = read_npz(path, "text_emb", "mask", mend=MEND)
    _check_shapes(path, name, encoder, text.shape, mask.shape)
    return text, mask


def _existing(folder: Path, name: str, caption: str) -> Path:
    path = caption_file(folder, name, caption)
    if not path.is_file():
        raise ConfigError(f"{path} is missing, the {name} embedding of {caption!r}: `python -m moviegen text encode`")
    return path


def _check_shapes(path: Path, name: str, encoder: TextEncoder, text: tuple[int, ...], mask: tuple[int, ...]) -> None:
    if text != (encoder.max_tokens, encoder.width):
        raise ConfigError(
            f"{path} holds {'x'.join(map(str, text))} values (tokens x width), and text.{name} says "
            f"{encoder.max_tokens}x{encoder.width}: encode the captions again, or change max_tokens and width"
        )
    if mask != (encoder.max_tokens,):
        raise ConfigError(
            f"{path} holds a mask of shape {mask} for {encoder.max_tokens} tokens: remove it and encode its caption "
            f"again"
        )


def _described(origin: Any) -> str:
    if not isinstance(origin, dict) or not {"kind", "max_tokens", "sha256"} <= origin.keys():
        return "an unknown encoder"
    return f"a {origin['kind']} encoder of {origin['max_tokens']} tokens with checksum {str(origin['sha256'])[:12]}"
