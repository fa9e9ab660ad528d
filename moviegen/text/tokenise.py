"""Captions to the tokens of a pretrained encoder, the marks of the text's ends among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from moviegen.config import ConfigError
from moviegen.runs.signatures import what_it_is

TOKENIZER = "tokenizer.json"
Tokenise = Callable[[str], list[int]]

# ByT5's vocabulary: padding, end of text, unknown, then the 256 bytes.
END_OF_BYTES = 1
FIRST_BYTE = 3


def bytes_of(caption: str) -> list[int]:
    """ByT5's tokens: the bytes of the UTF-8 text, and its end."""
    return [FIRST_BYTE + byte for byte in caption.encode()] + [END_OF_BYTES]


def read_tokeniser(folder: Path) -> Tokenise:
    """The tokenizer of a Hugging Face folder; it normalises the text as its file says (MetaCLIP's: lower case).

    Raises:
        ConfigError: the file is missing or damaged, or does not mark the end of a text.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        raise ConfigError(f"{folder} has no {TOKENIZER}: put the encoder's own there (README.md, 'Pretrained weights')")
    with _usable(path):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def tokens_of(caption: str) -> list[int]:
        with _usable(path):
            return tokenizer.encode(caption).ids

    if not tokens_of(""):
        raise ConfigError(f"{path} does not mark the end of a text: the empty caption would have no token")
    return tokens_of


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Raises ConfigError for the package's errors: plain `Exception`s, and panics of its Rust code, which are none."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interruption
        raise ConfigError(f"{path} is {what_it_is(path) or f'not a tokenizer: {error}'}") from None


def cut(tokens: list[int], length: int) -> list[int]:
    """The first tokens and the end of the text, `length` in all; everything where that is enough."""
    return tokens if len(tokens) <= length else [*tokens[: length - 1], tokens[-1]]
