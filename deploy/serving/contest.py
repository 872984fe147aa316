"""A champion and its challenger: who answers a request, and what the other would have said."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from random import random
from time import perf_counter
from typing import Any, Final
from weakref import ref

import numpy as np
import numpy.typing as npt

from deploy.serving.calls import Call, Refusal
from deploy.serving.comparisons import Record, Side
from deploy.serving.model import Model
from deploy.serving.shadows import Shadows
from deploy.serving.waiting import MOST_ROWS
from deploy.serving.work import Work
from tasks.core.traffic import Traffic
from tasks.core.transforms import Tensors

STICKY: Final = b"x-sticky-key"
"""The header whose value, whatever it is, always has the same model asked while the share stays or grows."""
_BYTES: Final = 6
"""Of a digest: as many as a float holds exactly, so that a share of 1 is all."""
_NOT_COMPUTED: Final = (400, 413, 422, 503)
"""Refusals before anything was computed, for what a request holds, or for what waits: the champion may take it all the same."""
_LATE: Final = 504

logger = logging.getLogger(__name__)


class Contest:
    """Two versions of a model that are served side by side. All but the making is for the event loop's thread."""

    def __init__(self, champion: Model, challenger: Model, traffic: Traffic, record: Record, shadows: Shadows) -> None:
        self.models = {champion.version: champion, challenger.version: challenger}
        """Each for itself, as who asks for a version gets it."""
        self.champion, self.challenger = replace(champion, contest=ref(self)), replace(challenger, contest=ref(self))
        self.traffic = traffic
        self.record = record
        self.shadows = shadows
        self.over = False
        """Whether others are served by now."""
        one, other = champion.manifest, challenger.manifest
        self._same_tensors = one.inputs == other.inputs
        self._same_transform = one.transform.model_dump() == other.transform.model_dump()
        self._comparable = bool(one.labels and other.labels)
        self._failed: set[type[BaseException]] = set()

    def choose(self, call: Call, *, tensors: bool) -> Model:
        """Who answers the call: by its header X-Sticky-Key always the same one, else at random. `tensors` are the champion's alone
        where the challenger takes others.
        """
        # A contest in the call is of a challenger that failed on it.
        if call.contest is None and self.traffic.traffic == "canary" and (self._same_tensors or not tensors) and self._draws(call):
            call.contest = self
            self.record.challenger.count("requests")
            return self.challenger
        self.record.champion.count("requests")
        return self.champion

    def answered(self, model: Model, tensors: Tensors, work: Work, instances: Sequence[Any] | None = None) -> None:
        """Have the other model say what it makes of the same, in some pause. `instances` are what the tensors were made of, if that is known."""
        if model.version == self.challenger.version:
            asked, other, side = self.record.challenger, self.champion, self.record.champion
        elif self.traffic.traffic == "shadow" and random() < self.traffic.share:  # noqa: S311 - a sample is no secret
            asked, other, side = self.record.champion, self.challenger, self.record.challenger
        else:
            return
        if not self._comparable or (instances is None and not self._same_tensors):
            return
        # Each version reads raw inputs by its own transform, as it would once it is champion.
        again = None if instances is None or self._same_transform else instances[:MOST_ROWS]
        self.shadows.offer(Copy(self, (asked, side), (model, other), tensors, again, work))

    def yields(self, call: Call, error: Exception) -> bool:
        """Whether the champion is to answer a call that the challenger did not."""
        if not isinstance(error, Refusal):
            # What it takes to compute was spent already.
            call.spend = None
            self.failed(self.record.challenger, error)
            return True
        if error.status == _LATE:
            self.failed(self.record.challenger, error)
        return error.status in _NOT_COMPUTED

    def lost(self, error: Exception) -> None:
        """Count a refusal of what the champion then answered. What both refuse is the client's mistake."""
        if isinstance(error, Refusal):
            self.failed(self.record.challenger, error)

    def failed(self, side: Side, error: Exception) -> None:
        """Count it; each kind is told of once."""
        side.count("failures")
        if type(error) not in self._failed:
            self._failed.add(type(error))
            logger.warning("%s: version %s failed where another is asked too", self.record.model, side.version, exc_info=error)

    def _draws(self, call: Call) -> bool:
        key = call.headers.get(STICKY)
        if key is None:
            return random() < self.traffic.share  # noqa: S311 - nothing is kept secret by it
        digest = blake2b(self.record.model.encode() + b"\0" + key, digest_size=_BYTES).digest()
        return int.from_bytes(digest) < self.traffic.share * (1 << 8 * _BYTES)


class Copy:
    """A request that one of the two answered, for the other. Of many rows the first are compared."""

    def __init__(
        self,
        contest: Contest,
        sides: tuple[Side, Side],
        models: tuple[Model, Model],
        tensors: Tensors,
        instances: Sequence[Any] | None,
        work: Work,
    ) -> None:
        self._contest = contest
        self._asked, self._side = sides
        self._model, self._other = models
        self._tensors = None if instances is not None else {name: values[:MOST_ROWS] for name, values in tensors.items()}
        self._instances = instances
        self._logits = work.outputs["logits"][:MOST_ROWS]
        self._whole, self._seconds = work.rows <= MOST_ROWS, work.ended - work.begun
        self._agreed = 0
        self._other_seconds = 0.0
        self._error: Exception | None = None
        # Instances are about as large as what they become.
        self.size = work.size

    @property
    def over(self) -> bool:
        return self._contest.over

    def compute(self) -> None:
        try:
            predictor = self._other.predictor
            tensors = predictor.tensors(self._instances) if self._tensors is None and self._instances is not None else self._tensors or {}
            start = perf_counter()
            logits = predictor.logits(tensors)
            self._other_seconds = perf_counter() - start
            self._agreed = _agreed((self._model, self._logits), (self._other, logits))
        except Exception as error:  # noqa: BLE001 - whatever it is, no client hears of it
            self._error = error

    def end(self) -> None:
        if self._error:
            self._contest.failed(self._side, self._error)
            return
        counts = self._contest.record.counts
        counts["rows"] += len(self._logits)
        counts["agreed"] += self._agreed
        if self._whole:
            self._asked.seconds.add(self._seconds)
            self._side.seconds.add(self._other_seconds)

    def drop(self) -> None:
        self._contest.record.counts["dropped"] += 1


def _agreed(*answers: tuple[Model, npt.NDArray[np.float32]]) -> int:
    """Rows that all give the same label; never those that one has no finite answer for."""
    one, other = (np.asarray(model.manifest.labels)[logits.argmax(axis=1)] for model, logits in answers)
    finite = np.all([np.isfinite(logits).all(axis=1) for _, logits in answers], axis=0)
    return int(((one == other) & finite).sum())
