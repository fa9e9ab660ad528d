"""Attention kernels: FlashAttention on Ascend, matrix products that keep no score map on CPU."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from moviegen.device import target


class _ScoreFreeAttention(nn.Cell):
    """softmax(q k^T * scale + bias) v whose backward pass recomputes the probabilities.

    Automatic differentiation would keep every (N, M) score map of every block alive until its turn comes. This keeps
    q, k, v and the output, and waits for the incoming gradient before it recomputes, so one map lives at a time.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.product = ops.BatchMatMul()
        self.product_ta = ops.BatchMatMul(transpose_a=True)
        self.softmax = ops.Softmax(-1)

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        return self.product(self.softmax(self.scores(q * self.scale, k) + bias), v)

    def bprop(
        self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, bias: ms.Tensor, out: ms.Tensor, dout: ms.Tensor
    ) -> tuple[ms.Tensor, ...]:
        q = ops.depend(q, dout)
        p = self.softmax(self.scores(q * self.scale, k) + bias)
        dp = self.scores(dout, v)
        ds = p * (dp - (out * dout).sum(-1, keepdims=True)) * self.scale
        return self.product(ds, k), self.product_ta(ds, q), self.product_ta(p, dout), ops.zeros_like(bias)


class Attention(nn.Cell):
    """Bidirectional attention.

    Args:
        num_heads: heads of q, k and v.
        head_width: channels a head.

    Inputs: q (B, heads, N, head_width), k and v (B, heads, M, head_width), and optionally `keep` (B, M) bool, True
    where a key may be attended to. Output: like q.
    """

    def __init__(self, num_heads: int, head_width: int) -> None:
        super().__init__()
        scale = head_width**-0.5
        self.is_flash = target() == "Ascend"
        if self.is_flash:
            self.flash = ops.operations.nn_ops.FlashAttentionScore(num_heads, scale_value=scale, input_layout="BNSD")
        else:
            self.core = _ScoreFreeAttention(scale)

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, keep: ms.Tensor | None = None) -> ms.Tensor:
        if self.is_flash:
            mask = None if keep is None else self._blocked(q, keep)
            return self.flash(q, k, v, None, None, None, mask, None)[3]
        if keep is None:
            bias = ops.zeros((1, 1, 1, k.shape[2]), q.dtype)
        else:
            bias = (1 - keep.astype(q.dtype)).reshape(keep.shape[0], 1, 1, keep.shape[1]) * -1e9
        return self.core(q, k, v, bias)

    def _blocked(self, q: ms.Tensor, keep: ms.Tensor) -> ms.Tensor:
        batch, tokens = keep.shape
        blocked = ops.logical_not(keep.astype(ms.bool_)).reshape(batch, 1, 1, tokens)
        return ops.broadcast_to(blocked, (batch, 1, q.shape[2], tokens)).astype(ms.uint8)
