"""`python -m moviegen VERB --config params/5B.yaml [--key.subkey value ...]`: the report's work without notebooks."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from moviegen import config, device, runs
from moviegen.config import Params
from moviegen.device.compiler import NotCompiledError
from moviegen.device.environment import DRY_RUN
from moviegen.launch import worker
from moviegen.launch.job import RUN_VARIABLE
from moviegen.launch.watch import JobError
from moviegen.runs.files import FORBIDDEN, NoSpaceError, check_writable, full_disk_named

# verb -> (what does it, what it says); modules are imported when their verb is asked for
VERBS = {
    "data": (
        "programs.index_data",
        "`data index` checks and splits the clips; `data sample` renders the sample set; `data assets` fetches a film, "
        "an encoder and LPIPS",
    ),
    "tae": ("programs.train_tae", "`tae train --phase PHASE`, `tae evaluate`, `tae encode|decode|export` of files"),
    "text": ("programs.encode_text", "`text encode`: embeddings of every caption"),
    "precompute": ("programs.encode_latents", "latents of every clip, at every size the stages need"),
    "train": ("programs.train_dit", "`train --stage 1|2|3`: one stage of the transformer"),
    "sample": ("programs.sample", "videos from the report's captions; `--prompts FILE`: from your own"),
    "schedule-error": ("programs.schedule_error", "how far each schedule ends from a many-step solution"),
    "retrieval": ("programs.retrieval", "whether clips of training captions are nearest to the clips they belong to"),
    "count": ("programs.count", "the transformer's parameters, counted on the class without allocating them"),
    "step": ("programs.one_step", "one step of a published size on this machine: memory and time"),
    "plan": ("programs.plan", "arithmetic, memory and seconds of each program, before it is launched"),
    "prove": ("programs.prove", "what a CPU can measure of what only large jobs need, against what was foretold"),
    "ship": ("programs.ship", "a scale's trained weights as params/weights/ keeps them, with manifests"),
    "report": ("report.run", "every section's notebook, then the HTML"),
    "verify": ("report.verify", "derives every number of the published pages again from the runs, and compares"),
    "archive": ("report.archive", "the published pages as one file: the same pages, the same bytes"),
    "demo": ("report.demo", "a local web page that samples prompts of your own; `make demo` installs what it needs"),
    "pdf": ("report.pdf", "the published HTML as one PDF, by the system's Chromium"),
}
WITHOUT_OUTPUTS = ("plan", "step")  # they print
STARTING = ("tae", "train", "sample", "report")  # they start what a card must hold, or refuse to
# of `sample --prompts FILE`: option -> (metavar, what it says)
PROMPT_OPTIONS = {
    "size": ("HxW", "pixels, multiples of 16; default, as of what follows: the params file's sample.size"),
    "frames": ("N", "length; 1: an image"),
    "steps": ("N", "Euler steps"),
    "guidance": ("S", "0: no caption; 1: no guidance"),
    "schedule": ("NAME", "linear, linear-quadratic or linear-quadratic-smooth"),
    "seed": ("N", "of the first prompt's noise; the next one's is one more"),
    "output": ("DIR", "default: a folder below outputs/<scale>/samples, named after all of this"),
    "dit": ("FILE", "a trained transformer; default: the report's stage 3"),
    "tae": ("FILE", "a trained TAE; default: the report's own"),
}


class _Once(argparse.Action):
    """Keeps an option's value, of a file or folder without its `~`; refuses a second one."""

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, value: Any, name: Any = None
    ) -> None:
        given = vars(options).setdefault("given", {})
        if self.dest in given:
            raise argparse.ArgumentError(self, f"given twice, as {given[self.dest]} and as {value}: keep one of them")
        given[self.dest] = value
        if self.metavar in ("FILE", "DIR"):  # no shell has read `--output=~/clips`
            value = os.path.expanduser(value) if isinstance(value, str) else list(map(os.path.expanduser, value))
        setattr(options, self.dest, value)


