"""LPIPS: the perceptual distance of Zhang et al. 2018, over the features of a frozen VGG16 (paper 3.1.1)."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from moviegen.config import Params, weights_file
from moviegen.device.video import Convolution
from moviegen.runs.arrays import CheckpointError, unwrapped
from moviegen.runs.weights import assign, load_arrays

# VGG16's convolutions, by their place in torchvision's `features`, in five slices; pooling is between slices.
SLICES = (
    ((0, 64), (2, 64)),
    ((5, 128), (7, 128)),
    ((10, 256), (12, 256), (14, 256)),
    ((17, 512), (19, 512), (21, 512)),
    ((24, 512), (26, 512), (28, 512)),
)
# Mean and standard deviation of ImageNet's pixels, for pixels in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
TINY = 1e-20  # under the root of a length, whose slope at zero is infinite


class LPIPS(nn.Cell):
    """Distance of two images as people see it: 0 for equal ones. Frozen; differentiable in both images.

    Inputs: two (N, 3, H, W) in [-1, 1], H and W at least 16. Output: (N,).
    """

    def __init__(self) -> None:
        super().__init__()
        slices, heads, channels = [], [], 3
        for number, places in enumerate(SLICES):
            layers: list[nn.Cell] = [nn.MaxPool2d(2, 2)] if number else []
            for _, width in places:
                layers += [Convolution(channels, width, bias_init=None), nn.ReLU()]
                channels = width
            slices.append(nn.SequentialCell(layers))
            heads.append(Parameter(ms.Tensor(np.zeros((1, channels, 1, 1)), ms.float32), name=f"head{number}"))
        self.slices = nn.CellList(slices)
        self.heads = ms.ParameterTuple(heads)
        self.shift = ms.Tensor(np.reshape(SHIFT, (1, 3, 1, 1)), ms.float32)
        self.scale = ms.Tensor(np.reshape(SCALE, (1, 3, 1, 1)), ms.float32)
        for parameter in self.get_parameters():
            parameter.requires_grad = False
        self.dtype = ms.float32

    def compute_in(self, dtype: ms.Type) -> None:
        """The type in which VGG16 computes; what it finds is compared in float32. Before anything is compiled."""
        self.dtype = dtype

    def construct(self, a: ms.Tensor, b: ms.Tensor) -> ms.Tensor:
        a, b = self._normalised(a).astype(self.dtype), self._normalised(b).astype(self.dtype)
        distance = 0.0
        for number in range(len(SLICES)):
            a, b = self.slices[number](a), self.slices[number](b)
            count, channels = a.shape[:2]
            difference = self._unit(a.astype(ms.float32)) - self._unit(b.astype(ms.float32))
            head = ops.tile(self.heads[number].reshape(1, 1, channels), (count, 1, 1))
            distance = distance + ops.bmm(head, difference * difference).mean((1, 2))  # += would copy all weights
        return distance

    def _normalised(self, images: ms.Tensor) -> ms.Tensor:
        count, _, height, width = images.shape
        shift, scale = (ops.tile(each, (count, 1, height, width)) for each in (self.shift, self.scale))
        return (images - shift) / scale

    def _unit(self, features: ms.Tensor) -> ms.Tensor:
        """Every position's features as a vector of length 1: (N, C, H, W) -> (N, C, H*W).

        Sums and what is repeated are products: on CPU an operator that broadcasts keeps 16 bytes for each number that
        it gave.
        """
        count, channels = features.shape[:2]
        vectors = features.reshape(count, channels, -1)
        squares = ops.bmm(ops.ones((count, 1, channels), vectors.dtype), vectors * vectors)
        lengths = ops.sqrt(squares + TINY) + 1e-10
        return vectors * ops.bmm(ops.ones((count, channels, 1), vectors.dtype), 1 / lengths)

    def published_names(self) -> list[tuple[str, Parameter]]:
        """The parameters by their names in the state of `lpips.LPIPS(net="vgg")`."""
        named = []
        for number, (places, layers, head) in enumerate(zip(SLICES, self.slices, self.heads, strict=True)):
            convolutions = [layer for layer in layers if isinstance(layer, Convolution)]
            for (place, _), layer in zip(places, convolutions, strict=True):
                prefix = f"net.slice{number + 1}.{place}"
                named += [(f"{prefix}.weight", layer.weight), (f"{prefix}.bias", layer.bias)]
            named.append((f"lin{number}.model.1.weight", head))
        return named


@dataclass(frozen=True)
class FrameDistance:
    """LPIPS of every `interval`-th frame of a clip, the first of them in the middle of the first `interval`."""

    lpips: LPIPS
    interval: int

    def __call__(self, original: np.ndarray, restored: np.ndarray) -> float:
        """Its mean; uint8 (T, H, W, 3) twice."""
        first = min((self.interval - 1) // 2, len(original) - 1)
        chosen = [clip[first :: self.interval].transpose(0, 3, 1, 2) for clip in (original, restored)]
        return float(self.lpips(*(ms.Tensor(frames / np.float32(127.5) - 1) for frames in chosen)).asnumpy().mean())


def frame_distance(params: Params) -> FrameDistance | None:
    """The distance that clips are scored by, where parameters name its weights."""
    path = params.tae.loss.lpips_checkpoint
    if not path:
        return None
    return FrameDistance(
        load_lpips(weights_file("tae.loss.lpips_checkpoint", path)), params.tae.evaluation.lpips_interval
    )


class _ArraysOnly(pickle.Unpickler):
    """Refuses every class but those that an array is made of: others could run code."""

    ALLOWED = (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def arrays_of_flax(path: Path) -> dict[str, np.ndarray]:
    """The state of `lpips.LPIPS(net="vgg")`, from a pickle of Flax's `VGG16_0` and `NetLinLayer_<n>`.

    Raises:
        CheckpointError: the file is damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            return _published(_ArraysOnly(file).load())
    except Exception as error:  # pickle documents none of those that a damaged file may raise
        kind = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} does not hold VGG16 and the heads of LPIPS as Flax does ({kind})") from None


def _published(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    arrays, number = dict[str, np.ndarray](), itertools.count()
    for index, places in enumerate(SLICES):
        for place, _ in places:
            layer, prefix = tree["VGG16_0"][f"Conv_{next(number)}"], f"net.slice{index + 1}.{place}"
            arrays |= {f"{prefix}.weight": _from_hwio(layer["kernel"]), f"{prefix}.bias": layer["bias"]}
        arrays[f"lin{index}.model.1.weight"] = _from_hwio(tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"])
    return arrays


def _from_hwio(kernel: np.ndarray) -> np.ndarray:
    """(H, W, in, out) -> (out, in, H, W)."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def load_lpips(path: Path) -> LPIPS:
    """The distance with a file's weights: named as the state of `lpips.LPIPS(net="vgg")`, or a pickle of Flax's.

    Raises:
        CheckpointError: the file is damaged, or does not hold VGG16 and the five heads.
    """
    network = LPIPS()
    arrays = arrays_of_flax(path) if _is_pickle(path) else unwrapped(load_arrays(path)[0])
    # the package keeps its heads twice, and constants beside its weights
    arrays = {name: array for name, array in arrays.items() if not name.startswith(("lins.", "scaling_layer."))}
    assign(dict(network.published_names()), arrays, str(path))
    return network
