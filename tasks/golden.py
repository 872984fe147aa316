"""Golden rows: taken from the test split, and answered by every variant on the machine on which it was just measured."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from tasks.core.bundle import GOLDEN, Bundle
from tasks.core.encoded import Encoded
from tasks.core.file_digests import sha256
from tasks.core.golden import Golden, answer
from tasks.core.predictor import Predictor
from tasks.core.splits import Split
from tasks.core.stages import write_text
from tasks.core.transforms import TableTransform
from tasks.core.transforms.fitted import missing

_PROMPT: Final = 32
"""Tokens of a language model's row."""
_MOST_CHARACTERS: Final = 2**20
"""Of a row: a larger one, which is a photograph as a rule, is passed over, so that the bundle stays small."""


def add_golden(bundle: Bundle, encoded: Encoded, prepared: Path, count: int) -> Bundle:
    """Write so many golden rows into a bundle, or fewer where the test split has no more that are small enough."""
    if bundle.manifest.task == "language_modelling":
        rows: list[Any] = list(_prompts(encoded, count))
    else:
        rows = [row for row in _instances(bundle, prepared, count) if len(json.dumps(row)) <= _MOST_CHARACTERS]
    predictors = (Predictor(bundle, variant.name) for variant in bundle.manifest.variants)
    answers = {predictor.variant.name: tuple(answer(predictor, row) for row in rows) for predictor in predictors}
    write_text(bundle.folder / GOLDEN, Golden(rows=tuple(rows), answers=answers).model_dump_json(indent=1))
    return Bundle(bundle.folder, bundle.manifest.replace(golden=sha256(bundle.folder / GOLDEN))).write()


def _prompts(encoded: Encoded, count: int) -> Iterator[list[int]]:
    """Token ids from all over the text."""
    tokens = encoded.split("test").tokens
    length = min(_PROMPT, len(tokens))
    for start in np.unique(np.linspace(0, len(tokens) - length, count, dtype=np.int64)).tolist():
        yield tokens[start : start + length].tolist()


def _instances(bundle: Bundle, prepared: Path, count: int) -> Iterator[Any]:
    """Rows as a client sends them, of each class as many as it has in the split."""
    split, names = Split.open(prepared, "test"), list(bundle.manifest.columns)
    by_class = np.argsort(split.targets, kind="stable")
    for place in np.unique(np.linspace(0, len(split) - 1, count, dtype=np.int64)):
        row = int(by_class[place])
        values = {name: _sent(column[0]) for name, column in split.columns(names, row, row + 1).items()}
        yield values if isinstance(bundle.manifest.transform, TableTransform) else values[names[0]]


def _sent(value: Any) -> Any:
    """A value of a row in JSON."""
    if missing(value):
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.item() if isinstance(value, np.generic) else value
