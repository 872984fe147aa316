"""Models that answer the same requests in turns, so that the machine's drift falls on all."""

import time
from collections.abc import Mapping
from typing import Final

import numpy as np

from tasks.compression.measure import Requests
from tasks.core.language import Run

IN_A_ROW: Final = 4
"""Requests of a turn. The one before them does not count: threads of the model before may still spin, and its weights fill the cache."""


def take_turns(runs: Mapping[str, Run], request: Requests, rounds: int) -> dict[str, list[float]]:
    """Seconds for each request by name, in another order of the models every round."""
    order = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        requests = [request(number * IN_A_ROW + place) for place in range(IN_A_ROW)]
        for name in order.permutation(list(runs)).tolist():
            runs[name](requests[-1])
            for tensors in requests:
                start = time.perf_counter()
                runs[name](tensors)
                taken[name].append(time.perf_counter() - start)
    return taken
