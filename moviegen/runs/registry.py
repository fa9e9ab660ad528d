"""The road from clips to generated videos: which program makes what, from which parameters, after which others.

    data ──┬── tae-image ──┬── tae-opl-off ── tae-mixkit ──┬── latents ──┐
           │               └── tae-opl-on ──── tae-evaluation            │
           └── text ─────────────────────────────────────────────────────┴── stage1 ── stage2 ── stage3 ── sample
                                                                                         │           └── retrieval
                                                                                         └── schedule-error

count counts the transformer's parameters, calibration measures this machine: they need nothing before them.
tae-evaluation scores all four autoencoders, and the trained one that tae-mixkit may start from instead.
shipped samples from trained weights that are there already, and needs data and text only.
What a parameter names instead (trained weights, latents or embeddings made elsewhere) takes the place of the program
that would have made it, and then nothing before that program is needed either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from moviegen.config import TAE_PHASES, Launch, Params, Sample, local_paths, nearest, result_parameters


@dataclass(frozen=True)
class Program:
    """One program of the road.

    Args:
        name: the first part of its runs' names.
        arguments: what follows `python -m moviegen`.
        module: its file.
        upstream: the programs whose runs it reads.
        reads: names of the parameters that decide its result.
        workers: that it can be computed by: `one`; `any` number, with the same result (`Params.inference_launch`); or
            as many as the `recipe` asks for (`Params.launch_of`), which the result follows from.
        cards: at an Ascend scale it needs its cards.
        stage: whose transformer it trains or samples from.
        phase: whose group of `tae` it trains an autoencoder by.
        starts: files of other programs, which it has compute a part of its result.
    """

    name: str
    arguments: tuple[str, ...]
    module: str
    upstream: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    workers: Literal["one", "any", "recipe"] = "one"
    cards: bool = True
    stage: int | None = None
    phase: Literal["image", "video", "mixkit"] | None = None
    starts: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """The files whose code makes its result."""
        return (self.module, *self.starts)

    @property
    def trained_stage(self) -> int | None:
        """The stage of the transformer that it trains, if it does."""
        return self.stage if self.name in TRAINING else None

    def launch(self, params: Params) -> Launch:
        """The job that computes it: as its recipe asks, of any number of workers, or of one."""
        if self.trained_stage:
            return params.launch_of(self.trained_stage)
        if self.phase and not adopted(params, self.name):
            return params.launch_of_phase(self.phase)
        if self.workers == "any":
            return params.inference_launch
        return params.launch.model_copy(update={"worker_num": 1, "local_worker_num": 1, "node_rank": 0})

    def needs(self, params: Params) -> tuple[str, ...]:
        """The programs it builds on with these parameters."""
        if self.name == "tae-image" and params.tae.vae_checkpoint:
            return ()  # taken as it is: no clip is looked at
        if self.name == "tae-mixkit" and params.tae.start_checkpoint:
            return ("data",)
        return tuple(name for name in self.upstream if not replacement(params, name, self.stage))

    def parameters(self, params: Params) -> dict[str, Any]:
        """The parameters that decide this program's result, but for what lies in files; see `local_paths`."""
        values = {name: result_parameters(params, name) for name in self.reads}
        if self.name == "data":
            values["frames"] = [params.ucf101_frames, params.mixkit_frames]
        if self.name == "latents":
            recipes = params.recipes.values()
            values["buckets"] = [[*map(list, recipe.dataset.buckets), recipe.sees_images] for recipe in recipes]
        if self.name == "calibration":
            values |= _measured_steps(params)
        if self.phase:
            values["workers"] = self.launch(params).worker_num
        if self.trained_stage:
            values["recipe"] = result_parameters(params.recipes[self.trained_stage])
        if self.stage:
            values["dit"] = result_parameters(params.dit_config(self.stage))
        return values

    def local_paths(self, params: Params) -> dict[str, str]:
        """The files and folders whose content decides its result, by the parameter that names them; empty: none."""
        paths = {name: path for read in self.reads for name, path in local_paths(params, read).items()}
        return paths | (local_paths(params.recipes[self.trained_stage]) if self.trained_stage else {})


def _measured_steps(params: Params) -> dict[str, Any]:
    """What the calibration's jobs follow from: how large they are, and what a step's memory and exchanges are of."""
    video = params.tae.video
    return {
        "workers": [params.launch_of(stage).worker_num for stage in params.stages],
        "dits": [result_parameters(params.dit_config(stage)) for stage in params.stages],
        "stages": [
            [
                [*map(list, recipe.dataset.buckets), recipe.sees_images],
                result_parameters(recipe, "dataloader.batch_size"),
                result_parameters(recipe, "train.settings"),
                result_parameters(recipe, "train.sequence_parallel"),
                result_parameters(recipe, "model.recompute_every_nth_block"),
            ]
            for recipe in params.recipes.values()
        ],
        "text": [[one.max_tokens, one.width] for one in params.text.encoders.values()],
        "tae": [
            *(video.batch_size, video.frames, list(video.size), bool(params.tae.tae_checkpoint)),
            result_parameters(video, "settings"),
        ],
    }


def adopted(params: Params, name: str) -> str:
    """The trained weights that a phase of the autoencoder takes as they are; empty: none, it trains."""
    return {"tae-image": params.tae.vae_checkpoint, "tae-mixkit": params.tae.tae_checkpoint}.get(name, "")


