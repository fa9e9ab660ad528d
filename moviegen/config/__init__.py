"""Every parameter of the report: what a `params/*.yaml` may hold, its types and bounds, and how files are read.

A parameter has one spelling everywhere: `train.steps` is the key in the YAML file, the flag `--train.steps` of
`python -m moviegen`, and the word in a notebook's `overrides`. Unknown names and bad values are refused with the file,
the full name, the value and the nearest known name.
"""

from moviegen.config.loading import (
    from_root,
    known_names,
    load,
    nearest,
    outputs_folder,
    parse,
    parse_overrides,
    project_root,
    weights_file,
)
from moviegen.config.networks import (
    PATCH,
    SIZES,
    SPATIAL_COMPRESSION,
    TEMPORAL_COMPRESSION,
    ConfigError,
    DiTConfig,
    Group,
    TAEConfig,
    check_tables,
    latent_size,
)
from moviegen.config.params import Data, Launch, Params, Sample, ScheduleError, TAELoss, TAEStage, Text
from moviegen.config.recipe import (
    STAGE_GROUPS,
    Dataset,
    LRScheduler,
    Model,
    Optimizer,
    Profile,
    Recipe,
    Save,
    Train,
    merge,
)

__all__ = [
    "PATCH",
    "SIZES",
    "SPATIAL_COMPRESSION",
    "STAGE_GROUPS",
    "TEMPORAL_COMPRESSION",
    "ConfigError",
    "Data",
    "Dataset",
    "DiTConfig",
    "Group",
    "LRScheduler",
    "Launch",
    "Model",
    "Optimizer",
    "Params",
    "Profile",
    "Recipe",
    "Sample",
    "Save",
    "ScheduleError",
    "TAEConfig",
    "TAELoss",
    "TAEStage",
    "Text",
    "Train",
    "check_tables",
    "from_root",
    "known_names",
    "latent_size",
    "load",
    "merge",
    "nearest",
    "outputs_folder",
    "parse",
    "parse_overrides",
    "project_root",
    "weights_file",
]
