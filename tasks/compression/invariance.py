"""Whether a model answers a row alone as it does beside others, and padded longer."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tasks.core.bundle import Invariance
from tasks.core.encoded import EncodedSplit
from tasks.core.language import Run, first_state, next_name
from tasks.core.metrics import Probabilities
from tasks.core.predictor import probabilities
from tasks.core.transforms import Tensors, TensorSpec

ROWS: Final = 256
TOLERANCE: Final = 0.02
"""The most that a probability may differ: two points, of which a client that shows whole percents notices hardly more than the
rounding. fp32, whose kernels add in another order for other shapes, stays below 0.0001; int8 that scales over the whole batch
goes past it by far where one row's values are much larger than the others'."""
_TIE: Final = 1e-4
"""Between two labels that are as near as this the order of additions decides, which is no fault of the model's."""
_CALL, _PADDED, _CONTEXT = 32, 64, 8
_SEARCHED: Final = 2**22
"""Numbers among which the largest is looked for: all of most tables, and some thousand small images, whose pixels are alike anyway."""


def check_invariance(run: Run, rows: EncodedSplit, state: tuple[TensorSpec, ...] = ()) -> Invariance:
    """Ask about rows of a split alone and together; of a language model, about tokens after the same state."""
    # A variant that has no finite answer is found by its scores.
    with np.errstate(invalid="ignore"):
        pairs = list(_tokens(run, rows, state) if state else _rows(run, rows))
        changed, difference = np.zeros(max(len(alone) for alone, _ in pairs), np.bool_), 0.0
        for alone, other in pairs:
            changed[: len(alone)] |= _changed(alone, other)
            difference = max(difference, float(np.abs(alone - other).max()))
    return Invariance(rows=len(changed), changed=int(changed.sum()), difference=difference, tolerance=TOLERANCE)


def _changed(alone: Probabilities, other: Probabilities) -> npt.NDArray[np.bool_]:
    """[rows], whether the label is another one, and not by a tie."""
    second, first = np.sort(alone, axis=1)[:, -2:].T
    return np.asarray((alone.argmax(axis=1) != other.argmax(axis=1)) & (first - second > _TIE))


Pairs = Iterator[tuple[Probabilities, Probabilities]]
"""Probabilities [rows, classes] of the same rows, the first rows of all that are asked about: alone, and in another way."""


def _rows(run: Run, split: EncodedSplit) -> Pairs:
    chosen = np.random.default_rng(0).permutation(np.linspace(0, len(split) - 1, min(ROWS, len(split))).astype(np.int64))
    alone = np.concatenate([_classes(run, split.tensors([row])) for row in chosen])
    extreme = _extreme(split)
    beside = [
        _classes(run, split.tensors([*chosen[start : start + _CALL - 1], extreme]))[:-1] for start in range(0, len(chosen), _CALL - 1)
    ]
    yield alone, np.concatenate(beside)
    if split.lengths is not None:
        padded = [_classes(run, _first(split.tensors([row, extreme]))) for row in chosen[:_PADDED]]
        yield alone[: len(padded)], np.concatenate(padded)


def _extreme(split: EncodedSplit) -> int:
    """The row that most disturbs what is scaled over a batch: the longest text, or the one with the largest number."""
    if split.lengths is not None:
        return int(split.lengths.argmax())
    size = sum(values.size for values in split.tensors(slice(1)).values())
    largest = [
        np.max(
            [np.abs(values).reshape(len(values), -1).max(axis=1) for values in split.tensors(slice(start, start + ROWS)).values()], axis=0
        )
        for start in range(0, min(len(split), max(ROWS, _SEARCHED // size)), ROWS)
    ]
    return int(np.concatenate(largest).argmax())


def _tokens(run: Run, split: EncodedSplit, state: tuple[TensorSpec, ...]) -> Pairs:
    """Tokens of the text, each after the state that a few before it leave."""
    starts = np.random.default_rng(0).integers(0, max(1, len(split.tokens) - _CONTEXT), ROWS)
    ids = np.asarray(split.tokens, np.int64)[(starts[:, None] + np.arange(_CONTEXT + 1)) % len(split.tokens)]
    alone, beside = [], []
    for start in range(0, ROWS, _CALL):
        context, token = ids[start : start + _CALL, :-1], ids[start : start + _CALL, -1:]
        outputs = run({"input_ids": context, **first_state(state, len(context))})
        inputs = {"input_ids": token, **{spec.name: outputs[next_name(spec.name)] for spec in state}}
        beside.append(_classes(run, inputs))
        alone += [_classes(run, {name: values[row : row + 1] for name, values in inputs.items()}) for row in range(len(token))]
    yield np.concatenate(alone), np.concatenate(beside)


def _classes(run: Run, tensors: Tensors) -> Probabilities:
    logits: npt.NDArray[Any] = run(tensors)["logits"]
    return probabilities(logits.reshape(len(logits), -1))


def _first(tensors: Tensors) -> Tensors:
    return {name: values[:1] for name, values in tensors.items()}