def parser() -> argparse.ArgumentParser:
    """The command line but for the `--key.subkey value` overrides, which `config` reads."""
    top = argparse.ArgumentParser(prog="python -m moviegen", description=__doc__, allow_abbrev=False)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    added = {}
    for verb, (_, help_text) in VERBS.items():
        added[verb] = verbs.add_parser(verb, help=help_text, allow_abbrev=False)
        added[verb].register("action", None, _Once)
        added[verb].add_argument("--config", default="tiny", metavar="FILE", help="a params file, or a scale's name")
    added["data"].add_argument("action", choices=("sample", "index", "assets"))
    added["tae"].add_argument("action", choices=("train", "evaluate", "encode", "decode", "export"))
    phases = "one, or several that a process trains one after the other with graphs that it compiles once"
    added["tae"].add_argument(
        "--phase", nargs="+", choices=("image", "opl-off", "opl-on", "mixkit"), default=["opl-off"], help=phases
    )
    added["tae"].add_argument("--weights", metavar="FILE", help="a trained TAE; default: the report's own")
    taken = "encode: videos; decode: what encode wrote; files, folders, patterns; what is there is passed over"
    added["tae"].add_argument("--input", metavar="FILE", nargs="+", help=taken)
    written = "encode: .npz; decode: .mp4, .gif, .png or a folder of images; of several a folder; export: .safetensors"
    added["tae"].add_argument("--output", metavar="FILE", help=written)
    several = "decode: of several; png: a folder of images each; default: mp4"
    added["tae"].add_argument("--format", choices=("mp4", "gif", "png"), help=several)
    added["text"].add_argument("action", choices=("encode",))
    added["text"].add_argument("--captions", metavar="FILE", help="a .csv or .txt file instead of the data's captions")
    default = "default: a folder below outputs/<scale>/embeddings, whose name is printed"
    added["text"].add_argument("--output", metavar="DIR", help=f"where the embeddings of --captions go; {default}")
    added["train"].add_argument("--stage", type=int, choices=(1, 2, 3), required=True)
    alone = "a clip is the same to the last bit whatever else is sampled where sample.batch_size is 1, else to rounding"
    added["sample"].add_argument("--prompts", metavar="FILE", help=f"a text file, one prompt a line; {alone}")
    shipped = "the report's captions, with the weights of `shipped` instead of the report's own"
    added["sample"].add_argument("--shipped", action="store_true", help=shipped)
    for name, (metavar, help_text) in PROMPT_OPTIONS.items():
        added["sample"].add_argument(f"--{name}", metavar=metavar, help=help_text)
    formats = ("mp4", "gif", "png", "latents")
    added["sample"].add_argument("--format", choices=formats, help="default: mp4; of an image: png")
    update = "an update of that stage's recipe instead, on random clips of the size that needs most memory"
    added["step"].add_argument("--stage", type=int, choices=(1, 2, 3), help=update)
    step = "a step of that phase of the autoencoder's training instead, on random clips"
    added["step"].add_argument("--phase", choices=("image", "opl-off", "opl-on", "mixkit"), help=step)
    added["step"].add_argument("--output", metavar="FILE", help="of --stage and --phase: memory, counted and measured")
    added["step"].add_argument("--forward", action="store_true", help="a forward pass in float16 only")
    added["ship"].add_argument("what", choices=("image-autoencoder", "tae", "transformer"))
    added["plan"].add_argument("--stage", type=int, choices=(1, 2, 3), help="one, in full; default: all programs")
    added["plan"].add_argument("--card", metavar="NAME", help="of params/base/cards.yaml; default: the published")
    added["plan"].add_argument("--cards", metavar="N", type=int, help="default: the params file's launch.worker_num")
    clips = "of the transformer's data set; default: the original report's 100"
    added["plan"].add_argument("--clips", metavar="N", type=int, help=clips)
    added["plan"].add_argument("--search", action="store_true", help="the fastest recipe that fits, by trying all")
    dry = "also compile each stage in MindSpore's simulation, where CANN is installed, and print its peak"
    added["plan"].add_argument("--dry-run", action="store_true", help=dry)
    calibrate = "measures this machine instead, in a minute or two, for the report's page of costs"
    added["plan"].add_argument("--calibrate", action="store_true", help=calibrate)
    added["plan"].add_argument("--json", action="store_true", help="numbers without rounding, bytes and seconds")
    for verb in STARTING:
        added[verb].add_argument("--force", action="store_true", help="start also what cannot fit the recipe's cards")
    against = "another outputs folder, whose report must have the same numbers and figures"
    added["verify"].add_argument("--against", metavar="DIR", help=against)
    added["report"].add_argument("--only-html", action="store_true", help="publish what has been run, run nothing")
    return top


