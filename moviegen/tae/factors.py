"""The factors with which an autoencoder's latents are about normal: measured, or refused."""

from __future__ import annotations

import mindspore as ms
import numpy as np

from moviegen.config import ConfigError, TAEConfig
from moviegen.tae.model import TAE, Encode

# How far normalised latents may be from mean 0 and standard deviation 1. FLUX's VAE, which has SD3.5's shape, is at 4.2
# with SD3.5's factors, and SD3.5's at 0.24 with FLUX's: 2 and 1/2 are half-way, and leave room for unusual clips.
FARTHEST_MEAN, FARTHEST_DEVIATION = 1.0, 2.0


def measure_latents(tae: TAE, views: np.ndarray) -> TAEConfig:
    """The TAE's config; `shift` and `scaling`, where left open, measured over the latents of some views.

    Raises:
        ConfigError: those it has are another autoencoder's; see FARTHEST_MEAN.
    """
    encode, config = Encode(tae), tae.config
    latents = np.concatenate([encode(ms.Tensor(view[None]))[0].asnumpy() for view in views])
    shift, deviation = float(latents.mean(dtype=np.float64)), float(latents.std(dtype=np.float64))
    if not 0 < deviation < np.inf:
        raise ConfigError(f"the latents of {len(views)} clips have standard deviation {deviation}: nothing to scale by")
    used_shift = shift if config.shift_factor is None else config.shift_factor
    used_scaling = 1 / deviation if config.scaling_factor is None else config.scaling_factor
    mean, scaled = (shift - used_shift) * used_scaling, deviation * used_scaling
    if abs(mean) > FARTHEST_MEAN or not 1 / FARTHEST_DEVIATION < scaled < FARTHEST_DEVIATION:
        raise ConfigError(
            f"with tae.model.shift_factor {used_shift:.4g} and scaling_factor {used_scaling:.4g} the latents of "
            f"{len(views)} of the report's clips have mean {mean:.3g} and standard deviation {scaled:.3g}, and the "
            f"transformer needs about 0 and 1: these factors are another autoencoder's. This one's were measured as "
            f"shift_factor {shift:.4g} and scaling_factor {1 / deviation:.4g}: set these, or null, which measures them"
        )
    return config.model_copy(update={"shift_factor": used_shift, "scaling_factor": used_scaling})
