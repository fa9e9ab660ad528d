"""`python -m moviegen demo`: the sampling notebook's panel as a local web page, by Gradio, which `make demo` adds."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from moviegen.config import ConfigError, Params, outputs_folder
from moviegen.report import own_prompt
from moviegen.report.own_prompt import Making, NotMadeError

HOST = "127.0.0.1"
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
FONTS = ("system-ui", "sans-serif")  # Gradio's own ones come from the internet


def main(params: Params, options: Namespace) -> None:
    """Serves the page to this machine alone until it is interrupted.

    Raises:
        ConfigError: Gradio is not there, or no weights are.
    """
    titled = own_prompt.weights(params)
    if not titled:
        raise ConfigError(own_prompt.NO_WEIGHTS)
    os.environ |= QUIET  # which Gradio reads when it is imported
    try:
        import gradio
    except ModuleNotFoundError:
        raise ConfigError("Gradio is not installed: `make demo` adds it to .venv, and then starts this") from None
    theme = gradio.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace"))
    blocks, allowed = page(gradio, params, titled), [str(outputs_folder(params) / "samples")]
    _, address, _ = blocks.launch(
        server_name=HOST, share=False, theme=theme, footer_links=[], allowed_paths=allowed, ssr_mode=False, quiet=True,
        prevent_thread_lock=True,
    )  # fmt: skip
    print(f"demo: {address}", flush=True)
    blocks.block_thread()


def page(gradio: Any, params: Params, titled: dict[str, tuple[str, ...]]) -> Any:
    """The form, and where its clip is shown. One clip is made at a time; who asks meanwhile waits.

    Args:
        gradio: the module.
        titled: what `own_prompt.weights` found.
    """
    settings = params.sample

    def press(*values: Any) -> Iterator[tuple[Any, str]]:
        form = dict(zip(own_prompt.FIELDS, values, strict=True))
        yield from made(params, form | {"weights": titled[form["weights"]]}, gradio.skip())

    with gradio.Blocks(title="Movie Gen in MindSpore", analytics_enabled=False) as blocks:
        gradio.Markdown(f"# Movie Gen in MindSpore\n\nA prompt of your own, sampled with scale *{params.scale}*.")
        with gradio.Row():
            with gradio.Column():
                fields = [
                    gradio.Textbox(label="prompt", placeholder="what the clip shows", lines=2),
                    gradio.Number(params.seed, label="seed", precision=0, minimum=0),
                    gradio.Number(settings.steps, label="steps", precision=0, minimum=1),
                    gradio.Number(settings.guidance, label="guidance", minimum=0),
                    gradio.Dropdown(list(own_prompt.SCHEDULES), value=settings.schedule, label="schedule"),
                    gradio.Dropdown(list(titled), value=next(iter(titled)), label="weights"),
                ]
                with gradio.Row():
                    sample, stop = gradio.Button("Sample", variant="primary"), gradio.Button("Stop")
            with gradio.Column():
                clip = gradio.Video(label="clip", autoplay=True, loop=True, interactive=False, buttons=["download"])
                words = gradio.HTML()
        pressed = sample.click(press, fields, [clip, words], concurrency_limit=1, show_progress="hidden")
        stop.click(lambda: own_prompt.shown(own_prompt.STOPPED), None, words, cancels=[pressed])
    return blocks


def made(params: Params, form: dict[str, Any], unchanged: Any) -> Iterator[tuple[Any, str]]:
    """What the page shows while a clip is made: the clip, and words as HTML. Who stops listening stops the job.

    Args:
        unchanged: what leaves the clip that is shown as it is.
    """
    try:
        asked = own_prompt.read(form)
        making = Making(params, asked)
        try:
            while not making.is_over:
                yield unchanged, own_prompt.shown(making.told.words)
                time.sleep(own_prompt.TICK_SECONDS)
        finally:
            making.stop()
        path = making.clip()
        yield str(path), own_prompt.shown(asked.caption(path))
    except NotMadeError as error:
        yield unchanged, own_prompt.shown(str(error))
