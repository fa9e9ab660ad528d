"""LaTeX as MathML, which browsers draw themselves."""

from __future__ import annotations

from latex2mathml.converter import convert

from moviegen.config import ConfigError


def mathml(latex: str, display: str = "inline") -> str:
    """A formula as HTML.

    Args:
        display: `inline`, or `block` for a line of its own.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        made = str(convert(latex.strip(), display=display))
    except Exception as error:  # what it raises has no class of its own
        raise ConfigError(f"the formula ${latex}$ cannot be read: {error!r}") from error
    if "\\" in made:  # a command that it does not know stays as it is
        raise ConfigError(f"the formula ${latex}$ cannot be read: latex2mathml does not know a command of it")
    return made
