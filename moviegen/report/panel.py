"""The panel in the sampling notebook, by which a person in JupyterLab samples prompts of their own."""

from __future__ import annotations

import threading
import time
from typing import Any

import ipywidgets as widgets

from moviegen.config import Params
from moviegen.report import media, own_prompt
from moviegen.report.own_prompt import Asked, Making, NotMadeError

LARGEST = 2**31 - 1  # of a number that is typed


class Panel:
    """A form, a bar, and the clips that were made, the newest first.

    Args:
        titled: what `own_prompt.weights` found.
    """

    def __init__(self, params: Params, titled: dict[str, tuple[str, ...]]) -> None:
        settings, wide = params.sample, widgets.Layout(width="44em")
        self._params = params
        self.fields: dict[str, Any] = {
            "prompt": widgets.Textarea(description="prompt", placeholder="what the clip shows", layout=wide),
            "seed": widgets.BoundedIntText(params.seed, min=0, max=LARGEST, description="seed"),
            "steps": widgets.BoundedIntText(settings.steps, min=1, max=LARGEST, description="steps"),
            "guidance": widgets.BoundedFloatText(settings.guidance, max=LARGEST, step=0.5, description="guidance"),
            "schedule": widgets.Dropdown(options=own_prompt.SCHEDULES, value=settings.schedule, description="schedule"),
            "weights": widgets.Dropdown(options=list(titled.items()), description="weights", layout=wide),
        }
        self.begins = widgets.Button(description="Sample", button_style="primary", icon="play")
        self.ends = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.bar = widgets.FloatProgress(max=1.0, layout=widgets.Layout(width="20em", display="none"))
        self.words, self.clips = widgets.HTML(), widgets.VBox(layout=widgets.Layout(max_width="30em"))
        self.begins.on_click(lambda _: self.start())
        self.ends.on_click(lambda _: self.stop())
        self._making: Making | None = None

    @property
    def box(self) -> widgets.Widget:
        """All of it, to be displayed."""
        fields = self.fields
        numbers = widgets.HBox([fields["seed"], fields["steps"], fields["guidance"]])
        choices = widgets.VBox([fields["schedule"], fields["weights"]])
        buttons = widgets.HBox([self.begins, self.ends, self.bar])
        return widgets.VBox([fields["prompt"], numbers, choices, buttons, self.words, self.clips])

    def start(self) -> threading.Thread | None:
        """Has a clip made of what the form holds; None where one is being made, or nothing can be."""
        if self._making is not None:
            self._say("one clip is being made: wait for it, or stop it")
            return None
        try:
            asked = own_prompt.read({name: field.value for name, field in self.fields.items()})
        except NotMadeError as error:
            self._say(str(error))
            return None
        self._making = Making(self._params, asked)
        follower = threading.Thread(target=self._follow, args=(self._making, asked), daemon=True)
        follower.start()
        return follower

    def stop(self) -> None:
        """Has the clip that is being made not be made, if one is."""
        if self._making is not None:
            self._making.stop()

    def _follow(self, making: Making, asked: Asked) -> None:
        self.begins.disabled, self.ends.disabled, self.bar.layout.display = True, False, ""
        try:
            while not making.is_over:
                told = making.told
                self.bar.value = told.share
                self._say(told.words)
                time.sleep(own_prompt.TICK_SECONDS)
            path = making.clip()
            player = widgets.HTML(media.embedded(path, asked.caption(path)))
            self.clips.children = (player, *self.clips.children)
            self._say("")
        except NotMadeError as error:
            self._say(str(error))
        finally:
            self._making = None
            self.begins.disabled, self.ends.disabled, self.bar.layout.display = False, True, "none"

    def _say(self, words: str) -> None:
        self.words.value = own_prompt.shown(words)
