"""Damaged files of every kind that a program reads: each loads, or is refused by name; see mutated_inputs.py."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from tests.mutated_inputs import COUNT, KINDS


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Every line of the process that loads them, by the kind of file; and how it ended."""
    command = (sys.executable, "-m", "tests.mutated_inputs", str(tmp_path_factory.mktemp("mutated")))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"kind"')]
    return lines, f"exit status {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_loads_or_is_refused_by_name(kind, outcomes):
    lines, end = outcomes
    of_kind = [line for line in lines if line["kind"] == kind]
    assert len(of_kind) in (1 + COUNT, 1 + 2 * COUNT), end
    assert of_kind[0]["outcome"] == "loaded", of_kind[0]["message"]
    assert [line for line in of_kind if line["outcome"] not in ("loaded", "refused")] == []
    assert [line for line in of_kind if line["outcome"] == "refused" and not line["named"]] == []
    if not kind.startswith("Training"):  # whose loader passes over what is damaged
        assert Counter(line["outcome"] for line in of_kind)["refused"] > COUNT // 2
