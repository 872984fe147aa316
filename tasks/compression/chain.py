"""Compressors one after the other, which make one variant together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.compression import COMPRESSORS, Compressor, Subject
from tasks.core.recipe import Recipe
from tasks.core.stages import content_key


@dataclass(frozen=True)
class Step:
    """A compressor, and the name that it has in the catalog."""

    kind: str
    compressor: Compressor


@dataclass(frozen=True)
class Chain:
    """A variant's name, and the steps that make it."""

    name: str
    steps: tuple[Step, ...]
    fallback: bool = False
    """Whether it is made only where none of the others is within the limits."""

    @property
    def begins_trained(self) -> bool:
        """Whether it can be made only where the trained weights are."""
        return any(step.compressor.begins_trained for step in self.steps)

    def unfit(self, subject: Subject) -> str | None:
        """Why one of them makes no sense for such a model or on such a machine; None where all do."""
        return next((reason for step in self.steps if (reason := step.compressor.unfit(subject))), None)

    @property
    def training(self) -> str:
        """A digest of its steps up to the last that takes training: chains in which it is equal train once."""
        taught = max((number for number, step in enumerate(self.steps, 1) if step.compressor.taught(0)), default=0)
        return content_key([(step.kind, step.compressor) for step in self.steps[:taught]])

    def taught(self, share: float) -> "Chain | None":
        """The same with so much of its training, from 0 to 1; None where it has none."""
        steps = [(step, step.compressor.taught(share)) for step in self.steps]
        if not any(changed for _, changed in steps):
            return None
        return Chain(self.name, tuple(Step(step.kind, changed or step.compressor) for step, changed in steps))


def chains(recipe: Recipe) -> tuple[Chain, ...]:
    """The recipe's chains, each named by its compressors' kinds, and what they are told where that is a name already. Raises ConfigError."""
    found: dict[str, Chain] = {}
    wanted = (("compressors", recipe.compression.compressors), ("fallback", recipe.compression.fallback))
    for key, number, listed in ((key, number, listed) for key, lists in wanted for number, listed in enumerate(lists)):
        place = recipe.origin.below("compression", key, number)
        specs = [(listed, place)] if isinstance(listed, dict) else [(spec, place.below(step)) for step, spec in enumerate(listed)]
        if not specs:
            raise place.error((), "the list is empty", "name at least one compressor, as in [{kind: int8_dynamic}]")
        steps = tuple(Step(str(spec.get("kind")), COMPRESSORS.build(spec, where)) for spec, where in specs)
        name = _free_name(found, [spec for spec, _ in specs])
        found[name] = Chain(name, steps, fallback=key == "fallback")
    return tuple(found.values())


def _free_name(taken: Collection[str], specs: Sequence[Mapping[str, Any]]) -> str:
    """The kinds; then also the words among their options, as `int8_static-percentile`; then a number."""
    kinds = ".".join(str(spec.get("kind")) for spec in specs)
    words = [value for spec in specs for key, value in spec.items() if key != "kind" and isinstance(value, str)]
    names = [kinds, "-".join([kinds, *words]), *(f"{kinds}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)
