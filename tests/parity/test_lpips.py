"""The perceptual distance against the `lpips` package."""

import sys
from types import ModuleType, SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import ops
from safetensors.torch import save_file

from moviegen.data import assets
from moviegen.runs.arrays import save_arrays
from moviegen.tae.lpips import arrays_of_flax, load_lpips
from tests.parity.comparing import assert_equal, random_weights

RNG = np.random.default_rng(0)


def vgg16(pretrained):
    """`features` of torchvision's VGG16 (Simonyan and Zisserman, table 1, column D), at random weights."""
    layers, channels = [], 3
    for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU(inplace=True)]
            channels = width
        layers.append(torch.nn.MaxPool2d(2, 2))
    return SimpleNamespace(features=torch.nn.Sequential(*layers))


@pytest.fixture(scope="module")
def package():
    """The package. Of torchvision it uses the list of VGG16's layers alone, and torchvision's builds fit only their
    own build of PyTorch; so that list is given to it under torchvision's name."""
    torchvision = ModuleType("torchvision")
    torchvision.models = SimpleNamespace(vgg16=vgg16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", torchvision)
        import lpips
    return lpips


@pytest.fixture(scope="module")
def reference(package):
    """The package's distance at random weights; its heads are never negative."""
    distance = package.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    shapes = {name: tensor.shape for name, tensor in distance.state_dict().items() if "scaling" not in name}
    arrays = random_weights(shapes)
    kernels = {name: 1.4 * array if array.ndim == 4 else array for name, array in arrays.items()}  # ReLU takes half
    heads = {name: np.abs(array) if name.startswith("lin") else array for name, array in kernels.items()}
    shared = {name: heads[name.replace("lins.", "lin")] if name.startswith("lins.") else heads[name] for name in heads}
    distance.load_state_dict({name: torch.tensor(array) for name, array in shared.items()}, strict=False)
    return distance


@pytest.fixture(scope="module")
def ours(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "vgg.safetensors"
    save_file({name: tensor.clone() for name, tensor in reference.state_dict().items()}, path)
    return load_lpips(path)


def images(count, height, width):
    """Pairs that differ more and more."""
    a = RNG.uniform(-1, 1, (count, 3, height, width)).astype(np.float32)
    strength = np.linspace(0.01, 1, count, dtype=np.float32)[:, None, None, None]
    b = (1 - strength) * a + strength * RNG.uniform(-1, 1, a.shape).astype(np.float32)
    return a, b


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (32, 80), (37, 50)])
def test_distances_of_every_pair(ours, reference, size):
    a, b = images(4, *size)
    wanted = reference(torch.tensor(a), torch.tensor(b)).numpy().reshape(-1)
    distances = ours(ms.Tensor(a), ms.Tensor(b)).asnumpy()
    for one, its_reference in zip(distances, wanted, strict=True):
        assert_equal(one, its_reference)


def test_gradient_of_the_first_image(ours, reference):
    a, b = images(2, 32, 48)
    gradient = ops.grad(ours)(ms.Tensor(a), ms.Tensor(b)).asnumpy()
    with torch.enable_grad():
        image = torch.tensor(a, requires_grad=True)
        reference(image, torch.tensor(b)).sum().backward()
    assert_equal(gradient, image.grad.numpy())


@pytest.fixture(scope="module")
def fetched():
    """The trained weights that `data assets` fetches."""
    try:
        folder = assets.fetch(assets.PERCEPTUAL)
    except assets.AssetError as error:
        pytest.skip(str(error))
    return arrays_of_flax(folder / assets.PERCEPTUAL.members[0].name)


def test_trained_weights_give_the_packages_distance(package, fetched, tmp_path):
    """Its heads are the package's own, exactly; VGG16 is torchvision's, which the package would download."""
    distance = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    heads = {name: tensor for name, tensor in distance.state_dict().items() if name.startswith("lin")}
    for number in range(5):
        np.testing.assert_array_equal(fetched[f"lin{number}.model.1.weight"], heads[f"lin{number}.model.1.weight"])
    convolutions = {name: torch.tensor(array) for name, array in fetched.items() if name.startswith("net.")}
    assert not distance.load_state_dict(convolutions, strict=False).unexpected_keys
    save_arrays(tmp_path / "lpips.safetensors", fetched)
    a, b = images(4, 64, 64)
    wanted = distance(torch.tensor(a), torch.tensor(b)).numpy().reshape(-1)
    found = load_lpips(tmp_path / "lpips.safetensors")(ms.Tensor(a), ms.Tensor(b)).asnumpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert wanted[0] < 0.05 < 0.3 < wanted[-1]  # they differ more and more
