"""Compressors one after the other, which make one variant together."""

from dataclasses import dataclass

from tasks.compression import COMPRESSORS, Compressor, Subject
from tasks.core.recipe import Recipe


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

    @property
    def begins_trained(self) -> bool:
        """Whether it can be made only where the trained weights are."""
        return any(step.compressor.begins_trained for step in self.steps)

    def unfit(self, subject: Subject) -> str | None:
        """Why one of them makes no sense for such a model or on such a machine; None where all do."""
        return next((reason for step in self.steps if (reason := step.compressor.unfit(subject))), None)

    def taught(self, share: float) -> "Chain | None":
        """The same with so much of its training, from 0 to 1; None where it has none."""
        steps = [(step, step.compressor.taught(share)) for step in self.steps]
        if not any(changed for _, changed in steps):
            return None
        return Chain(self.name, tuple(Step(step.kind, changed or step.compressor) for step, changed in steps))


def chains(recipe: Recipe) -> tuple[Chain, ...]:
    """The recipe's chains, each named by its compressors' kinds, and numbered where that is a name already. Raises ConfigError."""
    found: dict[str, Chain] = {}
    for index, specs in enumerate(recipe.compression.compressors):
        place = recipe.origin.below("compression", "compressors", index)
        wanted = [(specs, place)] if isinstance(specs, dict) else [(spec, place.below(step)) for step, spec in enumerate(specs)]
        if not wanted:
            raise place.error((), "the list is empty", "name at least one compressor, as in [{kind: int8_dynamic}]")
        steps = tuple(Step(str(spec.get("kind")), COMPRESSORS.build(spec, where)) for spec, where in wanted)
        name = ".".join(step.kind for step in steps)
        if name in found:
            name = f"{name}-{index + 1}"
        found[name] = Chain(name, steps)
    return tuple(found.values())
