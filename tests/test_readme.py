"""The commands of the README are commands of this checkout: their options and parameters exist, none is run."""

import re
import shlex
from pathlib import Path

import pytest

from moviegen import __main__, config
from moviegen.config import ConfigError

ROOT = Path(__file__).parent.parent
WORDS = "python -m moviegen "


def commands(text):
    """What follows `python -m moviegen`, in blocks and in lines of prose; `... --x 1` goes on with the one above."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    found = re.findall(rf"(?<!`)`{WORDS}([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in "".join(blocks).splitlines():
        if WORDS in line:
            found.append(line.partition(WORDS)[2])
        elif more := re.match(r"#\s+\.\.\. (.*?)(?:   |$)", line):
            found.append(f"{found[-1]} {more[1]}")
    return [shlex.split(command, comments=True) for command in found]


def check(words):
    options, rest = __main__.parser().parse_known_args(words)
    overrides = config.parse_overrides(rest, getattr(options, "stage", None))
    config.load(options.config, overrides)
    assert (ROOT / __main__.module_of(options).replace(".", "/")).with_suffix(".py").is_file()


COMMANDS = [command for name in ("README.md", "ARCHITECTURE.md") for command in commands((ROOT / name).read_text())]


def test_those_in_blocks_in_prose_and_continued_are_found():
    found = {" ".join(command) for command in COMMANDS}
    assert "tae export --output vae.safetensors" in found
    assert "count --config 30B" in found
    assert any("--train.resume.force true" in command and command.startswith("train") for command in found)
    assert len(found) >= 10


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_understood(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(words)


@pytest.mark.parametrize("wrong", ["--prompt x", "--train.setps 1", "--size"])
def test_one_that_is_not_would_be_seen(wrong):
    with pytest.raises((ConfigError, SystemExit)):
        check(["sample", *wrong.split()])


def test_parameters_that_are_named_exist():
    """Those in code of the section on weights, with or without a value."""
    section = (ROOT / "README.md").read_text().partition("## Pretrained weights")[2].partition("\n## ")[0]
    names = re.findall(r"`(?:--)?((?:tae|text|model|dataset|sample)\.[a-z_0-9.]+)(?:[: ][^`]*)?`", section)
    names = [name for name in names if not name.endswith(".safetensors")]
    assert len(names) > 8
    for name in names:
        assert any(known == name or known.startswith(f"{name}.") for known in config.known_names()), name
