"""Which rows are trained on, and in which batches."""

import numpy as np
import numpy.typing as npt

from tasks.core.encoded import EncodedSplit
from tasks.core.recipe import Training

Rows = npt.NDArray[np.int64]

_POOL = 50
"""Batches whose texts are sorted by length together: enough that a batch has hardly any padding, few enough that it stays random."""


class Batches:
    """The training rows of every epoch, decided by the seed and the epoch alone, one batch for each optimizer step."""

    def __init__(self, split: EncodedSplit, training: Training) -> None:
        self.training = training
        self.targets, self.lengths = split.targets, split.lengths
        self.rows = self._subset(training.rows_per_class)
        self.size = training.batch_size * training.accumulation
        self.steps = -(-len(self.rows) // self.size)

    def epoch(self, number: int) -> list[Rows]:
        random = np.random.default_rng([self.training.seed, number])
        rows = self._balanced(random) if self.training.balance == "sampling" else self.rows[random.permutation(len(self.rows))]
        if self.lengths is None:
            return self._cut(rows)
        pool = self.size * _POOL
        found = []
        for start in range(0, len(rows), pool):
            part = rows[start : start + pool]
            found += self._cut(part[np.argsort(self.lengths[part], kind="stable")])
        return [found[place] for place in random.permutation(len(found))]

    def _cut(self, rows: Rows) -> list[Rows]:
        return [rows[start : start + self.size] for start in range(0, len(rows), self.size)]

    def _subset(self, per_class: int | None) -> Rows:
        order = np.arange(len(self.targets))
        if per_class is None:
            return order
        order = np.random.default_rng(self.training.seed).permutation(order)
        return np.sort(np.concatenate([order[self.targets[order] == target][:per_class] for target in np.unique(self.targets)]))

    def _balanced(self, random: np.random.Generator) -> Rows:
        """As many rows as there are, an equal share from each class; a class is gone through once before a row of it is repeated."""
        classes = np.unique(self.targets[self.rows])
        shares = np.diff(np.linspace(0, len(self.rows), len(classes) + 1).round().astype(np.int64))
        drawn = []
        for target, share in zip(classes, shares, strict=True):
            rows = self.rows[self.targets[self.rows] == target]
            drawn += [random.permutation(rows) for _ in range(share // len(rows))] + [random.permutation(rows)[: share % len(rows)]]
        return random.permutation(np.concatenate(drawn))
