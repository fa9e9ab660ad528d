"""Where the clips lie, and which of them train and which are held out."""

from __future__ import annotations

from pathlib import Path

from moviegen.config import ConfigError, Params, from_root, outputs_folder
from moviegen.data.clips import Clip, load_index
from moviegen.runs import Run

SPLITS = ("ucf101_train", "ucf101_test", "mixkit_train", "mixkit_val")


def sample_folder(params: Params) -> Path:
    """Where the sample set is made; the one without the film lies beside the other."""
    return outputs_folder(params) / ("data-with-film" if params.data.film else "data")


def data_folder(params: Params) -> Path:
    """The user's data folder, or the sample set's.

    Raises:
        ConfigError: `data.root` names a folder that is not there.
    """
    if not params.data.root:
        return sample_folder(params)
    folder = from_root(params.data.root)
    if not folder.is_dir():
        raise ConfigError(
            f"data.root {folder} is not a folder: give one with UCF-101/ and mixkit/ (an archive has to be unpacked), "
            f"or leave it empty"
        )
    return folder


def load_split(run: Run, name: str) -> list[Clip]:
    """The clips of one split of a finished index run."""
    return load_index(run.folder / f"{name}.csv", data_folder(run.params))
