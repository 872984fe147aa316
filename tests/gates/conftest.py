"""Evidence about a release, all of it good unless a test says otherwise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.core.bundle import Latency, Measurements, Variant
from tasks.core.machine import this_machine
from tasks.core.metrics import Scored
from tasks.core.recipe import METRICS
from tasks.gates import Evidence

ROWS = 100


def scored(correct: int, rows: int = ROWS) -> Scored:
    """A model of two classes that is right, and rather certain, on the first `correct` rows."""
    targets = np.zeros(rows, np.int64)
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    return Scored(np.array([right if row < correct else wrong for row in range(rows)]), targets)


def unanswered(rows: int = ROWS) -> Scored:
    return Scored(np.full((rows, 2), np.nan), np.zeros(rows, np.int64))


def variant(name: str = "int8", *, test: float = 0.97, milliseconds: float = 1.0, size: int = 1000) -> Variant:
    """A measured variant with this value of every metric on the test split."""
    metrics = dict.fromkeys(METRICS["classification"], test)
    latency = Latency(p50=milliseconds, p99=100.0)
    measured = Measurements(
        metrics={"validation": metrics, "test": metrics}, latency_ms={"1": latency, "32": latency}, agreement=1.0, machine=this_machine()
    )
    return Variant(name=name, file=f"variants/{name}.onnx", sha256="0", bytes=size, measurements=measured)


MakeEvidence = Callable[..., Evidence]


@pytest.fixture
def evidence() -> MakeEvidence:
    """Evidence with the given parts changed."""

    def make(**changes: Any) -> Evidence:
        good: dict[str, Any] = {
            "metric": "accuracy",
            "chosen": variant(),
            "fp32": variant("fp32"),
            "parity": 1e-6,
            "scored": scored(97),
            "champion": None,
            "resamples": 200,
            "seed": 0,
            "folds": (dict.fromkeys(METRICS["classification"], 0.97),),
        }
        return Evidence(**good | changes)

    return make
