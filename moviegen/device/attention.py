"""Attention kernels that keep no score map: FlashAttention on Ascend, an own operator or products on CPU."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from moviegen.device import target
from moviegen.device.compiled import is_compiled, operator

NEVER = -1e4  # a score whose probability is 0 in float32 and which float16 can hold


class _ScoreFreeAttention(nn.Cell):
    """softmax(q k^T) v, of (B, heads, tokens, W), whose backward pass recomputes the probabilities.

    Automatic differentiation would keep every (N, M) score map of every block alive until its turn comes. This keeps
    q, k, v and the output, and waits for the incoming gradient before it recomputes, so one map lives at a time.

    What has to be added to a whole score map rides along in its matrix product, as one more column of either side:
    MindSpore's broadcasting operators on CPU hold 16 bytes for each element they gave, as long as the graph lives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.product = ops.BatchMatMul()
        self.product_ta = ops.BatchMatMul(transpose_a=True)
        self.softmax = ops.Softmax(-1)

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor) -> ms.Tensor:
        return self.product(self.softmax(self.scores(q, k)), v)

    def bprop(
        self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, out: ms.Tensor, dout: ms.Tensor
    ) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        q = ops.depend(q, dout)
        p = self.softmax(self.scores(q, k))
        minus_rows = ops.concat((dout, -(out * dout).sum(-1, keepdims=True)), -1)
        one = ops.ones((*v.shape[:3], 1), v.dtype)
        ds = p * self.scores(minus_rows, ops.concat((v, one), -1))
        return self.product(ds, k), self.product_ta(ds, q), self.product_ta(p, dout)


class _CompiledAttention(nn.Cell):
    """softmax(q k^T / sqrt(W)) v of (B, tokens, heads, W), and what its gradient needs beside it (B, heads, N)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.forward = operator(name, lambda q, k, v: (q, (q[0], q[2], q[1])), 2)
        self.gradient = operator(f"{name}_gradient", lambda q, k, v, out, sums, dout: (q, k, v), 3)

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor) -> tuple[ms.Tensor, ...]:
        return self.forward(q, k, v)

    def bprop(
        self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, out: tuple[ms.Tensor, ...], dout: tuple[ms.Tensor, ...]
    ) -> tuple[ms.Tensor, ...]:
        return self.gradient(q, k, v, out[0], out[1], dout[0])


class _CompiledMaskedAttention(nn.Cell):
    """The same with a float mask (B, M), 0 at keys that may not be attended to."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.forward = operator(name, lambda q, k, v, mask: (q, (q[0], q[2], q[1])), 2)
        self.gradient = operator(f"{name}_gradient", lambda q, k, v, mask, out, sums, dout: (q, k, v), 3)

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, mask: ms.Tensor) -> tuple[ms.Tensor, ...]:
        return self.forward(q, k, v, mask)

    def bprop(
        self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, mask: ms.Tensor, out: tuple[ms.Tensor, ...],
        dout: tuple[ms.Tensor, ...],
    ) -> tuple[ms.Tensor, ...]:  # fmt: skip
        dq, dk, dv = self.gradient(q, k, v, mask, out[0], out[1], dout[0])
        return dq, dk, dv, ops.zeros_like(mask)


class Attention(nn.Cell):
    """Bidirectional attention.

    Args:
        num_heads: heads of q, k and v.
        head_width: channels a head.

    Inputs: q (B, N, heads, head_width), k and v (B, M, heads, head_width), and optionally `keep` (B, M) bool, True
    where a key may be attended to. Output: like q.
    """

    def __init__(self, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.scale = scale = head_width**-0.5
        self.is_flash, self.is_compiled = target() == "Ascend", is_compiled()
        self.core = _ScoreFreeAttention()
        if self.is_compiled:
            self._compile("attention")
        if self.is_flash:
            self.flash = ops.operations.nn_ops.FlashAttentionScore(num_heads, scale_value=scale, input_layout="BSND")

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, keep: ms.Tensor | None = None) -> ms.Tensor:
        if self.is_flash and q.dtype != ms.float32:  # FlashAttention takes half precision
            mask = None if keep is None else self._blocked(q, keep)
            return self.flash(q, k, v, None, None, None, mask, None)[3]
        if self.is_compiled and q.dtype == ms.float32:
            if keep is None:
                return self.fused(q, k, v)[0]
            return self.fused_masked(q, k, v, keep.astype(ms.float32))[0]
        q, k, v = q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2)
        q = q * self.scale  # before the mask joins it: NEVER / scale would overflow float16
        if keep is not None:  # q k^T + mask as one product
            mask = (1 - keep.astype(q.dtype)) * NEVER
            mask = ops.tile(mask.reshape(keep.shape[0], 1, keep.shape[1], 1), (1, k.shape[1], 1, 1))
            q, k = ops.concat((q, ops.ones((*q.shape[:3], 1), q.dtype)), -1), ops.concat((k, mask), -1)
        return self.core(q, k, v).swapaxes(1, 2)

    def round_factors(self) -> None:
        """Has float32 factors rounded to bfloat16; where products of such are compiled (`compiled.check_bfloat16`)."""
        self._compile("attention_bfloat16")

    def _compile(self, name: str) -> None:
        self.fused, self.fused_masked = _CompiledAttention(name), _CompiledMaskedAttention(f"masked_{name}")

    def keep(self) -> None:
        """Leaves it out of an enclosing Cell's recomputation; on CPU it keeps no score map anyway."""
        if self.is_flash:
            self.flash.recompute(False)

    def _blocked(self, q: ms.Tensor, keep: ms.Tensor) -> ms.Tensor:
        batch, tokens = keep.shape
        blocked = ops.logical_not(keep.astype(ms.bool_)).reshape(batch, 1, 1, tokens)
        return ops.broadcast_to(blocked, (batch, 1, q.shape[1], tokens)).astype(ms.uint8)
