"""Trains the PyTorch twins on a GPU, by their own clock; `tests.parity.shipping` takes over what is better.

    python -m tests.parity.training_data tae build/tae --config pretrain
    python -m tests.parity.pretraining tae build/tae --start params/weights/tae.safetensors --minutes 5
    python -m tests.parity.shipping tae build/tae --config pretrain
    python -m moviegen data index --config small; python -m moviegen text encode --config small
    python -m tests.parity.training_data transformer build/transformer --config small
    python -m tests.parity.encoding build/transformer --tae params/weights/tae.safetensors
    python -m tests.parity.pretraining transformer build/transformer --minutes 6
    python -m tests.parity.shipping transformer build/transformer --config small

The twins are the same networks (`make parity` compares them), the losses and the data those of `params/pretrain.yaml`
and `params/small.yaml`; what differs is in `Recipe`: larger batches, a learning rate that falls to zero when the time
is over, and arithmetic in bfloat16. This file needs PyTorch, OpenCV and safetensors, and nothing of moviegen, so that
it also runs where only these are. It leaves `weights.safetensors`, the average of the weights by the twin's names, and
`training.json`, both written again every minute.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from torch import nn

from tests.parity.names import RECORD, START, WEIGHTS
from tests.parity.torch_dit import TorchDiT
from tests.parity.torch_lpips import TorchLPIPS
from tests.parity.torch_tae import TorchTAE

SIGMA_MIN = 1e-5
SAVING_SECONDS = 60


@dataclass(frozen=True)
class Recipe:
    """What decides a training; the names are those of the params files."""

    lr: float
    warmup_steps: int
    ema_decay: float
    batch_size: int
    image_batch_size: int
    image_ratio: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-15
    weight_decay: float = 0.0
    clip_norm: float = 1.0


@dataclass(frozen=True)
class TAERecipe(Recipe):
    """The autoencoder's: crops, and the weights of the losses; L1 has weight 1."""

    size: tuple[int, int] = (144, 144)
    frames: int = 16
    perceptual: float = 0.5
    perceptual_frames: int = 4
    kl: float = 1e-6


@dataclass(frozen=True)
class TransformerRecipe(Recipe):
    """The transformer's."""

    text_drop_prob: float = 0.2
    token_drop_prob: float = 0.3
    time_shift: float = 4.0


RECIPES = {
    "tae": TAERecipe(
        lr=6e-4, warmup_steps=100, ema_decay=0.998, batch_size=8, image_batch_size=32, image_ratio=0.2
    ),
    "transformer": TransformerRecipe(
        lr=1.5e-3, warmup_steps=300, ema_decay=0.999, batch_size=128, image_batch_size=128, image_ratio=0.1, eps=1e-8
    ),
}  # fmt: skip


