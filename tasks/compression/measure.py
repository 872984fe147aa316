"""Timing variants side by side on this machine."""

import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from tasks.core.bundle import Latency
from tasks.core.encoded import EncodedSplit
from tasks.core.language import Run, first_state
from tasks.core.transforms import Tensors, TensorSpec

_WARM_UP, _ROUNDS, _SECONDS, _LOADS = 3, 300, 1.5, 3

Name = TypeVar("Name", bound=Hashable)
Requests = Callable[[int], Tensors]
"""The input tensors of the request of a number."""


def requests(split: EncodedSplit, state: tuple[TensorSpec, ...], rows: int) -> Requests:
    """Requests of so many rows of a split, other ones each time: texts differ in length. Of a language model, of one token each."""
    count = len(split.tokens) if state else len(split)
    order = np.random.default_rng(0).permutation(count)

    def request(number: int) -> Tensors:
        chosen = order[(number * rows + np.arange(rows)) % count]
        if state:
            return {"input_ids": np.asarray(split.tokens[chosen], np.int64)[:, None], **first_state(state, rows)}
        return split.tensors(chosen)

    return request


def time_loads(files: Mapping[str, Path], load: Callable[[Path], object]) -> dict[str, float]:
    """The median of the milliseconds to load each file, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(_LOADS):
        for name, path in files.items():
            start = time.perf_counter()
            load(path)
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: float(np.median(ms)) for name, ms in taken.items()}


def time_variants(runs: Mapping[Name, Run], request: Requests) -> dict[Name, Latency]:
    """Milliseconds for a request: each is answered by every variant in turn, so that its size and the machine's drift fall on all."""
    for run in runs.values():
        for number in range(_WARM_UP):
            run(request(number))
    taken: dict[Name, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + _SECONDS
    for number in range(_ROUNDS):
        if number >= 10 and time.perf_counter() > end:
            break
        tensors = request(number)
        for name, run in runs.items():
            start = time.perf_counter()
            run(tensors)
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: Latency(p50=float(np.percentile(ms, 50)), p99=float(np.percentile(ms, 99))) for name, ms in taken.items()}
