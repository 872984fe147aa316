"""What a process has counted and has at the moment, or several of them together."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from deploy.serving.metrics import Metrics
from deploy.serving.models import Models
from tasks.core.predictor import runtime_of


@dataclass(kw_only=True)
class Tally:
    """All that `/metrics` tells."""

    metrics: Metrics = field(default_factory=Metrics)
    waiting: Counter[str] = field(default_factory=Counter)
    """Rows, by model."""
    served: set[tuple[str, str, str, str]] = field(default_factory=set)
    """Model, version, variant and provider: for a moment two versions of a model, as each process follows the pointers by itself."""
    challengers: set[tuple[str, str, str, str, float]] = field(default_factory=set)
    """Model, champion, challenger, what kind of traffic it gets, and its share."""
    workers: int = 1
    """Processes that answer."""
    restarts: int = 0
    """How often one of them died and was started again."""

    @classmethod
    def of(cls, models: Models) -> Self:
        """Of this process alone. It goes on counting in the result."""
        tally = cls(metrics=models.workers.metrics)
        for name, entry in models.items():
            for model in entry.models.values():
                tally.waiting[name] += model.batcher.waiting.rows
                provider = runtime_of(model.predictor.session).provider
                tally.served.add((name, model.version, model.predictor.variant.name, provider))
            if contest := entry.contest:
                tally.challengers.add((name, *contest.models, contest.traffic.traffic, contest.traffic.share))  # type: ignore[arg-type]
        return tally

    def snapshot(self) -> dict[str, Any]:
        """What other processes add to theirs, as JSON can say it."""
        return {
            "counted": self.metrics.snapshot(),
            "waiting": self.waiting,
            "served": sorted(self.served),
            "challengers": sorted(self.challengers),
        }

    def add(self, snapshot: Mapping[str, Any]) -> None:
        """Of a process that died only what it counted remains."""
        self.metrics.add(snapshot["counted"])
        self.waiting.update(snapshot.get("waiting", {}))
        self.served.update(tuple(served) for served in snapshot.get("served", ()))
        self.challengers.update(tuple(challenger) for challenger in snapshot.get("challengers", ()))
