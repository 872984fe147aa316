"""Tune: which values of a recipe do best on the validation split. Optuna proposes them; its study lies in a file, so that a
killed one goes on where it was.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from tasks.core.errors import MaasflowError, explain
from tasks.core.recipe import Search, Tuning
from tasks.core.stages import content_key
from tasks.tunable import Tunable, rounded, whole

State = Literal["complete", "pruned", "failed"]

_STATES: Final[dict[State, TrialState]] = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
_BROKEN_OFTEN = 3


class Pruned(Exception):  # noqa: N818 - no error
    """A training that is behind the earlier ones and is stopped early."""


@dataclass(frozen=True)
class Trial:
    """A training with values of its own, and how it ended. `number` counts from 1."""

    number: int
    state: State
    value: float | None
    """The metric on the validation split; of a pruned trial the last epoch's."""
    seconds: float
    values: Mapping[str, Any]
    reason: str = ""
    """Why it failed."""
    own: bool = False
    """Whether its values are those that the recipe has anyway."""


@dataclass
class Proposal:
    """A trial that is under way."""

    number: int
    values: dict[str, Any]
    trial: optuna.Trial

    def report(self, epoch: int, value: float, *, last: bool) -> None:
        """Tell the pruner of an epoch. Raises Pruned where the training is not worth another."""
        self.trial.report(value, epoch)
        if not last and self.trial.should_prune():
            raise Pruned


class Study:
    """The trials of one space, in a file that outlives this process."""

    def __init__(self, study: optuna.Study, tuning: Tuning, seed: int, own: Mapping[str, Any] | None) -> None:
        self._study, self._tuning, self._seed, self._own = study, tuning, seed, own
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            # Its process was killed: nobody else can be at it while we hold the lock.
            study.tell(trial.number, state=TrialState.FAIL)

    @property
    def name(self) -> str:
        return str(self._study.study_name)

    @property
    def trials(self) -> list[Trial]:
        """Those that ended, in order. One whose process was killed did not."""
        found = [trial for trial in self._study.get_trials(deepcopy=False) if _settled(trial)]
        return [_trial(number, trial) for number, trial in enumerate(found, 1)]

    @property
    def finished(self) -> int:
        """Trials that ended well: complete or pruned."""
        return sum(trial.state != "failed" for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        sign = 1 if self._study.direction == optuna.study.StudyDirection.MINIMIZE else -1
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        return min(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)

    @property
    def closed(self) -> bool:
        """Whether all that these trials gave has been written down."""
        return bool(self._study.user_attrs.get("closed") == len(self.trials))

    def close(self) -> None:
        self._study.set_user_attr("closed", len(self.trials))

    def ask(self) -> Proposal:
        """The next values: the recipe's own first. A trial that was killed is proposed again, so that its training goes on."""
        number, every = len(self.trials) + 1, self._study.get_trials(deepcopy=False)
        # One that kills its process time and again, by its memory say, gives way to another.
        broken = sum(trial.state == TrialState.FAIL and not _settled(trial) for trial in every) // _BROKEN_OFTEN
        if number == 1 and not broken and self._own and not any(trial.state == TrialState.WAITING for trial in every):
            self._study.enqueue_trial({path: _internal(search, self._own[path]) for path, search in self._tuning.space.items()})
        # A sampler begins anew after a kill: with a seed for each trial it draws what an unbroken one would have drawn.
        seed = int(content_key(self._seed, number + broken)[:8], 16)
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=self._tuning.startup)
        trial = self._study.ask({path: _distribution(search) for path, search in self._tuning.space.items()})
        values = {path: _external(search, trial.params[path]) for path, search in self._tuning.space.items()}
        trial.set_user_attr("values", values)
        return Proposal(number, values, trial)

    def settle(self, proposal: Proposal, state: State, value: float | None, seconds: float, reason: str = "") -> Trial:
        """Write down how a trial ended."""
        proposal.trial.set_user_attr("ended", {"seconds": seconds, "reason": reason})
        self._study.tell(proposal.trial, value if state == "complete" else None, _STATES[state])
        return self.trials[-1]


@contextmanager
def open_study(path: Path, name: str, tunable: Tunable, own: Mapping[str, Any] | None = None) -> Iterator[Study]:
    """The study of that name in the file, held so that no other process runs it. Raises MaasflowError where one does."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MaasflowError(f"another `maasflow tune {tunable.name}` is running", "wait for it, or stop it: it goes on later") from None
    try:
        storage = _storage(path)
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                pruner=_pruner(tunable.tuning),
                direction="minimize" if tunable.lower_is_better else "maximize",
                load_if_exists=True,
            )
            yield Study(study, tunable.tuning, tunable.recipe.training.seed, own)
        finally:
            storage.engine.dispose()
    except SQLAlchemyError as error:
        raise explain(error) or MaasflowError(
            f"the study in {path} cannot be read or written: {str(error).splitlines()[0]}", "move the file away: a new study begins"
        ) from error
    finally:
        lock.release()


def _storage(path: Path) -> RDBStorage:
    """Optuna's store, whose tables are made whole or not at all: it cannot mend a part."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        RDBStorage(f"sqlite:///{partial}").engine.dispose()
        partial.rename(path)
    return RDBStorage(f"sqlite:///{path}")


def _pruner(tuning: Tuning) -> BasePruner:
    if tuning.pruner == "none":
        return NopPruner()
    # An epoch's number is its step, and the pruner compares from the step after the warm-up on.
    return MedianPruner(n_startup_trials=tuning.startup, n_warmup_steps=tuning.warmup_epochs + 1)


def _settled(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and "ended" in trial.user_attrs


def _trial(number: int, trial: FrozenTrial) -> Trial:
    state: State = next(ours for ours, theirs in _STATES.items() if theirs == trial.state)
    ended, values = trial.user_attrs["ended"], trial.user_attrs["values"]
    last = trial.intermediate_values.get(max(trial.intermediate_values, default=0))
    value = trial.value if state == "complete" else last if state == "pruned" else None
    return Trial(number, state, value, ended["seconds"], values, ended["reason"], "fixed_params" in trial.system_attrs)


def _distribution(search: Search) -> BaseDistribution:
    if search.choices:
        return CategoricalDistribution([json.dumps(choice) for choice in search.choices])
    low, high = search.low, search.high
    assert low is not None
    assert high is not None
    with warnings.catch_warnings():
        # Of a range that is no multiple of its step Optuna warns, and takes the multiple below.
        warnings.simplefilter("ignore")
        if whole(search):
            return IntDistribution(int(low), int(high), log=search.log, step=int(search.step or 1))
        return FloatDistribution(low, high, log=search.log, step=search.step)


def _internal(search: Search, value: Any) -> Any:
    """The value as Optuna knows it: a list cannot be a choice of it, its JSON can."""
    return json.dumps(value) if search.choices else value


def _external(search: Search, value: Any) -> Any:
    return json.loads(value) if search.choices else rounded(search, value)
