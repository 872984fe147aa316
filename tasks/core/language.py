"""How well a language model predicts a running text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tasks.core.transforms import Tensors, TensorSpec

LANES: Final = 32
"""Places in the text that are read side by side. The model knows nothing of what stands before each of them."""
WINDOW: Final = 256
"""Tokens that are read in one call."""

Run = Callable[[Tensors], dict[str, npt.NDArray[Any]]]
"""A model: its outputs by name, for its inputs by name."""


@dataclass(frozen=True)
class ScoredText:
    """Blocks of a text, each with the nats that its tokens cost, so that a resample is a matter of weights.

    `nats`, `tokens` and `characters` are [blocks]; `predicted` holds the most probable id at each token.
    """

    nats: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]
    characters: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.nats)

    def metrics(self, weights: npt.NDArray[np.float64] | None = None) -> dict[str, float]:
        """nats and bits a character, and the perplexity of a token. NaN where the model has no finite answer."""
        w = np.ones(len(self)) if weights is None else weights
        total = float((w * self.nats).sum())
        nats, token = total / float((w * self.characters).sum()), total / float((w * self.tokens).sum())
        return {"nats": nats, "bits": nats / float(np.log(2)), "perplexity": float(np.exp(min(token, 700.0)))}

    def save(self, path: Path) -> None:
        np.savez(path, nats=self.nats, tokens=self.tokens, characters=self.characters, predicted=self.predicted)

    @property
    def unanswered(self) -> list[int]:
        """Blocks in which a token has no finite probability."""
        blocks: list[int] = np.flatnonzero(~np.isfinite(self.nats)).tolist()
        return blocks


def windows(
    tokens: npt.NDArray[Any], lanes: int, length: int, start: int = 0
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """(ids, the id that follows each), int64 [lanes, at most length], in reading order: the text cut into equal lanes."""
    lanes = max(1, min(lanes, (len(tokens) - 1 - start) // 2))
    each = (len(tokens) - 1 - start) // lanes
    places = start + each * np.arange(lanes)[:, None]
    for begin in range(0, each, length):
        here = places + np.arange(begin, min(begin + length, each))
        yield tokens[here].astype(np.int64), tokens[here + 1].astype(np.int64)


def first_state(state: tuple[TensorSpec, ...], rows: int) -> Tensors:
    """The state before anything was read: zeros."""
    return {spec.name: np.zeros((rows, *spec.shape), np.float32) for spec in state}


def next_name(state: str) -> str:
    """The output with the next value of a state."""
    return f"next_{state}"


def score_text(
    run: Run, tokens: npt.NDArray[Any], state: tuple[TensorSpec, ...], characters: Callable[[npt.NDArray[np.int64]], int]
) -> ScoredText:
    """Read a text through a model; `characters` counts those that ids stand for."""
    carried: Tensors = {}
    nats, counts, lengths, predicted = [], [], [], []
    for ids, following in windows(tokens, LANES, WINDOW):
        carried = carried or first_state(state, len(ids))
        outputs = run({"input_ids": ids, **carried})
        carried = {name: outputs[next_name(name)] for name in carried}
        logits = outputs["logits"].astype(np.float64)
        # In place: a vocabulary of words makes these large.
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, following[..., None], axis=-1)[..., 0]
        predicted.append(logits.argmax(axis=-1).ravel())
        nats.append((np.log(np.exp(logits, out=logits).sum(axis=-1)) - chosen).sum(axis=1))
        counts.append(np.full(len(ids), ids.shape[1], np.float64))
        lengths.append([characters(row) for row in following])
    return ScoredText(np.concatenate(nats), np.concatenate(counts), np.concatenate(lengths).astype(np.float64), np.concatenate(predicted))