class Training:
    """Weights in float32, their average, and how they follow from gradients until the time is over.

    Args:
        network: what is trained.
        seconds: after which the learning rate is zero.
        folder: where weights and record go.
        record: what the record says besides.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, seconds: float, folder: Path, record: dict) -> None:
        self.weights, self.recipe, self.seconds = dict(network.named_parameters()), recipe, seconds
        self.folder, self.record, self.steps, self.losses = folder, record, 0, []
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        settings = {"betas": recipe.betas, "eps": recipe.eps, "weight_decay": recipe.weight_decay}
        on_gpu = next(iter(self.weights.values())).is_cuda
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=0.0, fused=on_gpu, **settings)
        self.started = self.saved = time.perf_counter()

    def rate(self) -> float:
        """Rises over the first steps, and falls to zero as half a cosine of the time that has passed."""
        passed = min(1.0, (time.perf_counter() - self.started) / self.seconds)
        rising = min(1.0, (self.steps + 1) / self.recipe.warmup_steps)
        return self.recipe.lr * rising * 0.5 * (1 + math.cos(math.pi * passed))

    def run(self, step: Callable[[], dict[str, torch.Tensor]]) -> None:
        """Updates by the gradients that `step` leaves with its losses, the first of which is the total."""
        while time.perf_counter() - self.started < self.seconds:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate()
            losses = step()
            nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.clip_norm, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.steps += 1
            with torch.no_grad():
                decay = min(self.recipe.ema_decay, (1 + self.steps) / (10 + self.steps))
                torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)
            if self.steps % 100 == 0 or self.steps < 4:
                self.note(losses)
            if time.perf_counter() - self.saved > SAVING_SECONDS:
                self.save()
        self.save()

    def note(self, losses: dict[str, torch.Tensor]) -> None:
        values = {name: round(loss.item(), 5) for name, loss in losses.items()}
        self.losses.append({"step": self.steps, "seconds": round(time.perf_counter() - self.started, 1), **values})
        print(json.dumps(self.losses[-1]), flush=True)

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.saved = time.perf_counter()
        save_file({name: weight.cpu().numpy() for name, weight in self.average.items()}, self.folder / WEIGHTS)
        seconds = round(self.saved - self.started, 2)
        record = {**self.record, "steps": self.steps, "seconds": seconds, "losses": self.losses}
        (self.folder / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")


# The autoencoder


def videos(folder: Path, device: torch.device) -> list[torch.Tensor]:
    """The clips of a folder, uint8 (T, 3, H, W)."""
    with ThreadPoolExecutor() as threads:
        return [frames.to(device) for frames in threads.map(frames_of, sorted(folder.iterdir()))]


def frames_of(path: Path) -> torch.Tensor:
    """A video's frames, uint8 (T, 3, H, W)."""
    import cv2  # where PyTorch is, PyAV need not be; only what reads videos needs it

    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def crop(video: torch.Tensor, frames: int, size: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
    """Random frames at a random place and a scale between just covering and the video's own: (3, T, H, W)."""
    length, _, *whole = video.shape
    cover = max(wanted / there for wanted, there in zip(size, whole, strict=True))
    scale = rng.uniform(cover, max(cover, 1.0))
    sides = [min(there, round(wanted / scale)) for wanted, there in zip(size, whole, strict=True)]
    start = rng.integers(length - frames + 1)
    top, left = (rng.integers(there - side + 1) for there, side in zip(whole, sides, strict=True))
    window = video[start : start + frames, :, top : top + sides[0], left : left + sides[1]].float()
    return F.interpolate(window, size, mode="bilinear", antialias=True).transpose(0, 1) / 127.5 - 1


def lpips_arrays(path: Path) -> dict[str, np.ndarray]:
    """VGG16 and the heads of LPIPS, out of the 8 bits that they were stored in."""
    stored = dict(np.load(path))
    scales = {name.removesuffix(".scale"): stored.pop(name) for name in list(stored) if name.endswith(".scale")}
    return {name: array * scales[name] if name in scales else array for name, array in stored.items()}


def tae_losses(
    tae: TorchTAE, lpips: TorchLPIPS, recipe: TAERecipe, video: torch.Tensor, noise: torch.Tensor, seen: list[int]
) -> dict[str, torch.Tensor]:
    """The total, and each term; see `moviegen.tae.losses`."""
    restored, mean, logvar = (x.float() for x in tae(video.to(noise.dtype), noise))
    reconstruction = (restored - video).abs().mean()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum() / (video.shape[0] * video.shape[2])
    perceptual = lpips(*(x[:, :, seen].transpose(1, 2).flatten(0, 1) for x in (restored, video))).mean()
    total = reconstruction + recipe.perceptual * perceptual + recipe.kl * kl
    return {"total": total, "reconstruction": reconstruction, "perceptual": perceptual, "kl": kl}


def train_tae(folder: Path, start: Path, settings: dict, training: Callable[..., Training], dtype: torch.dtype) -> None:
    device, rng = settings["device"], np.random.default_rng(settings["seed"])
    clips, network = videos(folder / "clips", device), SimpleNamespace(**settings["network"])
    tae = TorchTAE(network)
    tae.load({name: array.astype(np.float32) for name, array in load_file(start).items()})
    tae.to(device)
    lpips = TorchLPIPS(lpips_arrays(folder / "lpips.npz")).to(device, dtype).eval()
    lpips.shift, lpips.scale = lpips.shift.float(), lpips.scale.float()
    computing = copy.deepcopy(tae).to(dtype)  # norms and sums inside take their statistics in float32
    weights, used = list(tae.parameters()), list(computing.parameters())
    gradients = [torch.zeros_like(weight) for weight in weights]
    job = training(tae)
    recipe = job.recipe

    def step() -> dict[str, torch.Tensor]:
        is_image = rng.random() < recipe.image_ratio
        count, frames = (recipe.image_batch_size, 1) if is_image else (recipe.batch_size, recipe.frames)
        chosen = rng.choice(len(clips), count, replace=count > len(clips))
        video = torch.stack([crop(clips[index], frames, recipe.size, rng) for index in chosen])
        shape = (count, network.latent_channels, -(-frames // 8), recipe.size[0] // 8, recipe.size[1] // 8)
        with torch.no_grad():
            torch._foreach_copy_(used, weights)
        seen = sorted(rng.choice(frames, min(frames, recipe.perceptual_frames), replace=False).tolist())
        noise = torch.randn(shape, device=device, dtype=dtype)
        losses = tae_losses(computing, lpips, recipe, video, noise, seen)
        losses["total"].backward()
        torch._foreach_copy_(gradients, [weight.grad for weight in used])
        for weight, gradient, other in zip(weights, gradients, used, strict=True):
            weight.grad, other.grad = gradient, None
        return losses

    job.run(step)


# The transformer


@dataclass(frozen=True)
class Bucket:
    """Latents of one shape, and what their captions say: (n, ...) each."""

    mean: torch.Tensor
    std: torch.Tensor
    text: torch.Tensor
    mask: torch.Tensor


def buckets(folder: Path, device: torch.device) -> dict[str, Bucket]:
    """By name: `16x144x240`."""
    return {
        path.stem: Bucket(**{name: torch.tensor(array).to(device) for name, array in np.load(path).items()})
        for path in sorted(folder.glob("*x*x*.npz"))
    }


def training_times(count: int, shift: float, device: torch.device) -> torch.Tensor:
    """Logit-normal, moved towards noise."""
    t = torch.randn(count, device=device).sigmoid()
    return t / (t + shift * (1 - t))


def told(bucket: Bucket, chosen: torch.Tensor, empty: Mapping[str, torch.Tensor], recipe: TransformerRecipe) -> tuple:
    """Embeddings and mask of the chosen captions, some of them empty, of all of them some tokens hidden."""
    dropped = torch.rand(len(chosen), device=chosen.device) < recipe.text_drop_prob
    text = torch.where(dropped[:, None, None], empty["text"], bucket.text[chosen])
    mask = torch.where(dropped[:, None], empty["mask"], bucket.mask[chosen])
    left = mask & (torch.rand(mask.shape, device=mask.device) >= recipe.token_drop_prob)
    return text, torch.where(left.any(1, keepdim=True), left, mask)


def flow_matching_loss(
    dit: nn.Module, x_1: torch.Tensor, x_0: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """See `moviegen.flow.path`; the other two encoders are left out."""
    times = t.view(-1, 1, 1, 1, 1)
    x_t = times * x_1 + (1 - (1 - SIGMA_MIN) * times) * x_0
    velocity = dit(x_t, 1000 * (1 - t), text, mask=mask).float()
    return (velocity - (x_1 - (1 - SIGMA_MIN) * x_0)).square().mean()


def train_transformer(
    folder: Path, start: Path, settings: dict, training: Callable[..., Training], dtype: torch.dtype
) -> None:
    device, rng = settings["device"], np.random.default_rng(settings["seed"])
    clips = buckets(folder, device)
    empty = {name: torch.tensor(array).to(device) for name, array in np.load(folder / "empty.npz").items()}
    dit = TorchDiT(SimpleNamespace(**settings["network"]))
    dit.load_state_dict({name: torch.tensor(array).float() for name, array in load_file(start).items()})
    dit.to(device)
    dit.frequencies = dit.frequencies.to(device)
    if settings["is_compiled"]:
        for layer in dit.layers:  # one graph for all of them
            layer.compile(dynamic=False)
    job = training(dit)
    recipe = job.recipe
    media = [[name for name in clips if name.startswith("1x") == is_image] for is_image in (False, True)]

    def step() -> dict[str, torch.Tensor]:
        is_image = rng.random() < recipe.image_ratio
        names, count = media[is_image], recipe.image_batch_size if is_image else recipe.batch_size
        sizes = np.array([len(clips[name].mean) for name in names])
        bucket = clips[names[rng.choice(len(names), p=sizes / sizes.sum())]]
        chosen = torch.randint(len(bucket.mean), (count,), device=device)
        mean = bucket.mean[chosen].float()
        x_1 = mean + bucket.std[chosen].float() * torch.randn_like(mean)
        text, mask = told(bucket, chosen, empty, recipe)
        times = training_times(count, recipe.time_shift, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = flow_matching_loss(dit, x_1, torch.randn_like(x_1), times, text.float(), mask)
        loss.backward()
        return {"total": loss}

    job.run(step)


def machine(device: torch.device) -> dict[str, str]:
    gpu = {"gpu": torch.cuda.get_device_name()} if device.type == "cuda" else {}
    return {**gpu, "system": platform.system()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(RECIPES))
    parser.add_argument("data", type=Path, help="what `tests.parity.training_data` wrote")
    parser.add_argument("--start", type=Path, help=f"weights to start from; default: {START} among the data")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--output", type=Path, help="default: the folder of the data")
    parser.add_argument("--recipe", type=json.loads, default={}, metavar="JSON", help="other values of the recipe")
    parser.add_argument("--eager", action="store_true", help="do not compile the transformer's blocks")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: bfloat16 on a GPU")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, options.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    is_compiled = device.type == "cuda" and not options.eager
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    settings = json.loads((options.data / "settings.json").read_text(encoding="utf-8"))
    torch.manual_seed(settings["seed"])
    defaults = RECIPES[options.what]
    recipe = type(defaults)(**{**asdict(defaults), **options.recipe})
    record = {
        "program": f"tests.parity.pretraining {options.what}",
        "data": settings["data"],
        "parameters": {"network": settings["network"], "seed": settings["seed"], "recipe": asdict(recipe)}
        | {
            "start": str(options.start or START),
            "minutes": options.minutes,
            "dtype": str(dtype).removeprefix("torch."),
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": machine(device),
    }

    def training(network: nn.Module) -> Training:
        return Training(network, recipe, 60 * options.minutes, options.output or options.data, record)

    train = {"tae": train_tae, "transformer": train_transformer}[options.what]
    train(
        options.data,
        options.start or options.data / START,
        settings | {"device": device, "is_compiled": is_compiled},
        training,
        dtype,
    )


if __name__ == "__main__":
    main()
