"""Which parameters decide a result, and which only say where files lie or how a run is started, watched and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from moviegen.config.networks import Group

CONTENT = "what lies there decides results, its place does not"
UNCOUNTED = "decides no result"
NAME = "the name of what lies there decides results"
LocalPath = Annotated[str, CONTENT]  # a file or folder
RunFolder = Annotated[str, NAME]  # a run's, whose name holds its fingerprint


def result_parameters(group: Group, name: str = "") -> Any:
    """The values that decide results, as JSON has them: of a whole group, or of the parameter `name` below it.

    Paths are left out, and what is marked UNCOUNTED; of a parameter that is itself left out: None.
    """
    if name:
        key, _, rest = name.partition(".")
        return result_parameters(getattr(group, key), rest) if rest else result_parameters(group).get(key)
    plain, values = group.model_dump(mode="json"), {}
    for key, field in type(group).model_fields.items():
        value, marks = getattr(group, key), _marks(field.metadata)
        if not {CONTENT, UNCOUNTED} & marks:
            values[key] = result_parameters(value) if isinstance(value, Group) else plain[key]
        if NAME in marks:
            values[key] = Path(value).name
    return values


def local_paths(group: Group, name: str = "") -> dict[str, str]:
    """Every path in a group by its dotted parameter name; with `name` only that one, or those below it."""
    paths: dict[str, str] = {}
    for key, field in type(group).model_fields.items():
        value = getattr(group, key)
        if isinstance(value, Group):
            paths |= {f"{key}.{inner}": path for inner, path in local_paths(value).items()}
        elif CONTENT in _marks(field.metadata):
            paths[key] = value
    return {key: path for key, path in paths.items() if f"{key}.".startswith(f"{name}." if name else "")}


def _marks(metadata: list[Any]) -> set[str]:
    return {mark for mark in metadata if isinstance(mark, str)}
