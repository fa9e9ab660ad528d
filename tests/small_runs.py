"""Finished runs with small untrained networks, in the place of those that a report would train for minutes."""

from collections.abc import Mapping

import mindspore as ms
import numpy as np

from moviegen import runs
from moviegen.config import DiTConfig, Params, TAEConfig, latent_size
from moviegen.data import videos
from moviegen.data.clips import Clip, save_index
from moviegen.data.embeddings import caption_file, save_embedding
from moviegen.data.latents import clip_buckets, latent_file
from moviegen.data.splits import data_folder, load_split
from moviegen.dit.model import DiT
from moviegen.dit.weights import save_dit
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import checksum, write_json
from moviegen.tae.model import TAE
from moviegen.tae.weights import save_tae
from moviegen.text.encoders import encoders, origins
from moviegen.train.batches import ClipSet, Samples

SMALL_TAE = TAEConfig(
    base_channels=4, channel_multipliers=(1, 1, 1, 2), num_res_blocks=1, num_groups=2, scaling_factor=2.0,
    shift_factor=0.5,
)  # fmt: skip


def random_dit(config: DiTConfig, seed: int = 0) -> DiT:
    """A transformer that moves: a new one's last layer is zero, and so is its velocity."""
    ms.set_seed(seed)  # its own initial values must not follow from the tests before
    dit, rng = DiT(config), np.random.default_rng(seed)
    for parameter in dit.get_parameters():
        size = 0.3 / max(1, parameter.shape[-1]) ** 0.5
        parameter.set_data(ms.Tensor(parameter.asnumpy() + size * rng.standard_normal(parameter.shape, np.float32)))
    return dit


def latent_set(names: tuple[str, ...], samples: Samples) -> ClipSet:
    """Clips of one bucket that are in memory."""

    def read(indices: np.ndarray) -> Samples:
        text = tuple(array[indices] for array in samples.text)
        return Samples(samples.mean[indices], samples.std[indices], text)

    return ClipSet(names, read)


def write_data(params: Params, captions: list[str], paraphrases: Mapping[str, str] | None = None) -> None:
    """A finished data run of a clip for each caption, the first half of them of the validation set.

    Args:
        paraphrases: of a caption; those that are not named have none.
    """
    root, clips = data_folder(params), []
    for index, caption in enumerate(captions):
        path = root / "mixkit" / f"{index}.mp4"
        frames = np.random.default_rng(index).integers(0, 256, (params.mixkit_frames, 32, 48, 3), dtype=np.uint8)
        videos.write_video(path, frames, 25)
        known = {"frames": len(frames), "height": 32, "width": 48, "paraphrase": (paraphrases or {}).get(caption, "")}
        clips.append(Clip(path, caption, "mixkit", index, fps=25, **known))
    with runs.record(runs.find(params, "data")) as run:
        save_index(run.folder / "mixkit_val.csv", clips[: len(clips) // 2], root)
        save_index(run.folder / "mixkit_train.csv", clips[len(clips) // 2 :], root)


def write_text(params: Params, captions: list[str]) -> None:
    """A finished text run: embeddings of the captions and of the empty one."""
    with runs.record(runs.find(params, "text")) as run:
        write_json(run.folder / "summary.json", {"origin": origins(encoders(params))})
        for place, (name, encoder) in enumerate(params.text.encoders.items()):
            for index, caption in enumerate(["", *captions]):
                rng = np.random.default_rng([place, index])
                save_embedding(
                    caption_file(run.folder, name, caption),
                    text_emb=rng.standard_normal((encoder.max_tokens, encoder.width), np.float32),
                    mask=np.arange(encoder.max_tokens) <= index,
                    tokens=np.zeros(encoder.max_tokens, np.int64),
                )


def write_dit(params: Params, stage: int) -> None:
    """A finished training stage."""
    with runs.record(runs.find(params, f"stage{stage}")) as run:
        save_dit(run.folder / "dit.safetensors", random_dit(params.dit_config(stage), stage))


def write_tae(params: Params) -> None:
    """A finished run of the autoencoder."""
    with runs.record(runs.find(params, "tae-mixkit")) as run:
        save_tae(run.folder / "tae.safetensors", TAE(SMALL_TAE))


def write_latents(params: Params) -> None:
    """A finished precompute run: random latents of every clip, after `write_data` and `write_tae`."""
    data, tae, root = runs.find(params, "data"), runs.find(params, "tae-mixkit"), data_folder(params)
    clips = [*load_split(data, "mixkit_train"), *load_split(data, "mixkit_val")]
    rng = np.random.default_rng(0)
    with runs.record(runs.find(params, "latents")) as run:
        for bucket, clip in clip_buckets(params, clips):
            mean = rng.standard_normal((16, *latent_size(*bucket)), np.float32)
            save_npz(latent_file(run.folder, bucket, clip, root), latent_mean=mean, latent_std=np.exp(-2 - mean**2))
        write_json(run.folder / "summary.json", {"tae_sha256": checksum(tae.folder / "tae.safetensors")})
