"""Files read by several threads at a time, in the order that was asked for: each waits for the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

THREADS = 8

Item = TypeVar("Item")
Read = TypeVar("Read")


def in_threads(read: Callable[[Item], Read], items: Iterable[Item]) -> list[Read]:
    """What `read` makes of each item; the first error is raised, as if they had been read one by one."""
    return list(_pool().map(read, items))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="reading")
