"""Values set in YAML text: the value is there, and nothing else is changed."""

import difflib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.config import override, read_yaml
from tasks.core.yaml_edit import flow, with_values

TEXT = """\
# what this is
dataset: points   # two columns
model: {family: mlp, hidden: [32,   16]}   # small
training:
  epochs: 6  # enough
  # of which nothing is known
  learning_rate: 5.0e-3

  augmentation:
    flip: 0.5
evaluation:
transform: {}
gates:
  - {kind: parity}
  - kind: size    # bytes
    maximum_mb: 1
description: >
  folded
  text
# the end
"""


def read(folder: Path, text: str) -> dict[str, Any]:
    (folder / "x.yaml").write_text(text)
    return read_yaml(folder / "x.yaml")[0]


def changed(before: str, after: str) -> list[str]:
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


@pytest.mark.parametrize(
    ("path", "value", "lines"),
    [
        ("dataset", "other", ["- dataset: points   # two columns", "+ dataset: other   # two columns"]),
        ("training.learning_rate", 1e-5, ["-   learning_rate: 5.0e-3", "+   learning_rate: 1.0e-05"]),
        ("training.epochs", 9, ["-   epochs: 6  # enough", "+   epochs: 9  # enough"]),
        (
            "model.hidden",
            [64],
            ["- model: {family: mlp, hidden: [32,   16]}   # small", "+ model: {family: mlp, hidden: [64]}   # small"],
        ),
        (
            "model.dropout",
            0.1,
            [
                "- model: {family: mlp, hidden: [32,   16]}   # small",
                "+ model: {family: mlp, hidden: [32,   16], dropout: 0.1}   # small",
            ],
        ),
        ("training.batch_size", 16, ["+   batch_size: 16"]),
        ("training.augmentation.shift", 0.1, ["+     shift: 0.1"]),
        ("training.early_stopping.patience", 3, ["+   early_stopping: {patience: 3}"]),
        ("evaluation.folds", 5, ["- evaluation:", "+ evaluation: {folds: 5}"]),
        ("transform.size", 8, ["- transform: {}", "+ transform: {size: 8}"]),
        ("gates.1.maximum_mb", 2, ["-     maximum_mb: 1", "+     maximum_mb: 2"]),
        ("gates", [], ["- gates:", "-   - {kind: parity}", "-   - kind: size    # bytes", "-     maximum_mb: 1", "+ gates: []"]),
        ("description", "a: b", ["- description: >", "-   folded", "-   text", '+ description: "a: b"']),
        ("serving.threads", 2, ["+ serving: {threads: 2}"]),
    ],
)
def test_only_the_value_is_changed(tmp_path: Path, path: str, value: object, lines: list[str]) -> None:
    edited = with_values(TEXT, {path: value})
    assert sorted(line for line in changed(TEXT, edited) if line[2:].strip()) == sorted(lines)
    assert read(tmp_path, edited) == override(read(tmp_path, TEXT), [f"{path}={json.dumps(value)}"])


@pytest.mark.parametrize("text", ["a:\n- 1\n- 2\nb: 3\n", "a:  # sizes\n  - 1\nb: 3", "{a: [1,\n  2], b: 3}\n", "---\na: |\n  x\n\nb: 3\n"])
def test_however_a_value_is_written(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, with_values(text, {"a": [7, 8], "c": True})) == {"a": [7, 8], "b": 3, "c": True}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aeno: #{}[],'\"\\-0é\n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab: #", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(value=JSON)
def test_a_value_on_a_line_reads_as_itself(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    assert read(tmp_path_factory.getbasetemp(), f"a: {flow(value)}\n") == {"a": value}
