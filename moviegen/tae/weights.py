"""A TAE's weights on disk, and the inflation of an image autoencoder (original report, Conv2.5d)."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from moviegen.config import TAEConfig
from moviegen.runs.arrays import CheckpointError, save_arrays
from moviegen.runs.weights import assign, load_arrays, to_arrays
from moviegen.tae import naming
from moviegen.tae.model import TAE


def save_tae(path: Path, tae: TAE, config: TAEConfig | None = None) -> None:
    """Writes the weights, with `config` (default: the TAE's own) in the file's metadata."""
    config = config or tae.config
    save_arrays(path, to_arrays(dict(tae.parameters_and_names())), {"tae_config": config.model_dump_json()})


def export_diffusers(path: Path, tae: TAE) -> None:
    """Writes the spatial weights as `diffusers.AutoencoderKL` names and shapes them.

    Temporal weights have no place there and are left out: what is written is the image autoencoder inside.
    """
    arrays = to_arrays(dict(tae.parameters_and_names()))
    save_arrays(path, naming.to_diffusers(arrays), {"format": "pt"})


def load_weights(tae: TAE, path: Path) -> None:
    """Fills an autoencoder with the weights of a file: `.safetensors`, MindSpore's `.ckpt`, or `.npz`.

    Read are this package's files, the published TAE, and the SD3.5 VAE in diffusers' naming or in a single file, alone
    or with the whole model. An image autoencoder inflates a TAE: the temporal layers keep what they hold, which in a
    new TAE is the identity.

    Raises:
        CheckpointError: the file is damaged, of another kind or of another model; names that are missing, unexpected or
            of another shape are listed.
    """
    parameters = dict(tae.parameters_and_names())
    arrays = naming.load(path, parameters)
    may_lack = () if any(map(naming.is_temporal, arrays)) else naming.TEMPORAL_PARTS
    assign(parameters, arrays, str(path), may_lack=may_lack)


def load_tae(path: Path) -> TAE:
    """The autoencoder of a file that `save_tae` wrote.

    Raises:
        CheckpointError: the file is damaged, has no config, or its weights do not fit that config.
    """
    config = stored_config(path)
    if config is None:
        raise CheckpointError(f"{path} does not say what TAE it holds (no tae_config in its metadata)")
    tae = TAE(config)
    load_weights(tae, path)
    return tae


def stored_config(path: Path) -> TAEConfig | None:
    """The config of a file that `save_tae` wrote; None for one from elsewhere.

    Raises:
        CheckpointError: the file is damaged, or its config is of another version.
    """
    _, metadata = load_arrays(path, under="encoder.conv_out.")
    if "tae_config" not in metadata:
        return None
    try:
        return TAEConfig.model_validate_json(metadata["tae_config"])
    except ValidationError as error:
        raise CheckpointError(f"{path} holds a TAE of another version: {error}") from None


def inflate(image_autoencoder: Path, config: TAEConfig) -> TAE:
    """A TAE whose spatial layers are those of an image autoencoder and whose temporal layers change nothing yet.

    Raises:
        CheckpointError: the image autoencoder is of another shape than `config`.
    """
    tae = TAE(config)
    load_weights(tae, image_autoencoder)
    return tae
