"""Whether what is about to be started fits where it would compute, as `moviegen.plan` counts it."""

from __future__ import annotations

from moviegen.config import ConfigError, Params
from moviegen.device import limits
from moviegen.plan import Verdict, find_card, sampling_verdict, stage_verdict, tae_verdict
from moviegen.plan.dit_memory import fullest
from moviegen.plan.verdict import gib


def check_fits(params: Params, program: str) -> None:
    """Refuses a program of a recipe for cards that cannot fit them, before anything is started.

    It is the recipe that is refused, also on a machine that has no cards. Only training and the report's own sampling
    are counted; `launch.force` starts them all the same, and without `launch.card` nobody knows what would fit.

    Args:
        program: its name, as `runs.registry` has it.

    Raises:
        ConfigError: the message says by how much, at which part, and what would fit.
    """
    launch = params.launch
    if launch.device != "Ascend" or launch.force or launch.card is None:
        return
    verdict = _verdict(params, program)
    if verdict and not verdict.fits:
        search = "; `python -m moviegen plan --search` tries what else there is" if _stage(program) else ""
        raise ConfigError(
            f"{program} on {launch.card} {verdict}{search}; `--force` (launch.force) starts it all the same"
        )


def memory_note(params: Params, program: str) -> str:
    """What to say where a stage takes more memory than this process may have, on CPU; empty: nothing."""
    stage = _stage(program)
    if params.launch.device != "CPU" or not stage:
        return ""
    launch, memory = params.launch_of(stage), fullest(params, stage)[1]
    need, have = launch.local_worker_num * memory.total, limits.memory_bytes()
    if need <= have:
        return ""
    return f"{program} takes about {gib(need)} of memory on this host, and there are {gib(have)}"


def _verdict(params: Params, program: str) -> Verdict | None:
    """None: it is not counted, or takes weights as they are and computes nothing."""
    card = find_card(str(params.launch.card))
    if stage := _stage(program):
        return stage_verdict(params, stage, card)[1]
    if program == "sample":
        return sampling_verdict(params, card)
    adopted = {"tae-image": params.tae.vae_checkpoint, "tae-mixkit": params.tae.tae_checkpoint}
    if program in ("tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit") and not adopted.get(program):
        return tae_verdict(params, program.removeprefix("tae-"), card)
    return None


def _stage(program: str) -> int:
    """The stage of the transformer that a program trains; 0: none."""
    number = program.removeprefix("stage")
    return int(number) if program.startswith("stage") and number.isdecimal() else 0
