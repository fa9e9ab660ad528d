"""Some of many clips: as many of each class, and of as many groups, as can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from moviegen.data.clips import Clip

Item = TypeVar("Item")
Kind = TypeVar("Kind", bound=Hashable)


def choose(clips: Sequence[Clip], most: int, seed: int) -> list[Clip]:
    """At most `most` clips, in their order; 0: all.

    Classes differ by one clip at most, as far as they have so many. Within a class each group comes once before any
    comes again. Classes of the same groups keep the same ones, so that a split by group holds the same ones out of all.
    """
    if not most or len(clips) <= most:
        return list(clips)
    groups, labels = (_shuffled({getattr(clip, name) for clip in clips}, seed) for name in ("group", "label"))
    indices = sorted(range(len(clips)), key=lambda i: (groups[clips[i].group], labels[clips[i].label]))
    indices = round_robin(indices, lambda i: (clips[i].label, clips[i].group))
    indices = round_robin(indices, lambda i: clips[i].label)
    return [clips[i] for i in sorted(indices[:most])]


def spread(members: Mapping[Kind, Sequence[Item]], most: int, seed: int) -> dict[Kind, list[Item]]:
    """At most `most` items, in their order; 0: all. Kinds differ by one item at most, as far as they have so many.

    Which ones is drawn. Where there are more kinds than items, the first kinds have one each.
    """
    rng = np.random.default_rng(seed)
    drawn = [(kind, int(place)) for kind, items in members.items() for place in rng.permutation(len(items))]
    kept = set(round_robin(drawn, lambda pair: pair[0])[: most or None])
    chosen = {
        kind: [item for place, item in enumerate(items) if (kind, place) in kept] for kind, items in members.items()
    }
    return {kind: items for kind, items in chosen.items() if items}


def round_robin(items: Iterable[Item], kind: Callable[[Item], Hashable]) -> list[Item]:
    """The first item of each kind, then the second of each, and so on."""
    seen: Counter[Hashable] = Counter()
    rounds: dict[int, list[Item]] = {}
    for item in items:
        rounds.setdefault(seen[kind(item)], []).append(item)
        seen[kind(item)] += 1
    return [item for members in rounds.values() for item in members]


def _shuffled(values: set, seed: int) -> dict:
    """Each value's position in a shuffle that depends on the values and the seed alone."""
    shuffled = np.random.default_rng(seed).permutation(sorted(values)).tolist()
    return {value: position for position, value in enumerate(shuffled)}