def module_of(options: argparse.Namespace) -> str:
    """The module that does what was asked for."""
    if options.verb == "data" and options.action == "assets":
        return "moviegen.programs.fetch_assets"
    if options.verb == "plan" and options.calibrate:
        return "moviegen.programs.calibrate"
    if options.verb == "tae" and options.action != "train":
        return f"moviegen.programs.{'evaluate_tae' if options.action == 'evaluate' else 'transcode'}"
    return f"moviegen.{VERBS[options.verb][0]}"


def read_params(options: argparse.Namespace, overrides: Mapping[str, Any]) -> Params:
    """The parameters, what they name of `data assets` there; the process that started this one may have seen to it."""

    def read(**more: Any) -> Params:
        return config.load(options.config, {**overrides, **more})

    seen_to = RUN_VARIABLE in os.environ or options.verb in WITHOUT_OUTPUTS
    if seen_to or vars(options).get("action") == "assets":
        return read()
    from moviegen.data.assets import provided  # it reads packages' pages: not for each program

    return provided(read)


def check_memory(params: Params, options: argparse.Namespace) -> None:
    """Refuses what cannot fit the recipe's cards, and notes what the memory of a CPU's host may not be enough for.

    Who started this process for a run has seen to it.

    Raises:
        ConfigError: see `launch.fitting.check_fits`.
    """
    programs = [] if RUN_VARIABLE in os.environ else started(options)
    if not programs:
        return
    from moviegen.launch.fitting import check_fits, memory_note  # with the planner: not for each verb

    for program in programs:
        check_fits(params, program)
        if (note := memory_note(params, program)) and worker.rank_name() == "0":
            print(f"note: {note}", file=sys.stderr)


def started(options: argparse.Namespace) -> list[str]:
    """The programs that a command computes and whose memory is counted; clips of one's own prompts are not."""
    if options.verb == "train":
        return [f"stage{options.stage}"]
    if options.verb == "tae" and options.action == "train":
        return [f"tae-{phase}" for phase in options.phase]
    return ["sample"] if options.verb == "sample" and not (options.prompts or options.shipped) else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the process's exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no notebook's or test's
            stream.reconfigure(errors="backslashreplace")  # a caption must not end a program where the locale is ASCII
    options, rest = parser().parse_known_args(arguments)
    try:
        with worker.supervised():
            overrides = config.parse_overrides(rest, getattr(options, "stage", None))
            if DRY_RUN in os.environ and options.verb != "step":
                raise config.ConfigError(f"{DRY_RUN} is set, with which nothing is computed: unset it")
            if getattr(options, "force", False):
                overrides["launch.force"] = True
            params = read_params(options, overrides)
            check_memory(params, options)
            stage = getattr(options, "stage", None)
            dtype = params.recipes[stage].train.settings.dtype if stage else "auto"
            device.choose(params.launch.device, params.launch.operators, dtype)
            outputs = config.outputs_folder(params)
            with full_disk_named(outputs):
                if options.verb not in WITHOUT_OUTPUTS or vars(options).get("calibrate"):
                    check_writable(outputs)
                importlib.import_module(module_of(options)).main(params, options)
    except (config.ConfigError, NotCompiledError, runs.RunBusy, JobError, NoSpaceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in FORBIDDEN or not error.filename:
            raise
        who = "another user's, or this one may not touch it"  # left by one who was root, most often
        print(f"error: {error.filename}: {error.strerror}: it is {who}: change its owner or its mode", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing is left running; the next run goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
