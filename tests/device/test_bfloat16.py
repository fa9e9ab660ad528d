"""On CPU bfloat16 rounds the factors of products and nothing else; where it cannot be had, it is said why."""

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from moviegen import config, device
from moviegen.__main__ import main
from moviegen.device import compiled, compiler, precision
from moviegen.device.attention import Attention
from moviegen.device.kernels import Product
from moviegen.device.precision import compute_in
from moviegen.dit.model import DiT

RNG = np.random.default_rng(0)
BITS = """
import zlib
from moviegen.device import compiled
from tests.device import test_bfloat16 as test
compiled.check_bfloat16()  # asks the system for tiles
for arrays in (test.products(70, 300, 50), test.products(700, 520, 100), test.attention(1, 300, 400, 2, 32)):
    print(*(zlib.crc32(array.tobytes()) for array in arrays))
"""


@cache
def fault():
    """Why there are no such products here, if there are none."""
    try:
        compiled.check_bfloat16()
    except compiler.NoBfloat16Error as error:
        return str(error)
    return ""


@pytest.fixture
def tiles():
    if fault():
        pytest.skip(fault())


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def rounded(array):
    """The nearest bfloat16, ties to even, in float64."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def assert_close(found, wanted, most=1e-5):
    """On average to 1e-5 of the largest; probabilities beside the middle of two bfloat16 may become either: `most`."""
    for mine, truth in zip(found, wanted, strict=True):
        error = np.abs(mine - truth) / np.abs(truth).max()
        assert error.mean() <= 1e-5
        assert error.max() <= most


def products(rows, inputs, outputs):
    """x, weight, dy, x weight^T and its gradients."""
    product, arrays = Product(), [random(rows, inputs), random(outputs, inputs), random(rows, outputs)]
    product.round_factors()
    x, weight, dy = map(ms.Tensor, arrays)
    gradients = ops.grad(lambda x, weight: (product(x, weight) * dy).sum(), (0, 1))(x, weight)
    return [*arrays, *(tensor.asnumpy() for tensor in (product(x, weight), *gradients))]


def attention(batch, queries, keys, heads, width, keep=None):
    """q, k, v, dout, attention and its gradients."""
    kernel = Attention(heads, width)
    kernel.round_factors()
    arrays = [random(batch, count, heads, width) for count in (queries, keys, keys, queries)]
    q, k, v, dout = map(ms.Tensor, arrays)
    mask = None if keep is None else ms.Tensor(keep)
    gradients = ops.grad(lambda q, k, v: (kernel(q, k, v, mask) * dout).sum(), (0, 1, 2))(q, k, v)
    return [*arrays, *(tensor.asnumpy() for tensor in (kernel(q, k, v, mask), *gradients))]


def summed(scores, v, together=256):
    """The sum of e^(score - largest) v, rounded as the operator does: by the largest so far of `together` keys each."""
    starts = range(0, scores.shape[-1], together)
    parts = [scores[..., start : start + together] for start in starts]
    tops = np.maximum.accumulate([part.max(-1, keepdims=True) for part in parts])
    return sum(
        rounded(np.exp(part - top)) @ v[..., start : start + together, :] * np.exp(top - tops[-1])
        for start, part, top in zip(starts, parts, tops, strict=True)
    )


def numpy_attention(q, k, v, dout, keep):
    """The same with rounded factors: of probabilities and of the scores' gradients too."""
    q, k, v, exact = (array.swapaxes(1, 2) for array in (q, k, v, dout))
    rq, rk, rv, rdout, scale = rounded(q), rounded(k), rounded(v), rounded(exact), q.shape[-1] ** -0.5
    scores = rq @ rk.swapaxes(-1, -2) * scale
    if keep is not None:
        scores = np.where(keep[:, None, None], scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    total = powers.sum(-1, keepdims=True)
    out, p = summed(scores, rv) / total, powers / total
    ds = p * (rdout @ rv.swapaxes(-1, -2) - (out * exact).sum(-1, keepdims=True)) * scale
    rp, rds = rounded(p).swapaxes(-1, -2), rounded(ds)
    return [array.swapaxes(1, 2) for array in (out, rds @ rk, rds.swapaxes(-1, -2) @ rq, rp @ rdout)]


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (3, 5, 7), (33, 31, 17), (100, 300, 50), (1000, 513, 333), (17, 4000, 40), (4096, 64, 96)]
)
def test_products_of_rounded_factors_and_their_gradients(tiles, eager, sizes):
    x, weight, dy, *found = products(*sizes)
    x, weight, dy = map(rounded, (x, weight, dy))
    assert_close(found, (x @ weight.T, dy @ weight, dy.T @ x))


