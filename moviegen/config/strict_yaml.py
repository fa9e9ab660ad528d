"""YAML as parameters are written: plain values, each key once, and no more of it than a person writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

LARGEST = 2**18  # characters; the longest params file here has 7,000
MOST_VALUES = 20_000  # with each alias counted as all that it stands for: a few lines can stand for billions
DEEPEST = 50


class YAMLError(ValueError):
    """A text that is not YAML, or not as parameters are written; the message names the line."""


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        YAMLError: it is not YAML, holds a key twice or values of other kinds than plain ones, or is endless.
    """
    if len(text) > LARGEST:
        raise YAMLError(f"it has {len(text)} characters, and parameters take fewer than {LARGEST}")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        for count, _ in enumerate(_nodes(node), 1):
            if count > MOST_VALUES:
                raise YAMLError(f"its aliases (*name) stand for more than {MOST_VALUES} values")
        return loader.construct_document(node)
    except YAMLError:
        raise
    except RecursionError:
        raise YAMLError(f"it is nested deeper than {DEEPEST} levels") from None
    except Exception as error:  # PyYAML's own, and those of Python's types: a date of month 13 is a ValueError
        raise YAMLError(str(error)) from None


def _nodes(node: yaml.Node, depth: int = 0) -> Iterator[yaml.Node]:
    """A node and all below it, aliases as what they stand for."""
    if depth > DEEPEST:
        raise YAMLError(f"line {node.start_mark.line + 1}: it is nested deeper than {DEEPEST} levels")
    yield node
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        for pair in node.value:
            for inner in pair:
                yield from _nodes(inner, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            yield from _nodes(inner, depth + 1)


def _check_keys(node: yaml.MappingNode) -> None:
    """YAML's own reader takes the last of two equal keys."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and name in lines:
            raise YAMLError(f"{name!r} is set in line {lines[name]} and again in line {line}: keep one of them")
        lines[name] = line
