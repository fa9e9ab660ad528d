"""The transformer's kernels: products, norms, modulation and gates, each in two forms.

On CPU they are operators of `operators.cpp`; where those are not compiled, on Ascend, and in half precision they are
MindSpore's own. Those compute on CPU with one thread but for matrix products: row means and broadcasts are products
with a constant column or row there, 2-3 times faster.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

from moviegen.device import target
from moviegen.device.compiled import is_compiled, operator


class Product(nn.Cell):
    """x (..., in) W^T (out, in) -> (..., out), in x's type."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul(transpose_b=True)
        self.is_compiled = is_compiled()
        if self.is_compiled:
            self.fused = _Product("linear")

    def round_factors(self) -> None:
        """Has float32 factors rounded to bfloat16; where products of such are compiled (`compiled.check_bfloat16`)."""
        self.fused = _Product("linear_bfloat16")

    def construct(self, x: ms.Tensor, weight: ms.Tensor, before: ms.Tensor | None = None) -> ms.Tensor:
        """`before` is for a weight that has to be gathered first (`parallel.zero`)."""
        if self.is_compiled and x.dtype == ms.float32:
            return self.fused(x, weight.astype(x.dtype))
        rows = self.matmul(x.reshape(-1, x.shape[-1]), weight.astype(x.dtype))
        return rows.reshape(*x.shape[:-1], weight.shape[0])


class _Product(nn.Cell):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.forward = operator(name, lambda x, w: (*x[:-1], w[0]))
        self.gradient = operator(f"{name}_gradient", lambda x, w, dy: (x, w), 2)

    def construct(self, x: ms.Tensor, weight: ms.Tensor) -> ms.Tensor:
        return self.forward(x, weight)

    def bprop(self, x: ms.Tensor, weight: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor, ...]:
        return self.gradient(x, weight, dout)


class RMSNorm(nn.Cell):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis of (..., D)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.is_native, self.is_compiled = target() == "Ascend", is_compiled()
        self.width, self.eps = width, eps
        self.weight = Parameter(initializer("ones", (width,), ms.float32))
        if self.is_compiled:
            self.fused = _RMSNorm(eps)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        if self.is_compiled and x.dtype == ms.float32:
            return self.fused(x, self.weight.astype(x.dtype))
        if self.is_native:
            return ops.rms_norm(x, self.weight.astype(x.dtype), self.eps)[0]
        rows = x.reshape(-1, self.width).astype(ms.float32)  # squares overflow float16
        column = ops.ones((self.width, 1), ms.float32) / self.width
        scale = 1 / ops.sqrt(ops.matmul(rows * rows, column) + self.eps)
        out = rows * ops.matmul(scale, self.weight.astype(ms.float32).reshape(1, -1))
        return out.astype(x.dtype).reshape(x.shape)


class _RMSNorm(nn.Cell):
    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = ms.Tensor([eps], ms.float32)
        self.forward = operator("rms_norm", lambda x, weight, eps: x)
        self.gradient = operator("rms_norm_gradient", lambda x, weight, eps, dy: (x, weight), 2)

    def construct(self, x: ms.Tensor, weight: ms.Tensor) -> ms.Tensor:
        return self.forward(x, weight, self.eps)

    def bprop(self, x: ms.Tensor, weight: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor, ...]:
        return self.gradient(x, weight, self.eps, dout)


# 3.1.3: adaptive layer norm, its scale and shift
class ModulatedRMSNorm(RMSNorm):
    """RMSNorm(x (B, N, D)) * (1 + scale) + shift; shift and scale (B, 1, D)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__(width, eps)
        self.expand_rows = ExpandRows()
        if self.is_compiled:
            self.fused_modulated = _ModulatedRMSNorm(eps)

    def construct(self, x: ms.Tensor, shift: ms.Tensor, scale: ms.Tensor) -> ms.Tensor:  # type: ignore[override]
        if self.is_compiled and x.dtype == ms.float32:
            return self.fused_modulated(x, self.weight.astype(x.dtype), shift, scale)
        normed = super().construct(x)
        return normed * self.expand_rows(1 + scale, x.shape[1]) + self.expand_rows(shift, x.shape[1])


class _ModulatedRMSNorm(nn.Cell):
    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = ms.Tensor([eps], ms.float32)
        self.forward = operator("modulated_norm", lambda x, weight, eps, shift, scale: x)
        self.gradient = operator(
            "modulated_norm_gradient", lambda x, weight, eps, shift, scale, dy: (x, weight, shift, scale), 4
        )

    def construct(self, x: ms.Tensor, weight: ms.Tensor, shift: ms.Tensor, scale: ms.Tensor) -> ms.Tensor:
        return self.forward(x, weight, self.eps, shift, scale)

    def bprop(
        self, x: ms.Tensor, weight: ms.Tensor, shift: ms.Tensor, scale: ms.Tensor, out: ms.Tensor, dout: ms.Tensor
    ) -> tuple[ms.Tensor, ...]:
        return self.gradient(x, weight, self.eps, shift, scale, dout)


# 3.1.3: a residual branch gated by the time-step
class GatedSum(nn.Cell):
    """x + gate * y, in x's type; x and y (B, N, D), gate (B, 1, D), the last two of one type."""

    def __init__(self) -> None:
        super().__init__()
        self.is_compiled, self.expand_rows, self.cast = is_compiled(), ExpandRows(), ops.Cast()
        if self.is_compiled:
            self.fused = _GatedSum()

    def construct(self, x: ms.Tensor, gate: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        if self.is_compiled and y.dtype == ms.float32:
            return self.fused(x, gate, y)
        return x + self.cast(self.expand_rows(gate, x.shape[1]) * y, x.dtype)


class _GatedSum(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("gated_sum", lambda x, gate, y: x)
        self.gradient = operator("gated_sum_gradient", lambda gate, y, dout: (gate, y), 2)

    def construct(self, x: ms.Tensor, gate: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return self.forward(x, gate, y)

    def bprop(
        self, x: ms.Tensor, gate: ms.Tensor, y: ms.Tensor, out: ms.Tensor, dout: ms.Tensor
    ) -> tuple[ms.Tensor, ...]:
        dgate, dy = self.gradient(gate, y, dout)
        return dout, dgate, dy


class GatedSiLU(nn.Cell):
    """silu(gate) * up, of two of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.is_compiled = is_compiled()
        if self.is_compiled:
            self.fused = _GatedSiLU()

    def construct(self, gate: ms.Tensor, up: ms.Tensor) -> ms.Tensor:
        if self.is_compiled and gate.dtype == ms.float32:
            return self.fused(gate, up)
        return ops.silu(gate) * up


class _GatedSiLU(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("swiglu", lambda gate, up: gate)
        self.gradient = operator("swiglu_gradient", lambda gate, up, dout: (gate, up), 2)

    def construct(self, gate: ms.Tensor, up: ms.Tensor) -> ms.Tensor:
        return self.forward(gate, up)

    def bprop(self, gate: ms.Tensor, up: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor, ...]:
        return self.gradient(gate, up, dout)


class ExpandRows(nn.Cell):
    """(B, 1, D) -> (B, count, D), each vector repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.is_native = target() == "Ascend"

    def construct(self, vectors: ms.Tensor, count: int) -> ms.Tensor:
        batch, _, width = vectors.shape
        if self.is_native:
            return ops.broadcast_to(vectors, (batch, count, width))
        return ops.bmm(ops.ones((batch, count, 1), vectors.dtype), vectors)
