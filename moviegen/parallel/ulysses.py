"""Ulysses sequence parallelism (Jacobs et al. 2023; original report, Sequence Parallelism).

Every rank of a shard group holds N / P of a sample's tokens in all layers but attention, where an all-to-all turns
token shards into head shards, so that each rank attends over all tokens with 1 / P of the heads, and another turns the
result back. Tokens are padded to a multiple of P; text is replicated.

Each rank's gradients come out P times too large for its own tokens, so that the mean over all ranks is the mean over
samples of the whole gradient: data parallelism needs to know nothing of shards.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from moviegen.device.attention import Attention
from moviegen.device.collectives import AllToAll, GroupGather
from moviegen.parallel.mesh import Mesh


class WholeSequence(nn.Cell):
    """No sharding: every rank holds all tokens."""

    shards = 1

    def shard(self, tokens: ms.Tensor) -> ms.Tensor:
        """This rank's part of tokens (B, N, D)."""
        return tokens

    def join(self, tokens: ms.Tensor, count: int) -> ms.Tensor:
        """The whole (B, count, D) of the ranks' parts."""
        return tokens

    def mask(self, batch: int, count: int) -> ms.Tensor | None:
        """Which of the padded tokens self-attention may see, (B, N) bool; None: all."""
        return None

    def attention(self, num_heads: int, head_width: int) -> nn.Cell:
        """Self-attention of q, k, v (B, own tokens, heads, head width)."""
        return Attention(num_heads, head_width)


class UlyssesSequence(nn.Cell):
    """Tokens over the ranks of a shard group.

    Args:
        mesh: this rank's place.
        num_heads: must be divisible by the shards.

    Raises:
        ValueError: it is not.
    """

    def __init__(self, mesh: Mesh, num_heads: int) -> None:
        super().__init__()
        check_heads(num_heads, mesh.shards)
        self.mesh, self.shards, self.place = mesh, mesh.shards, mesh.shard_rank
        self.gather = JoinTokens(mesh)

    def shard(self, tokens: ms.Tensor) -> ms.Tensor:
        batch, count, width = tokens.shape
        length = padded(count, self.shards)
        if length > count:
            tokens = ops.concat((tokens, ops.zeros((batch, length - count, width), tokens.dtype)), 1)
        part = length // self.shards
        return ops.slice(tokens, (0, self.place * part, 0), (batch, part, width))

    def join(self, tokens: ms.Tensor, count: int) -> ms.Tensor:
        joined = self.gather(tokens)
        return joined if joined.shape[1] == count else joined[:, :count]  # a slice of all is a copy

    def mask(self, batch: int, count: int) -> ms.Tensor | None:
        length = padded(count, self.shards)
        if length == count:
            return None
        return ops.concat((ops.ones((batch, count), ms.int32), ops.zeros((batch, length - count), ms.int32)), 1)

    def attention(self, num_heads: int, head_width: int) -> nn.Cell:
        return UlyssesAttention(self.mesh, num_heads, head_width)


# 3.1.6, original report: sequence parallelism by all-to-all
class UlyssesAttention(nn.Cell):
    """Attention over all tokens with this rank's heads; takes and gives all heads of its own tokens."""

    def __init__(self, mesh: Mesh, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.to_heads, self.to_tokens = Exchange(mesh, split=2, join=1), Exchange(mesh, split=1, join=2)
        self.attention = Attention(num_heads // mesh.shards, head_width)

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, keep: ms.Tensor | None = None) -> ms.Tensor:
        """q, k, v (B, N / P, heads, head width), keep (B, N) -> like q."""
        q, k, v = ops.split(self.to_heads(ops.concat((q, k, v))), q.shape[0])  # one exchange for the three
        return self.to_tokens(self.attention(q, k, v, keep))

    def keep(self) -> None:
        """See `Attention.keep`."""
        self.attention.keep()


class Exchange(nn.Cell):
    """An all-to-all; its gradient is the all-to-all back."""

    def __init__(self, mesh: Mesh, split: int, join: int) -> None:
        super().__init__()
        self.there = AllToAll(mesh.shard_group, mesh.rank, split, join)
        self.back = AllToAll(mesh.shard_group, mesh.rank, join, split)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.there(x)

    def bprop(self, x: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor]:
        return (self.back(dout),)


class JoinTokens(nn.Cell):
    """(B, n, D) of each rank -> (B, P * n, D). Backward: this rank's part, times P (see the module's docstring)."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        self.gather, self.shards, self.place = GroupGather(mesh.shard_group), mesh.shards, mesh.shard_rank

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        batch, length, width = x.shape
        return self.gather(x).swapaxes(0, 1).reshape(batch, self.shards * length, width)

    def bprop(self, x: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor]:
        return (ops.slice(dout, (0, self.place * x.shape[1], 0), x.shape) * self.shards,)


def sequence_of(mesh: Mesh, num_heads: int) -> WholeSequence | UlyssesSequence:
    """What the transformer asks for its tokens on this mesh."""
    return UlyssesSequence(mesh, num_heads) if mesh.shards > 1 else WholeSequence()


def check_heads(num_heads: int, shards: int) -> None:
    """Raises ValueError where the heads cannot be shared."""
    if num_heads % shards:
        raise ValueError(f"{num_heads} attention heads cannot be divided over {shards} sequence shards")


def padded(count: int, shards: int) -> int:
    """`count` rounded up to a multiple of `shards`."""
    return -(-count // shards) * shards
