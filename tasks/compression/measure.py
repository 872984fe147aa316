"""Measuring variants side by side on this machine."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from tasks.core.bundle import Latency
from tasks.core.encoded import EncodedSplit
from tasks.core.predictor import open_session

_WARM_UP, _ROUNDS, _SECONDS = 3, 300, 1.5


def open_variants(files: Mapping[str, Path], threads: int) -> dict[str, ort.InferenceSession]:
    return {name: open_session(path, threads) for name, path in files.items()}


def run_logits(session: ort.InferenceSession, split: EncodedSplit, size: int = 32) -> npt.NDArray[np.float32]:
    """float32 [rows, labels] for every row of a split, in batches of `size`."""
    starts = range(0, len(split), size)
    return np.concatenate([session.run(["logits"], split.tensors(slice(start, start + size)))[0] for start in starts])


def time_variants(sessions: Mapping[str, ort.InferenceSession], split: EncodedSplit, rows: int) -> dict[str, Latency]:
    """Milliseconds for a call with `rows` rows: one call of each variant in turn, so that the machine's drift falls on all."""
    tensors = split.tensors(np.arange(rows) % len(split))
    calls: dict[str, Callable[[], object]] = {name: lambda s=session: s.run(["logits"], tensors) for name, session in sessions.items()}  # type: ignore[misc]
    for call in calls.values():
        for _ in range(_WARM_UP):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + _SECONDS
    for done in range(_ROUNDS):
        if done >= 10 and time.perf_counter() > end:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: Latency(p50=float(np.percentile(ms, 50)), p99=float(np.percentile(ms, 99))) for name, ms in taken.items()}
