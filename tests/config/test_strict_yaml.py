"""YAML that is no parameters: keys set twice, bombs, code, values that Python cannot hold."""

import sys

import pytest
import yaml

from moviegen import config
from moviegen.config import ConfigError
from moviegen.config.strict_yaml import YAMLError, read_yaml


def refusal(text):
    with pytest.raises(YAMLError) as caught:
        read_yaml(text)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\nb: {c: [1, 2], d: 0x10}\n",
        "\ufeffa: 1",
        "base: &b {x: 1}\na: {<<: *b, x: 2}\nc: *b",
        "stages: {1: {}, 2: {}}",
    ],
)
def test_plain_values_are_those_of_yaml(text):
    assert read_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nscale: tiny\nseed: 2\n", "'seed' is set in line 1 and again in line 3"),
        ("train:\n  steps: 1\n  steps: 1\n", "'steps' is set in line 2 and again in line 3"),
        ("stages:\n  1: {}\n  '1': {}\n", "'1' is set in line 2 and again in line 3"),
        ("a: [{b: 1, b: 2}]", "'b' is set in line 1"),
    ],
)
def test_a_parameter_that_is_set_twice_is_named_with_its_lines(text, says):
    assert says in refusal(text)


def test_a_params_file_says_it_with_its_name(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: smoke.yaml\nseed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"mine.yaml is not YAML.*: 'seed' is set in line 2 and again in line 3"):
        config.load(tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=r"train.save: .* is not YAML: 'keep' is set in line 1 and again in line 1"):
        config.parse_overrides(["--train.save", "{keep: 1, keep: 2}"])


def test_nesting_beyond_pythons_own_stack():
    limit = sys.getrecursionlimit()  # which packages raise, and then PyYAML takes seconds to reach it
    sys.setrecursionlimit(500)
    try:
        assert "nested deeper" in refusal("[" * 500)
    finally:
        sys.setrecursionlimit(limit)


def test_aliases_that_stand_for_billions():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases" in refusal("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [*a]", "nested deeper"),
        ("[" * 60 + "]" * 60, "nested deeper"),
        ("a: 1\n" * 100_000, "characters"),
        ("a: !!python/object/apply:os.system ['true']", "python/object/apply"),
        ("a: !!python/name:os.system", "python/name"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: 0x_", "invalid literal"),
        ("a: !!int one", "invalid literal"),
        ("a: !!timestamp x", "group"),
        (f"a: {'9' * 5000}", "digits"),
        ("a: [1", "line 1"),
        ("a: \x00", "special characters"),
    ],
)
def test_what_is_no_plain_value(text, says):
    assert says in refusal(text)
