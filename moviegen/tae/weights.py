"""A TAE's weights on disk, and the inflation of an image autoencoder (original report, Conv2.5d)."""

from __future__ import annotations

from pathlib import Path

from moviegen.config import TAEConfig
from moviegen.tae.model import TAE
from moviegen.weights import CheckpointError, assign, load_arrays, save_arrays, to_arrays

# Present in a TAE and not in the image autoencoder it is inflated from; they start as the identity.
TEMPORAL_PARTS = ("conv_temp", "downsample_temp", "upsample_temp", "attn_1.1.")


def save_tae(path: Path, tae: TAE, config: TAEConfig) -> None:
    """Writes the weights, with `config` in the file's metadata."""
    save_arrays(path, to_arrays(dict(tae.parameters_and_names())), {"tae_config": config.model_dump_json()})


def load_tae(path: Path) -> TAE:
    """The autoencoder of a file that `save_tae` wrote.

    Raises:
        CheckpointError: the file is damaged, has no config, or its weights do not fit that config.
    """
    arrays, metadata = load_arrays(path)
    if "tae_config" not in metadata:
        raise CheckpointError(f"{path} does not say what TAE it holds (no tae_config in its metadata)")
    tae = TAE(TAEConfig.model_validate_json(metadata["tae_config"]))
    assign(dict(tae.parameters_and_names()), arrays, str(path))
    return tae


def inflate(image_autoencoder: Path, config: TAEConfig) -> TAE:
    """A TAE whose spatial layers are those of an image autoencoder and whose temporal layers change nothing yet.

    Raises:
        CheckpointError: the image autoencoder is of another shape than `config`.
    """
    arrays, _ = load_arrays(image_autoencoder)
    tae = TAE(config)
    assign(dict(tae.parameters_and_names()), arrays, str(image_autoencoder), may_lack=TEMPORAL_PARTS)
    return tae
