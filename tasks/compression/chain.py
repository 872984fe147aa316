"""Compressors one after the other, which make one variant together."""

from dataclasses import dataclass
from pathlib import Path

from tasks.compression import COMPRESSORS, Compressor, Subject, remove_model
from tasks.core.recipe import Recipe


@dataclass(frozen=True)
class Chain:
    """A variant's name, and the compressors that make it."""

    name: str
    compressors: tuple[Compressor, ...]

    def unfit(self, subject: Subject) -> str | None:
        """Why one of them makes no sense for such a model or on such a machine; None where all do."""
        return next((reason for compressor in self.compressors if (reason := compressor.unfit(subject))), None)

    def compress(self, source: Path, target: Path, subject: Subject) -> None:
        """Write what they make of the file `source` to `target`."""
        for number, compressor in enumerate(self.compressors, 1):
            last = number == len(self.compressors)
            step = target if last else target.with_name(f"{target.stem}.step{number}.onnx")
            try:
                compressor.compress(source, step, subject)
            finally:
                if number > 1:
                    remove_model(source)
            source = step


def chains(recipe: Recipe) -> tuple[Chain, ...]:
    """The recipe's chains, each named by its compressors' kinds, and numbered where that is a name already. Raises ConfigError."""
    found: dict[str, Chain] = {}
    for index, specs in enumerate(recipe.compression.compressors):
        place = recipe.origin.below("compression", "compressors", index)
        steps = [(specs, place)] if isinstance(specs, dict) else [(spec, place.below(step)) for step, spec in enumerate(specs)]
        if not steps:
            raise place.error((), "the list is empty", "name at least one compressor, as in [{kind: int8_dynamic}]")
        compressors = tuple(COMPRESSORS.build(spec, where) for spec, where in steps)
        name = ".".join(str(spec["kind"]) for spec, _ in steps)
        if name in found:
            name = f"{name}-{index + 1}"
        found[name] = Chain(name, compressors)
    return tuple(found.values())
