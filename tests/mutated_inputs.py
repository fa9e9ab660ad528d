"""`python -m tests.mutated_inputs FOLDER`: damaged files through the loaders of the programs, a line of JSON for each.

In a process of its own: MindSpore, safetensors and tokenizers are native code, and a crash there is a result too.
"""
# ruff: noqa: I001 - moviegen before MindSpore

import copy
import faulthandler
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from moviegen import config
import mindspore as ms
from moviegen.config import DiTConfig, Save, TAEConfig, Text, TextEncoder
from moviegen.data.embeddings import (
    caption_file,
    check_captions,
    check_origins,
    open_embeddings,
    read_embeddings,
    save_embedding,
)
from moviegen.data.latents import check_latents, check_origin, load_latent, open_latents
from moviegen.dit.model import DiT
from moviegen.dit.inference import load_dit
from moviegen.dit.weights import save_dit
from moviegen.programs.transcode import read_encoded
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import checksum, write_json
from moviegen.runs.weights import to_arrays
from moviegen.tae.model import TAE
from moviegen.tae.weights import load_tae, load_weights, save_tae
from moviegen.text.encoders import Pretrained
from moviegen.train.checkpoint import Checkpoints
from tests.mutations import mutations
from tests.text.making import write_ul2
from tests.train.conftest import parts_of

COUNT, SECONDS = 35, 60
SMALL = TAEConfig(base_channels=2, channel_multipliers=(1, 1, 1, 1), num_res_blocks=1, num_groups=1)
DIT = DiTConfig(width=8, ffn_width=8, num_heads=2, num_layers=1, max_size=(1, 2, 2), text_widths=(4, 4, 4))
TEXT = Text.model_validate({name: TextEncoder(width=4, max_tokens=3) for name in ("ul2", "metaclip", "byt5")})
ODD = (None, -1, 0, 1.5, 2**31, 2**70, 1e300, float("nan"), "", "x" * 300, "../x", [], {}, [[]], True)


