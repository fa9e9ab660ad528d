"""Notebooks' text as HTML, by nbconvert: formulas become MathML, and `[@lipman2023]` links to the references."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from moviegen.config import ConfigError
from moviegen.report import bibliography
from moviegen.report.formulas import mathml

CITATION = r"\[(?P<cited>@[\w:-]+(?:;\s*@[\w:-]+)*)\]"


class PageExporter(HTMLExporter):
    """nbconvert's, with this report's formulas and references."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """A cell's text; errors name the notebook, which the page's template knows too."""
        return rendered(source, context["resources"]["site"].get("notebook", "the page"))


def rendered(source: str, notebook: str) -> str:
    """A text as HTML.

    Raises:
        ConfigError: it cites what is not in the list of references, or has a formula that cannot be read.
    """
    markdown = MarkdownWithMath(renderer=_Renderer(notebook))
    markdown.inline.register("citation", CITATION, _parse_citation, before="link")
    return str(markdown.render(source))


def _parse_citation(inline: Any, match: re.Match[str], state: Any) -> int:
    state.append_token({"type": "citation", "raw": match["cited"]})
    return match.end()


class _Renderer(IPythonRenderer):
    def __init__(self, notebook: str) -> None:
        super().__init__(escape=False)
        self.notebook = notebook

    def citation(self, keys: str) -> str:
        return bibliography.cited(keys, self.notebook)

    def inline_math(self, body: str) -> str:
        return self._formula(body, "inline")

    def block_math(self, body: str) -> str:
        return f'<span class="formula">{self._formula(body, "block")}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def _formula(self, latex: str, display: str) -> str:
        try:
            return mathml(latex, display)
        except ConfigError as error:
            raise ConfigError(f"{self.notebook}: {error}") from error
