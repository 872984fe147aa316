"""Measuring variants side by side on this machine."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tasks.core.bundle import Latency
from tasks.core.predictor import open_session
from tasks.core.transforms import Tensors

_WARM_UP, _ROUNDS, _SECONDS = 3, 300, 1.5


def open_variants(files: Mapping[str, Path], threads: int) -> dict[str, ort.InferenceSession]:
    return {name: open_session(path, threads) for name, path in files.items()}


def time_variants(sessions: Mapping[str, ort.InferenceSession], tensors: Tensors) -> dict[str, Latency]:
    """Milliseconds for a call with these inputs: one call of each variant in turn, so that the machine's drift falls on all."""
    calls: dict[str, Callable[[], object]] = {name: lambda s=session: s.run(None, tensors) for name, session in sessions.items()}  # type: ignore[misc]
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
