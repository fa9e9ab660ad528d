"""`python -m moviegen text encode`: the embeddings of every caption, from three encoders (paper 3.1.4).

The encoders are stand-ins: each token's embedding is a fixed random vector drawn from a seed. They tell captions apart,
as the transformer needs to learn the road; they know nothing of language. They carry the names and the files of the
encoders they stand in for: UL2 sees words, MetaCLIP words, ByT5 the bytes of the text.

On disk, a caption and encoder: `<encoder>/<hash of the caption>.npz` with `text_emb` (L, width) float32, zero where
`mask` (L,) is False, and `tokens` (L,) int64.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from moviegen import runs
from moviegen.config import Params
from moviegen.data.prepare import load_split, write_rows
from moviegen.weights import replace_npz

ENCODERS = ("ul2", "metaclip", "byt5")
END_OF_TEXT = "</s>"


@dataclass(frozen=True)
class Embedding:
    """One caption through one encoder."""

    text_emb: np.ndarray
    mask: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class StandIn:
    """A seeded, frozen encoder that knows nothing of language."""

    name: str
    width: int
    max_tokens: int
    seed: int

    def encode(self, caption: str) -> Embedding:
        """Tokens' vectors plus their places', padded to `max_tokens`; a longer caption is cut, with a warning."""
        words = [chr(b) for b in caption.encode()] if self.name == "byt5" else re.findall(r"\w+", caption.lower())
        if len(words) > self.max_tokens - 1:
            warnings.warn(f"{self.name} takes {self.max_tokens} tokens; cut: {caption!r}", stacklevel=2)
        words = [*words[: self.max_tokens - 1], END_OF_TEXT]
        tokens = np.zeros(self.max_tokens, np.int64)
        tokens[: len(words)] = [_token(word) for word in words]
        mask = np.arange(self.max_tokens) < len(words)
        vectors = np.zeros((self.max_tokens, self.width), np.float32)
        for place, token in enumerate(tokens[: len(words)]):
            vectors[place] = self._vector(token) + 0.3 * self._vector(place)
        return Embedding(vectors, mask, tokens)

    def _vector(self, key: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, ENCODERS.index(self.name), int(key)])
        return rng.standard_normal(self.width, np.float32)


def encoders(params: Params) -> list[StandIn]:
    """UL2, MetaCLIP and ByT5, in the order the transformer takes them."""
    settings = (params.text.ul2, params.text.metaclip, params.text.byt5)
    return [
        StandIn(name, setting.width, setting.max_tokens, params.seed)
        for name, setting in zip(ENCODERS, settings, strict=True)
    ]


def caption_file(folder: Path, encoder: str, caption: str) -> Path:
    """Where a caption's embedding lies in a text run's folder."""
    return folder / encoder / f"{hashlib.sha256(caption.encode()).hexdigest()[:16]}.npz"


def load_embeddings(run: runs.Run, captions: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Captions' embeddings from a finished run: three (B, L, width) float32, and the tokens to keep (B, sum of L)."""
    loaded = [[_read(caption_file(run.folder, name, caption)) for caption in captions] for name in ENCODERS]
    ul2, metaclip, byt5 = (np.stack([one.text_emb for one in encoder]) for encoder in loaded)
    keep = np.concatenate([np.stack([one.mask for one in encoder]) for encoder in loaded], 1)
    return ul2, metaclip, byt5, keep


def encode(run: runs.Run) -> None:
    """Encodes every caption of both mixkit splits, and the empty one that guidance needs."""
    data = run.upstream("data")
    captions = {clip.caption for split in ("mixkit_train", "mixkit_val") for clip in load_split(data, split)}
    ordered = ["", *sorted(captions - {""})]
    for caption in tqdm(ordered, desc="encoding captions", disable=None):
        for encoder in encoders(run.params):
            path = caption_file(run.folder, encoder.name, caption)
            if not path.exists():
                embedding = encoder.encode(caption)
                replace_npz(path, text_emb=embedding.text_emb, mask=embedding.mask, tokens=embedding.tokens)
    rows = [(caption, os.path.basename(caption_file(run.folder, "ul2", caption))) for caption in ordered]
    write_rows(run.folder / "index.csv", ("caption", "file"), rows)
    kinds = [f"{e.name}: seeded random stand-in, width {e.width}, {e.max_tokens} tokens" for e in encoders(run.params)]
    runs.write_json(run.folder / "summary.json", {"captions": len(ordered), "encoders": kinds})


def main(params: Params, options: argparse.Namespace) -> None:
    """`text encode`."""
    with runs.record(runs.find(params, "text")) as run:
        encode(run)


def _token(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")


def _read(path: Path) -> Embedding:
    with np.load(path, allow_pickle=False) as file:
        return Embedding(file["text_emb"], file["mask"], file["tokens"])
