"""What ranks send each other, by counting."""

from __future__ import annotations

from moviegen.config import DiTConfig


def ulysses_traffic(config: DiTConfig, visual: int, shards: int) -> int:
    """Elements a rank sends in one block's self-attention: four all-to-alls of its N/P tokens, less its own part."""
    return round(4 * visual * config.width / shards * (shards - 1) / shards)


def gathered_traffic(config: DiTConfig, visual: int, shards: int) -> int:
    """Elements a rank sends in one block where tokens are gathered and scattered instead (Megatron-LM): ~4 N D."""
    return round(4 * visual * config.width * (shards - 1) / shards)
