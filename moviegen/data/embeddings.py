"""The cache of text embeddings: `<encoder>/<hash of the caption>.npz` below a folder.

Each holds `mask` (L,), False where a caption is filled up, and of its n tokens `text_emb` (n, width) float16 and
`tokens` (n,) int64. The transformer takes them filled up with zeros, as float32 of these values: float16 rounds to 11
significant bits, bfloat16, in which cards compute, to 8. Folders that were made elsewhere may hold all L rows, in
float32. `index.csv` lists the files (`data.index`). `summary.json` says which encoders made them, by a hash of their
files: embeddings of others are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from moviegen.config import ConfigError, Text, TextEncoder, from_root
from moviegen.data.index import Cache
from moviegen.data.reading import in_threads
from moviegen.runs import Run
from moviegen.runs.arrays import read_npz, save_npz
from moviegen.runs.files import read_json

COMMAND = "`python -m moviegen text encode --captions FILE`"
MEND = "remove it and encode its caption again"

Origins = Mapping[str, Mapping[str, Any]]  # encoder -> what its embeddings follow from besides their captions
TextArrays = tuple[np.ndarray, ...]  # (B, L, width) of each encoder, then the tokens that are not padding (B, sum of L)


def caption_file(folder: Path, encoder: str, caption: str) -> Path:
    """Where a caption's embedding lies in a folder of them."""
    return folder / encoder / f"{hashlib.sha256(caption.encode()).hexdigest()[:16]}.npz"


def save_embedding(path: Path, text_emb: np.ndarray, mask: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Writes one whole or not at all; (L, width), (L,) and (L,). Returns what is kept of `text_emb`.

    Raises:
        ConfigError: a value is no number, or too large for float16.
    """
    with np.errstate(over="ignore"):
        kept = text_emb[mask].astype(np.float16)
    if not np.isfinite(kept).all():
        raise ConfigError(f"{path}: an embedding has values that are no numbers, or beyond 65,504: none is stored")
    save_npz(path, text_emb=kept, mask=mask, tokens=tokens[mask])
    return kept


def text_arrays(embeddings: Iterable[Iterable[tuple[np.ndarray, np.ndarray]]]) -> TextArrays:
    """What the transformer takes of captions, from each encoder's (text_emb, mask) of each caption.

    The values are float32, and those that float16 has, whether they come from a folder or from the encoder.
    """
    texts, masks = [], []
    for captions in embeddings:
        text, mask = zip(*captions, strict=True)
        texts.append(np.stack(text).astype(np.float16).astype(np.float32))
        masks.append(np.stack(mask))
    return *texts, np.concatenate(masks, 1)


def read_embeddings(folder: Path, captions: list[str], settings: Text) -> TextArrays:
    """Captions' embeddings from a folder.

    Raises:
        ConfigError: a caption has none there, or one is of another shape than the parameters say; names the file.
    """
    encoders = settings.encoders
    asked = list(product(encoders, captions))
    found = in_threads(lambda one: _read(folder, *one, encoders[one[0]]), asked)
    return text_arrays(found[start : start + len(captions)] for start in range(0, len(found), len(captions)))


def open_embeddings(folder: Path, looks: bool = True) -> Cache:
    """A folder of embeddings; see `Cache`."""
    return Cache.of(folder, MEND, looks)


def check_captions(cache: Cache, captions: list[str], settings: Text) -> None:
    """Looks at every caption's embeddings in a folder without reading them.

    Raises:
        ConfigError: as `read_embeddings`.
    """
    for name, encoder in settings.encoders.items():
        files = {caption: caption_file(cache.folder, name, caption) for caption in sorted(set(captions))}
        for caption, path in files.items():
            _check_there(cache.has(path), path, name, caption)
        for path, shapes in cache.stored(list(files.values()), "text_emb", "mask").items():
            _check_shapes(path, name, encoder, *shapes)


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
    path = caption_file(folder, name, caption)
    _check_there(path.is_file(), path, name, caption)
    text, mask = read_npz(path, "text_emb", "mask", mend=MEND)
    _check_shapes(path, name, encoder, text.shape, mask.shape)
    if len(text) == len(mask):
        return text, mask
    if len(text) != mask.sum():
        raise ConfigError(f"{path} holds {len(text)} tokens, and its mask says {mask.sum()}: {MEND}")
    filled = np.zeros((encoder.max_tokens, encoder.width), text.dtype)
    filled[mask] = text
    return filled, mask


def _check_there(is_there: bool, path: Path, name: str, caption: str) -> None:
    if not is_there:
        raise ConfigError(f"{path} is missing, the {name} embedding of {caption!r}: `python -m moviegen text encode`")


def _check_shapes(
    path: Path, name: str, encoder: TextEncoder, text: tuple[int, ...], mask: tuple[int, ...] | None = None
) -> None:
    if len(text) != 2 or text[0] > encoder.max_tokens or text[1] != encoder.width:
        raise ConfigError(
            f"{path} holds {'x'.join(map(str, text))} values (tokens x width), and text.{name} says at most "
            f"{encoder.max_tokens}x{encoder.width}: encode the captions again, or change max_tokens and width"
        )
    if mask is not None and mask != (encoder.max_tokens,):
        raise ConfigError(
            f"{path} holds a mask of shape {mask} for {encoder.max_tokens} tokens: remove it and encode its caption "
            f"again"
        )


def _described(origin: Any) -> str:
    if not isinstance(origin, dict) or not {"kind", "max_tokens", "sha256"} <= origin.keys():
        return "an unknown encoder"
    return f"a {origin['kind']} encoder of {origin['max_tokens']} tokens with checksum {str(origin['sha256'])[:12]}"