def replacement(params: Params, name: str, stage: int | None = None) -> str:
    """What is used in the place of a program's result: a file or folder that a parameter names; empty: nothing.

    Args:
        stage: for which stage of the transformer; None: for the autoencoders.
    """
    if name in ("tae-image", "tae-opl-off", "tae-opl-on"):
        return params.tae.tae_checkpoint
    if stage is None:
        return ""
    recipe = params.recipes[stage]
    instead = {
        "latents": recipe.dataset.tae_latent_folder,
        "text": recipe.dataset.text_emb_folder,
        f"stage{stage - 1}": recipe.model.pretrained_model_path,
    }
    return instead.get(name, "")


def is_asked_for(params: Params, name: str) -> bool:
    """Whether a program has something to do with these parameters."""
    return name != "shipped" or bool(params.shipped.transformer)


def find(name: str) -> Program:
    """The program called `name`; KeyError with the nearest name otherwise."""
    if name not in PROGRAMS:
        raise KeyError(f"no program {name!r}{nearest(name, PROGRAMS)}")
    return PROGRAMS[name]


def _tae(phase: str, upstream: tuple[str, ...], *reads: str) -> Program:
    module, arguments = "moviegen.programs.train_tae", ("tae", "train", "--phase", phase)
    group = TAE_PHASES[phase]
    reads = ("seed", *TAE_LOSS, f"tae.{group}", *reads)
    return Program(f"tae-{phase}", arguments, module, upstream, reads, workers="recipe", phase=group)


def _stage(stage: int) -> Program:
    before = (f"stage{stage - 1}",) if stage > 1 else ()
    return Program(
        name=f"stage{stage}",
        arguments=("train", "--stage", str(stage)),
        module="moviegen.programs.train_dit",
        upstream=("data", "tae-mixkit", "latents", "text", *before),
        reads=("seed", *DEVICE, "launch.worker_num", "tae.tiling"),
        workers="recipe",
        stage=stage,
    )


DEVICE = ("launch.device", "launch.deterministic")  # what computes, and whether twice to the same bits
TRAINING = ("stage1", "stage2", "stage3")
# What every TAE run reads besides its own phase; the outlier penalty is read where it is on.
TAE_LOSS = (*DEVICE, "tae.model", "tae.loss.reconstruction", "tae.loss.perceptual",
            "tae.loss.lpips_checkpoint", "tae.loss.perceptual_frames", "tae.loss.kl")  # fmt: skip
# What the report's clips read of `sample`: all but what other programs measure.
SAMPLE = tuple(f"sample.{name}" for name in Sample.model_fields if name not in ("schedule_error", "retrieval"))
ALL = (
    Program("count", ("count",), "moviegen.programs.count", cards=False, stage=3),
    Program("calibration", ("plan", "--calibrate"), "moviegen.programs.calibrate", (),
            (*DEVICE, "tae.model", "tae.loss.perceptual", "tae.loss.perceptual_frames"),
            starts=("moviegen.programs.one_step",)),
    Program("data", ("data", "index"), "moviegen.programs.index_data", (), ("seed", "data")),
    _tae("image", ("data",), "tae.vae_checkpoint"),
    _tae("opl-off", ("data", "tae-image")),
    _tae("opl-on", ("data", "tae-image"), "tae.loss.outlier", "tae.loss.outlier_radius"),
    _tae("mixkit", ("data", "tae-opl-off"), "tae.start_checkpoint", "tae.tae_checkpoint"),
    Program("tae-evaluation", ("tae", "evaluate"), "moviegen.programs.evaluate_tae",
            ("data", "tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit"),
            (*DEVICE, "tae.model", "tae.evaluation", "tae.loss.lpips_checkpoint", "tae.start_checkpoint"),
            workers="any"),
    Program("text", ("text", "encode"), "moviegen.programs.encode_text", ("data",),
            ("seed", *DEVICE, "text"), workers="any"),
    Program("latents", ("precompute",), "moviegen.programs.encode_latents", ("data", "tae-mixkit"),
            (*DEVICE, "tae.model", "tae.tiling"), workers="any"),
    _stage(1),
    _stage(2),
    _stage(3),
    Program("sample", ("sample",), "moviegen.programs.sample", ("data", "tae-mixkit", "text", "stage3"),
            ("seed", *DEVICE, "tae.model", "tae.tiling", *SAMPLE), workers="any", stage=3),
    Program("shipped", ("sample", "--shipped"), "moviegen.programs.sample", ("data", "text"),
            ("seed", *DEVICE, "shipped", "tae.tiling", "text", *SAMPLE), workers="any"),
    Program("retrieval", ("retrieval",), "moviegen.programs.retrieval",
            ("data", "tae-mixkit", "latents", "text", "stage3"),
            ("seed", *DEVICE, "sample.retrieval"), workers="any", stage=3),
    Program("schedule-error", ("schedule-error",), "moviegen.programs.schedule_error", ("data", "text", "stage2"),
            ("seed", *DEVICE, "sample.guidance", "sample.schedule_error"), workers="any", stage=2),
)  # fmt: skip
PROGRAMS: Mapping[str, Program] = {program.name: program for program in ALL}
