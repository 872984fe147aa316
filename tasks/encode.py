"""Encode: fit the transform on the training split and keep every split decoded, so that no epoch decodes anything."""

from pathlib import Path

from tasks.core.dataset import SPLITS, Dataset
from tasks.core.encoded import Encoded
from tasks.core.errors import DataError, InputError
from tasks.core.recipe import Recipe
from tasks.core.splits import Split
from tasks.core.stages import StageResult
from tasks.core.transforms import TensorSpec, fit_transform


class EncodeResult(StageResult):
    """Which transform was fitted, and the tensors that it gives."""

    transform: str
    inputs: tuple[TensorSpec, ...]
    rows: dict[str, int]

    @property
    def figure(self) -> str:
        return f"{self.transform} → " + ", ".join(f"{spec.name} {list(spec.shape)}" for spec in self.inputs)


def encode(recipe: Recipe, dataset: Dataset, prepared: Path, out: Path) -> EncodeResult:
    """Write the transform and the encoded splits to `out`. Raises ConfigError, or DataError for a row that cannot be encoded."""
    names = list(dataset.features)
    training = Split.open(prepared, "train")
    transform = fit_transform(dataset.features, training.columns(names), recipe.transform, recipe.origin.below("transform"))
    encoded = Encoded.create(out, transform)
    rows: dict[str, int] = {}
    for name in SPLITS:
        split = Split.open(prepared, name)
        try:
            encoded.write(name, len(split), map(transform.encode, split.chunks(names)), split.targets, split.examples)
        except InputError as error:
            raise DataError(f"the {name} split of '{recipe.dataset}': {error.what}", f"look at data/{recipe.dataset}.yaml") from error
        rows[name] = len(split)
    return EncodeResult(transform=transform.kind, inputs=transform.inputs, rows=rows)
