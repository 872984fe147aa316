"""The search for the best variant: what is cheap first, and training only for what could still win."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from tasks.compression.chain import Chain
from tasks.compression.measure import requests, time_variants
from tasks.core.bundle import Latency, Parallel
from tasks.core.metrics import drop
from tasks.core.predictor import run_session
from tasks.core.recipe import Recipe
from tasks.workshop import ROWS, Made, Workshop

_SLACK = 1.02
"""How much worse than the best so far a cost may be measured that is truly as good: timings vary by a percent or two."""
_RUNG = 0.25
"""The share of its training after which a variant is held against the others (successive halving, Jamieson and Talwalkar, 2016)."""

_log = logging.getLogger("maasflow.compress")


@dataclass
class Search:
    """What was made so far, and why the rest was not."""

    workshop: Workshop
    made: dict[str, Made] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        return self.workshop.subject.recipe

    def run(self, chains: tuple[Chain, ...]) -> None:
        """Make fp32 and every chain that could be the best; the fallback only where none of these is within the limits."""
        self.made["fp32"] = self.workshop.make(None)
        self._make([chain for chain in chains if not chain.fallback])
        fallback = [chain for chain in chains if chain.fallback]
        if not fallback:
            return
        if self._feasible():
            self.failed |= {chain.name: "not needed: others are within the limits" for chain in fallback}
            return
        _log.info(
            "none of %d variants is within the limits: trying the fallback, %s", len(self.made), ", ".join(each.name for each in fallback)
        )
        self._make(fallback)

    def _make(self, chains: list[Chain]) -> None:
        """Make those that fit; of those that take training, what could still win."""
        fitting = []
        for chain in chains:
            if reason := chain.unfit(self.workshop.subject):
                self.failed[chain.name] = f"not applicable here: {reason}"
            else:
                fitting.append(chain)
        for chain in fitting:
            if chain.taught(0) is None:
                self._keep(chain)
        taught = self._promising([chain for chain in fitting if chain.taught(0)])
        for chain in self._ahead(taught):
            self._keep(chain)

    def _keep(self, chain: Chain) -> None:
        if found := self._try(chain, chain):
            self.made[chain.name] = found

    def _try(self, chain: Chain, form: Chain) -> Made | None:
        """What a form of a chain makes; None, with the reason noted, where it fails in any way but for want of disk."""
        try:
            return self.workshop.make(form)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a compressor may fail in any way, and the others still count
            self.failed[chain.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            _log.warning("%s could not be made: %s", chain.name, self.failed[chain.name])
            return None

    def _promising(self, chains: list[Chain]) -> list[Chain]:
        """Those that, without their training, are as small and as fast as they must be to win."""
        sketches = {chain.name: found for chain in chains if (found := self._try(chain, _partly(chain, 0.0)))}
        if not sketches:
            return []
        costs = self._costs({**self.made, **sketches})
        best = min((costs[name][self.recipe.compression.objective] for name in self.made if self._within(name, costs)), default=None)
        left = []
        for chain in chains:
            if chain.name not in sketches:
                continue
            if reason := self._hopeless(costs[chain.name], best):
                self.failed[chain.name] = f"not trained: {reason}"
            else:
                left.append(chain)
        return left

    def _feasible(self) -> bool:
        """Whether any variant that was made is within all limits."""
        costs = self._costs(self.made)
        return any(self._within(name, costs) for name in self.made)

    def _hopeless(self, costs: Mapping[str, float], best: float | None) -> str | None:
        limits, objective = self.recipe.compression.limits, self.recipe.compression.objective
        ratio = costs["size"] / self._size(self.made["fp32"])
        if limits.size_ratio is not None and ratio > limits.size_ratio:
            return f"its size beside fp32, {ratio:.3g}, is over {limits.size_ratio:g}"
        if limits.memory_mb is not None and costs["memory"] > limits.memory_mb:
            return f"its {costs['memory']:.4g} MB of memory are over {limits.memory_mb:g}"
        if limits.latency_ms is not None and costs["latency"] > _SLACK * limits.latency_ms:
            return f"its {costs['latency']:.3g} ms for one row are over {limits.latency_ms:g}"
        if best is not None and costs[objective] > (_SLACK * best if best > 0 else best / _SLACK):
            return f"what needs no training is better by the objective, {objective}"
        return None

    def _within(self, name: str, costs: Mapping[str, Mapping[str, float]]) -> bool:
        """Whether a variant that was made is within all limits."""
        limit = self.recipe.compression.limits.metric_drop
        return (limit is None or self._drop(self.made[name]) <= limit) and self._hopeless(costs[name], None) is None

    def _ahead(self, chains: list[Chain]) -> list[Chain]:
        """Those of the better half of the trainings by the validation metric after a part of them, where there are more than two.

        Chains that begin alike share a training, which the best of them stands for: what comes after it is cheap.
        """
        if len({chain.training for chain in chains}) <= 2:
            return chains
        drops = {chain.name: self._drop(found) for chain in chains if (found := self._try(chain, _partly(chain, _RUNG)))}
        least: dict[str, float] = {}
        for chain in chains:
            if chain.name in drops:
                least[chain.training] = min(drops[chain.name], least.get(chain.training, inf))
        ahead = sorted(least, key=lambda training: least[training])[: -(-len(least) // 2)]
        for chain in chains:
            if chain.name in drops and chain.training not in ahead:
                self.failed[chain.name] = (
                    f"not trained to the end: after a quarter its validation metric was {drops[chain.name]:.4g} below fp32's, and others were ahead"
                )
        return [chain for chain in chains if chain.name in drops and chain.training in ahead]

    def _drop(self, found: Made) -> float:
        metric = self.recipe.evaluation.metric
        here, there = (made.scores["validation"].metrics()[metric] for made in (found, self.made["fp32"]))
        return drop(metric, here, there)

    def _costs(self, made: Mapping[str, Made]) -> dict[str, dict[str, float]]:
        """What each costs by each objective, taken side by side."""
        workshop = self.workshop
        test, state = workshop.subject.encoded.split("test"), workshop.manifest.state_inputs
        runs = {
            (name, way): run_session(session, found.batch)
            for name, found in made.items()
            for way, session in workshop.sessions(found.path, found.parallel).items()
        }
        one, many = (time_variants(runs, requests(test, state, rows)) for rows in (1, ROWS))

        def fastest(taken: Mapping[tuple[str, Parallel], Latency], name: str) -> float:
            return min(latency.p50 for (of, _), latency in taken.items() if of == name)

        return {
            name: {
                "size": self._size(found),
                "memory": found.memory_mb,
                "latency": fastest(one, name),
                "throughput": -ROWS * 1e3 / fastest(many, name),
            }
            for name, found in made.items()
        }

    def _size(self, found: Made) -> float:
        return float(sum(file.stat().st_size for file in found.path.parent.glob(f"{found.path.name}*")))


def _partly(chain: Chain, share: float) -> Chain:
    """The chain with a share of its training, which it has."""
    found = chain.taught(share)
    assert found
    return found
