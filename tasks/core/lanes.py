"""A session whose threads each take rows of their own, instead of a part of every operation.

The operations of a small model are too short to be shared: a second thread then costs more than it does. Two halves of a batch side by
side need no more than to meet at its end, and short texts are not padded to the longest of the other half.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.bound import Session
from tasks.core.transforms import Tensors


class Lanes:
    """So many rows, or groups of them, at once, each in one of the session's threads. The session itself has one thread for each call."""

    def __init__(self, session: Session, count: int) -> None:
        self.session = session
        self.count = count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="lane")

    def run(self, names: list[str], tensors: Tensors, /) -> list[npt.NDArray[Any]]:
        """The named outputs, each [batch, …]."""
        groups = _groups(tensors, self.count)
        if len(groups) == 1:
            return self.session.run(names, tensors)
        found = self.map(names, [_rows_of(tensors, rows) for rows in groups])
        order = np.argsort(np.concatenate(groups))
        return [np.concatenate(outputs)[order] for outputs in zip(*found, strict=True)]

    def map(self, names: list[str], calls: Iterable[Tensors]) -> list[list[npt.NDArray[Any]]]:
        """The named outputs of every call, in order."""
        return list(self._threads.map(lambda call: self.session.run(names, call), calls))

    def get_inputs(self) -> Sequence[Any]:
        return self.session.get_inputs()

    def get_outputs(self) -> Sequence[Any]:
        return self.session.get_outputs()

    def get_providers(self) -> Sequence[str]:
        return self.session.get_providers()

    def get_session_options(self) -> Any:
        return self.session.get_session_options()


def _groups(tensors: Tensors, count: int) -> list[npt.NDArray[np.intp]]:
    """The numbers of the rows of each lane: about as many tokens for each, and texts of like length together."""
    total = len(next(iter(tensors.values())))
    mask = tensors.get("attention_mask")
    if mask is None:
        return [group for group in np.array_split(np.arange(total), count) if len(group)]
    lengths = _lengths(mask)
    order = np.argsort(-lengths, kind="stable")
    done = np.cumsum(lengths[order])
    # Where each lane's share of the tokens is reached, to the nearest row.
    cuts = np.searchsorted(done - lengths[order] / 2, done[-1] * np.arange(1, count) / count)
    return [group for group in np.split(order, cuts) if len(group)]


def _rows_of(tensors: Tensors, rows: npt.NDArray[np.intp]) -> Tensors:
    """Some of the rows, without the padding that none of them needs."""
    mask = tensors.get("attention_mask")
    if mask is None:
        return {name: values[rows] for name, values in tensors.items()}
    longest = int(_lengths(mask[rows]).max())
    return {name: values[rows, :longest] if values.shape[1:] == mask.shape[1:] else values[rows] for name, values in tensors.items()}


def _lengths(mask: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """[batch]: the places up to the last that is not masked out, at least one."""
    return np.asarray(np.maximum((mask != 0).cumsum(axis=1).argmax(axis=1) + 1, 1), np.intp)