class Kind:
    """A file that some program reads: `path` is damaged, and `load` reads it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.path = self.make()


class TaeWeights(Kind):
    def make(self):
        save_tae(self.folder / "tae.safetensors", TAE(SMALL))
        return self.folder / "tae.safetensors"

    def load(self):
        load_tae(self.path)


class Ckpt(Kind):
    def make(self):
        self.tae = TAE(SMALL)
        parameters = self.tae.parameters_and_names()
        path = self.folder / "tae.ckpt"
        ms.save_checkpoint([{"name": name, "data": parameter} for name, parameter in parameters], str(path))
        return path

    def load(self):
        load_weights(self.tae, self.path)


class NpzWeights(Ckpt):
    def make(self):
        self.tae = TAE(SMALL)
        np.savez_compressed(self.folder / "tae.npz", **to_arrays(dict(self.tae.parameters_and_names())))
        return self.folder / "tae.npz"


class DitWeights(Kind):
    def make(self):
        save_dit(self.folder / "dit.safetensors", DiT(DIT))
        return self.folder / "dit.safetensors"

    def load(self):
        load_dit(self.path, DIT)


class Latent(Kind):
    def make(self):
        for name in ("good", "clip"):
            latent = np.random.default_rng(0).standard_normal((2, 1, 2, 2), np.float32)
            save_npz(self.folder / f"{name}.npz", latent_mean=latent, latent_std=latent)
        return self.folder / "clip.npz"

    def load(self):
        check_latents(open_latents(self.folder), [self.folder / "good.npz", self.path])
        assert {array.shape for array in load_latent(self.path)} == {(2, 1, 2, 2)}


class Embedding(Kind):
    def make(self):
        for name in TEXT.encoders:
            arrays = {"text_emb": np.ones((3, 4), np.float32), "mask": np.ones(3, bool), "tokens": np.ones(3, np.int64)}
            save_embedding(caption_file(self.folder, name, "dog"), **arrays)
        return caption_file(self.folder, "ul2", "dog")

    def load(self):
        check_captions(open_embeddings(self.folder), ["dog"], TEXT)
        assert read_embeddings(self.folder, ["dog"], TEXT)[0].shape == (1, 3, 4)


class LatentSummary(Kind):
    def make(self):
        save_tae(self.folder / "tae.safetensors", TAE(SMALL))
        write_json(self.folder / "summary.json", {"tae_sha256": checksum(self.folder / "tae.safetensors"), "clips": 3})
        return self.folder / "summary.json"

    def load(self):
        check_origin(self.folder, self.folder / "tae.safetensors")


class EmbeddingSummary(Kind):
    origins = {"ul2": {"kind": "t5", "sha256": "0123456789abcdef", "max_tokens": 3}}  # noqa: RUF012

    def make(self):
        write_json(self.folder / "summary.json", {"captions": 1, "origin": self.origins})
        return self.folder / "summary.json"

    def load(self):
        check_origins(self.folder, self.origins)


class EncodedClip(Kind):
    def make(self):
        latent = np.random.default_rng(0).standard_normal((16, 1, 2, 2), np.float32)
        save_npz(self.folder / "clip.npz", latent_mean=latent, frames=8, fps=12.0)
        self.tae = TAE(SMALL)
        return self.folder / "clip.npz"

    def load(self):
        read_encoded(self.tae, self.path)


class Training(Kind):
    """Of its checkpoint; a damaged one is passed over with a warning."""

    file = "rank-0000.safetensors"

    def make(self):
        self.checkpoints = Checkpoints(self.folder, Save.model_validate({}))
        files = {"weights": {"a": np.ones((2, 3), np.float32)}, "optimizer": {"updates": np.ones((), np.float32)}}
        return self.checkpoints.save(3, parts_of(files), {"validation_loss": 1.0}) / self.file

    def load(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            latest = self.checkpoints.latest()
        assert latest is None or latest.files["weights"]["a"].shape == (2, 3)
        assert bool(latest) != any(str(self.path.parent) in str(warning.message) for warning in caught)


class TrainingState(Training):
    file = "state.json"


class Params(Kind):
    def make(self):
        (self.folder / "mine.yaml").write_text(yaml.safe_dump(config.load("smoke").model_dump(mode="json")))
        return self.folder / "mine.yaml"

    def load(self):
        config.load(self.path)


class Encoder(Kind):
    """Of text: a file of its folder."""

    file, shards = "config.json", 2

    def make(self):
        self.setting = write_ul2(self.folder, shards=self.shards)
        return self.folder / self.file

    def load(self):
        encoder = Pretrained("ul2", self.setting)
        assert all(0 <= token < 24 for token in encoder.tokens("a red dog läuft"))
        encoder.load()


class Index(Encoder):
    file = "model.safetensors.index.json"


class Tokenizer(Encoder):
    file = "tokenizer.json"

    def load(self):
        Pretrained("ul2", self.setting).tokens("a red dog läuft")


class Shard(Encoder):
    file = "model-00002-of-00002.safetensors"


KINDS = {
    kind.__name__: kind
    for kind in (
        TaeWeights, Ckpt, NpzWeights, DitWeights, Latent, LatentSummary, Embedding, EmbeddingSummary, EncodedClip,
        Training, TrainingState, Params, Encoder, Index, Tokenizer, Shard,
    )
}  # fmt: skip


def odd_values(content: bytes, count: int) -> Iterator[bytes]:
    """A JSON or YAML text with one to three of its values replaced by what nobody means."""
    whole = yaml.safe_load(content)
    for number in range(count):
        rng, changed = np.random.default_rng(number), copy.deepcopy(whole)
        for _ in range(int(rng.integers(1, 4))):
            parent, value = None, changed
            while isinstance(value, dict | list) and value and (parent is None or rng.random() < 0.9):
                keys = list(value) if isinstance(value, dict) else range(len(value))
                parent, key = value, keys[int(rng.integers(len(keys)))]
                value = value[key]
            if parent is not None:
                parent[key] = ODD[int(rng.integers(len(ODD)))]
        yield json.dumps(changed).encode()


def damaged(kind: Kind) -> Iterator[bytes]:
    content = kind.path.read_bytes()
    yield content  # and what is not damaged loads
    yield from mutations(content, COUNT)
    if kind.path.suffix in (".json", ".yaml"):
        yield from odd_values(content, COUNT)


def main(folder: Path) -> None:
    for name, make in KINDS.items():
        kind = make(folder / name)
        for number, content in enumerate(damaged(kind)):
            kind.path.write_bytes(content)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            outcome, message = "loaded", ""
            try:
                kind.load()
            except config.ConfigError as error:
                outcome, message = "refused", str(error)
            except BaseException as error:
                outcome, message = type(error).__name__, str(error)
            faulthandler.cancel_dump_traceback_later()
            where = kind.path.parent if isinstance(kind, Encoder | LatentSummary | EmbeddingSummary) else kind.path
            line = {
                "kind": name,
                "number": number,
                "outcome": outcome,
                "message": message,
                "named": str(where) in message,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
