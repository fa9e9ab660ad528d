"""Stand-ins for the text encoders, where no pretrained one is named.

Each token's embedding is a fixed random vector drawn from a seed. They tell captions apart, as the transformer needs to
learn the road; they know nothing of language. They carry the names and the files of the encoders they stand in for: UL2
sees words, MetaCLIP words, ByT5 the bytes of the text.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from moviegen.config import TEXT_ENCODERS
from moviegen.text.embedding import Embedding

END_OF_TEXT = "</s>"


@dataclass(frozen=True)
class StandIn:
    """A seeded, frozen encoder that knows nothing of language."""

    name: str
    width: int
    max_tokens: int
    seed: int

    kind = "stand-in"

    def encode(self, captions: Sequence[str]) -> Iterator[Embedding]:
        """Tokens' vectors plus their places', padded to `max_tokens`; a longer caption is cut, with a warning."""
        return map(self._encode, captions)

    def sha256(self) -> str:
        """Hash of all that its vectors follow from."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.name}: seeded random stand-in, width {self.width}, {self.max_tokens} tokens"

    def _encode(self, caption: str) -> Embedding:
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
        rng = np.random.default_rng([self.seed, TEXT_ENCODERS.index(self.name), int(key)])
        return rng.standard_normal(self.width, np.float32)


def _token(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
