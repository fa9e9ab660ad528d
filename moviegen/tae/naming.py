"""What the tensors of an autoencoder are called by others, and files under any of these names.

Three namings are read: ours, which is the published TAE's; the SD3.5 VAE's in a single file; and the same VAE's in
diffusers. The latter two are image autoencoders, so only spatial tensors have a name there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from moviegen.runs.arrays import unwrapped
from moviegen.runs.weights import load_arrays

# Present in a TAE and not in the image autoencoder it is inflated from; they start as the identity.
TEMPORAL_PARTS = ("conv_temp", "downsample_temp", "upsample_temp", "attn_1.1.")
NEVER_USED = "temb_proj"  # the published TAE holds projections of a time embedding that no layer reads
MATRICES = (".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight")  # 1x1 convolutions elsewhere
SINGLE_FILE_PREFIX = "first_stage_model."  # before the autoencoder's names in a file that holds a whole SD3.5
NUM_LEVELS = 4
Naming = Callable[[str], str]

# In the order they apply; each our spelling and theirs.
_SINGLE_FILE = (
    (r"(norm\w*)\.gamma$", r"\1.weight"),
    (r"(norm\w*)\.beta$", r"\1.bias"),
    (r"\.conv_spat\.", "."),
    (r"sample_spat\.conv\.", "sample.conv."),
    (r"mid\.attn_1\.0\.", "mid.attn_1."),
)
_DIFFUSERS = (
    (r"^encoder\.down\.(\d)\.block\.(\d)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"^encoder\.down\.(\d)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up\.(\d)\.block\.(\d)\.", r"decoder.up_blocks.\1.resnets.\2."),
    (r"^decoder\.up\.(\d)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"mid\.block_1\.", "mid_block.resnets.0."),
    (r"mid\.block_2\.", "mid_block.resnets.1."),
    (r"mid\.attn_1\.norm\.", "mid_block.attentions.0.group_norm."),
    (r"mid\.attn_1\.(q|k|v)\.", r"mid_block.attentions.0.to_\1."),
    (r"mid\.attn_1\.proj_out\.", "mid_block.attentions.0.to_out.0."),
    (r"coder\.norm_out\.", "coder.conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
)


def ours(name: str) -> str:
    """Our name, which is the published TAE's too."""
    return name


def single_file(name: str) -> str:
    """`encoder.down.0.block.0.norm1.gamma` -> `encoder.down.0.block.0.norm1.weight`."""
    for pattern, replacement in _SINGLE_FILE:
        name = re.sub(pattern, replacement, name)
    return name


def diffusers(name: str) -> str:
    """`decoder.up.3.block.0.norm1.gamma` -> `decoder.up_blocks.0.resnets.0.norm1.weight`."""
    name = single_file(name)
    for pattern, replacement in _DIFFUSERS:
        name = re.sub(pattern, replacement, name)
    # diffusers counts the decoder's levels in the order they run, the others from the pixels up
    return re.sub(r"up_blocks\.(\d)", lambda level: f"up_blocks.{NUM_LEVELS - 1 - int(level[1])}", name)


def recognise(names: Iterable[str]) -> Naming:
    """The naming that a file's names follow; ours where nothing speaks for another."""
    names = set(names)
    if any(name.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for name in names):
        return diffusers
    return single_file if "encoder.conv_in.weight" in names else ours


def is_temporal(name: str) -> bool:
    """Whether an image autoencoder lacks this parameter."""
    return any(part in name for part in TEMPORAL_PARTS)


def load(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """A file's tensors under our names; what we have no name for keeps its own, so that a message can list it.

    Args:
        names: ours, of the parameters to be filled.

    Raises:
        CheckpointError: the file is damaged or of another kind.
    """
    arrays, _ = load_arrays(path, under=SINGLE_FILE_PREFIX)
    arrays = {name.removeprefix(SINGLE_FILE_PREFIX): array for name, array in arrays.items()}
    arrays = {name: array for name, array in unwrapped(arrays).items() if NEVER_USED not in name}
    naming, named = recognise(arrays), {}
    for name in names:
        stored_name = naming(name)
        if stored_name in arrays:
            array = arrays.pop(stored_name)
            is_matrix = naming is diffusers and stored_name.endswith(MATRICES)
            named[name] = array.reshape(*array.shape, 1, 1) if is_matrix else array
    return named | arrays


def to_diffusers(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The spatial tensors under diffusers' names and in its shapes."""
    named = {diffusers(name): array for name, array in arrays.items() if not is_temporal(name)}
    return {name: array[:, :, 0, 0] if name.endswith(MATRICES) else array for name, array in named.items()}