def test_a_product_rounds_its_factors_and_not_its_sum(tiles, eager):
    product = Product()
    product.round_factors()
    x = np.array([[1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-9], [1, 256, 2**-9]], np.float32)  # two ties, to even; one not
    found = product(ms.Tensor(x), ms.Tensor(np.ones((1, 3), np.float32))).asnumpy()
    np.testing.assert_array_equal(found, [[3 + 2**-6], [257 + 2**-9]])


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("sizes", [(1, 5, 7, 1, 3), (2, 33, 70, 2, 16), (1, 300, 600, 2, 64)])
def test_attention_of_rounded_factors_and_its_gradients(tiles, eager, sizes, is_masked):
    keep = RNG.random((sizes[0], sizes[2])) > 0.3 if is_masked else None
    *arrays, out, dq, dk, dv = attention(*sizes, keep)
    assert_close((out, dq, dk, dv), numpy_attention(*arrays, keep), most=2e-3)


def test_one_thread_and_two_and_a_second_run_give_the_same_bits(tiles):
    def bits(threads):
        variables = {compiled.THREADS: threads}
        command = [sys.executable, "-c", BITS]
        done = subprocess.run(command, env=os.environ | variables, cwd=Path(__file__).parents[2], capture_output=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    runs = [bits(threads) for threads in ("1", "2", "2")]
    assert runs[0] and runs == runs[:1] * 3


def test_a_transformer_keeps_float32_but_for_its_products(tiles, eager):
    sizes = config.load("smoke").dit_config(1)
    whole, rounds = DiT(sizes), DiT(sizes, dtype=ms.bfloat16)
    assert rounds.dtype == ms.float32
    ms.load_param_into_net(rounds, whole.parameters_dict())
    for dit in (whole, rounds):  # zero at the start
        dit.final_layer.proj.weight.set_data(ms.Tensor(np.ones(dit.final_layer.proj.weight.shape, np.float32)))
    latent = ms.Tensor(random(1, sizes.latent_channels, 1, 4, 4))
    texts = [ms.Tensor(random(1, 3, width)) for width in sizes.text_widths]
    one, other = (dit(latent, ms.Tensor([300.0]), *texts).asnumpy() for dit in (whole, rounds))
    error = np.abs(one - other).max() / np.abs(one).max()
    assert 1e-5 < error < 5e-2


@pytest.mark.parametrize("dtype", [ms.float32, ms.float16])
def test_other_types_change_nothing(dtype):
    product = Product()
    assert compute_in(product, dtype) == dtype
    assert not compiled.is_compiled() or "bfloat16" not in product.fused.forward.func


# --- where there are none ---


@pytest.fixture
def compiled_form(monkeypatch):
    if not compiled.is_compiled():
        pytest.skip("MindSpore's own operators are chosen")


def test_mindspores_own_operators_have_none(monkeypatch):
    monkeypatch.setenv(compiled.CHOICE, "mindspore")
    with pytest.raises(compiler.NoBfloat16Error, match=r"takes on CPU compiled operators.*MOVIEGEN_OPERATORS.*float32"):
        DiT(config.load("smoke").dit_config(1), dtype=ms.bfloat16)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="others have no such instructions")
def test_what_the_processor_lacks_is_named(monkeypatch, compiled_form):
    monkeypatch.setattr(compiler, "instructions", lambda: {"avx512f", "amx_tile"})
    with pytest.raises(compiler.NoBfloat16Error, match="this one has no amx_bf16, avx512_bf16; write float32"):
        compiled.check_bfloat16()


def test_a_system_that_gives_no_tiles_is_named(monkeypatch, compiled_form):
    monkeypatch.setattr(compiler, "instructions", lambda: set(compiler.BFLOAT16))
    monkeypatch.setattr(compiled.ctypes.CDLL, "moviegen_bfloat16", lambda self: 0, raising=False)
    with pytest.raises(compiler.NoBfloat16Error, match="AMX's tiles, which this system does not allow; write float32"):
        compiled.check_bfloat16()


def test_it_is_refused_before_anything_is_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    words = ["--launch.operators", "mindspore", "--train.settings.dtype", "bfloat16"]
    assert main(["train", "--config", "smoke", "--stage", "1", *words]) == 2
    assert "error: train.settings.dtype bfloat16 takes on CPU compiled operators" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_a_card_has_them(monkeypatch):
    monkeypatch.setattr(precision, "target", lambda: "Ascend")
    assert compute_in(Product(), ms.bfloat16) == ms.bfloat16
    assert device.compute_dtype("bfloat16") == ms.bfloat16
