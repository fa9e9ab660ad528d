"""Cards and the hosts they are in, as `params/base/cards.yaml` describes them: numbers with units, and sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moviegen.config import ConfigError, nearest, project_root
from moviegen.config.strict_yaml import YAMLError, read_yaml

BYTES = {"MB": 1e6, "GB": 1e9, "TB": 1e12, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
BANDWIDTHS = {f"{unit}/s": size for unit, size in BYTES.items()} | {"Gbit/s": 1e9 / 8, "Tbit/s": 1e12 / 8}
ARITHMETIC = {"GFLOP/s": 1e9, "TFLOP/s": 1e12, "PFLOP/s": 1e15}
FIELDS = ("memory", "peak", "memory_bandwidth", "link", "network", "storage", "cards_a_host", "source")
DTYPES = ("float32", "float16", "bfloat16")
UNKNOWN = "not published"
PUBLISHED_CARD = "ascend-910b"  # that of the published tables, as far as they say
CARDS_FILE = Path("params", "base", "cards.yaml")  # not beside the scales: whatever lies in params/ is one


@dataclass(frozen=True)
class Card:
    """One card and its host; a number that nobody published is None, and whoever needs it says so.

    Attributes:
        memory: bytes.
        peak: FLOP/s of dense products, by the type of their factors.
        memory_bandwidth: bytes/s, reading and writing together.
        link: bytes/s to all others of its host together, each way; every two cards of a host have a wire of their own.
        network: bytes/s to the cards of other hosts, each way.
        storage: bytes/s that a host reads, or writes.
        cards_a_host: cards of a host.
        source: where the numbers are from.
    """

    name: str
    memory: float | None
    peak: Mapping[str, float | None]
    memory_bandwidth: float | None
    link: float | None
    network: float | None
    storage: float | None
    cards_a_host: int
    source: str

    def flops(self, dtype: str) -> float:
        """FLOP/s of dense products.

        Raises:
            ConfigError: the card's description does not say.
        """
        return self._said(f"peak.{dtype}", self.peak.get(dtype))

    def link_among(self, cards: int) -> float:
        """Bytes/s a card sends to the others of so many on one host: one wire to each.

        Raises:
            ConfigError: the card's description does not say.
        """
        return self._said("link", self.link) * (cards - 1) / (self.cards_a_host - 1)

    def between_hosts(self) -> float:
        """Bytes/s a card sends to other hosts.

        Raises:
            ConfigError: the card's description does not say.
        """
        return self._said("network", self.network)

    def _said(self, field: str, value: float | None) -> float:
        if value is None:
            raise ConfigError(f"card {self.name}: {field} is not published; no time can be told without it")
        return value


def read_cards(path: Path | None = None) -> dict[str, Card]:
    """Every card of a file, `params/base/cards.yaml` unless another is named.

    Raises:
        ConfigError: it is not YAML, or a card is not described as it must be.
    """
    path = path or project_root() / CARDS_FILE
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a list of cards: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path} describes no cards: it holds a name for each, with {', '.join(FIELDS)} below")
    return {str(name): _card(str(name), fields, f"{path}: {name}") for name, fields in content.items()}


def find_card(name: str, path: Path | None = None) -> Card:
    """The card of that name.

    Raises:
        ConfigError: there is none; the message says which there are, and how one is described.
    """
    cards = read_cards(path)
    if name not in cards:
        raise ConfigError(
            f"card {name!r} is not one of {', '.join(cards)}{nearest(name, cards)}; describe it in "
            f"{path or CARDS_FILE} as those are: {', '.join(FIELDS)}"
        )
    return cards[name]


def quantity(value: Any, units: Mapping[str, float], where: str) -> float | None:
    """The number of a text such as `64 GiB`, in the units' common one; None: `not published`.

    Args:
        units: what each is worth.
        where: the place of the text, for the message.

    Raises:
        ConfigError: the unit is missing or of another kind, or the number is none, or not more than 0.
    """
    if value == UNKNOWN:
        return None
    known = ", ".join(units)
    if isinstance(value, int | float):
        raise ConfigError(f"{where}: {value} has no unit: write {value} and one of {known}")
    found = re.fullmatch(r"([0-9.]+)\s*([A-Za-z/]+)", str(value).strip())
    if not found or not re.fullmatch(r"\d+(\.\d+)?", found[1]) or float(found[1]) == 0:
        raise ConfigError(f"{where}: {value!r} is not a number above 0 and one of {known}, nor `{UNKNOWN}`")
    if found[2] not in units:
        raise ConfigError(f"{where}: {value!r} is not in one of {known}{nearest(found[2], units)}")
    return float(found[1]) * units[found[2]]


def _card(name: str, fields: Any, where: str) -> Card:
    _check_names(fields, FIELDS, FIELDS, where)
    _check_names(fields["peak"], DTYPES, (), f"{where}.peak")
    cards, source = fields["cards_a_host"], fields["source"]
    if not isinstance(cards, int) or isinstance(cards, bool) or cards < 2:
        raise ConfigError(f"{where}.cards_a_host: {cards!r} is not a number of cards, 2 or more")
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"{where}.source: say where the numbers are from")
    peak = {dtype: quantity(rate, ARITHMETIC, f"{where}.peak.{dtype}") for dtype, rate in fields["peak"].items()}
    rates = {
        field: quantity(fields[field], BANDWIDTHS, f"{where}.{field}")
        for field in ("memory_bandwidth", "link", "network", "storage")
    }
    memory = quantity(fields["memory"], BYTES, f"{where}.memory")
    return Card(name=name, memory=memory, peak=peak, cards_a_host=cards, source=source.strip(), **rates)


def _check_names(fields: Any, known: tuple[str, ...], needed: tuple[str, ...], where: str) -> None:
    """Refuses what is no mapping, names that nobody reads, and the lack of names that somebody does."""
    if not isinstance(fields, dict):
        raise ConfigError(f"{where} is not a description: {', '.join(known)} stand below it, each with its value")
    for name in fields:
        if name not in known:
            raise ConfigError(f"{where}.{name} is not one of {', '.join(known)}{nearest(str(name), known)}")
    for name in needed:
        if name not in fields:
            raise ConfigError(f"{where}.{name} is missing: give it, or `{UNKNOWN}`")
