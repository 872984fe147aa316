"""Encode: fit the transform on the training split and keep every split decoded, so that no epoch decodes anything."""

from collections.abc import Iterator
from pathlib import Path

from tasks.core.dataset import SPLITS, Dataset
from tasks.core.encoded import Encoded
from tasks.core.errors import DataError, InputError
from tasks.core.recipe import Recipe
from tasks.core.splits import Split
from tasks.core.stages import StageResult
from tasks.core.transforms import Arrays, TensorSpec, Transform, fit_transform


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
        encoded.write(name, len(split), _encode(transform, split, names, recipe.dataset), split.targets, split.examples)
        rows[name] = len(split)
    return EncodeResult(transform=transform.kind, inputs=transform.inputs, rows=rows)


def _encode(transform: Transform, split: Split, names: list[str], dataset: str) -> Iterator[Arrays]:
    start = 0
    for columns in split.chunks(names):
        try:
            yield transform.encode(columns)
        except InputError as error:
            raise DataError(
                f"the {split.name} split of '{dataset}', counted from row {start}: {error.what}",
                f"look at the source in data/{dataset}.yaml, or let its expectations refuse such rows",
            ) from error
        start += len(columns[names[0]])
