"""Encode: fit the transform on the training split and keep every split decoded, so that no epoch decodes anything."""

from collections.abc import Iterator
from pathlib import Path

from tasks.core.bundle import Bundle
from tasks.core.dataset import SPLITS, Dataset
from tasks.core.encoded import Encoded
from tasks.core.errors import DataError, InputError
from tasks.core.pretrained import KEY, Pretrained
from tasks.core.recipe import Recipe
from tasks.core.splits import Split
from tasks.core.stages import StageResult, link_file
from tasks.core.tokenizing import TOKENIZER
from tasks.core.transforms import Arrays, TensorSpec, Transform, fit_transform


class EncodeResult(StageResult):
    """Which transform was fitted, and the tensors that it gives."""

    transform: str
    inputs: tuple[TensorSpec, ...]
    rows: dict[str, int]

    @property
    def figure(self) -> str:
        return f"{self.transform} → " + ", ".join(map(_in_words, self.inputs))


def _in_words(spec: TensorSpec) -> str:
    sizes = ", ".join(str(size) if size > 0 else f"≤ {spec.longest}" if spec.longest else "any" for size in spec.shape)
    ids = f" of {spec.vocabulary:,}" if spec.name == "input_ids" else ""
    return f"{spec.name} [{sizes}]{ids}"


def encode(recipe: Recipe, dataset: Dataset, prepared: Path, out: Path, base: Path | None = None) -> EncodeResult:
    """Write the transform and the encoded splits to `out`; `base` is the encoded folder of the training that this one starts from.

    Raises ConfigError, or DataError for a row that cannot be encoded.
    """
    names = list(dataset.features)
    tokenizer = pretrained_tokenizer(recipe, dataset) or (base / TOKENIZER if base and (base / TOKENIZER).is_file() else None)
    transform = fit_transform(
        dataset.features,
        # Opened for each pass: what a closed one had read no longer counts as this process's memory.
        lambda: Split.open(prepared, "train").chunks(names),
        recipe.transform,
        out,
        recipe.origin.below("transform"),
        running=dataset.task == "language_modelling",
        tokenizer=tokenizer,
    )
    return _write(transform, recipe.dataset, names, prepared, out)


def encode_by(bundle: Bundle, prepared: Path, out: Path) -> EncodeResult:
    """Write the splits to `out` as the transform of a bundle encodes them. Raises DataError for a row that cannot be encoded."""
    manifest = bundle.manifest
    for name in manifest.transform.files:
        link_file(bundle.folder / name, out / name)
    return _write(manifest.transform, manifest.lineage.dataset.name, list(manifest.columns), prepared, out)


def _write(transform: Transform, dataset: str, names: list[str], prepared: Path, out: Path) -> EncodeResult:
    encoded = Encoded.create(out, transform)
    rows: dict[str, int] = {}
    for name in SPLITS:
        split = Split.open(prepared, name)
        encoded.write(name, _encode(transform, split, names, dataset), split.targets, split.examples)
        rows[name] = len(split)
    return EncodeResult(transform=transform.kind, inputs=transform.inputs, rows=rows)


def pretrained_tokenizer(recipe: Recipe, dataset: Dataset) -> Path | None:
    """The tokenizer's file of the recipe's pretrained model, if it names one and the dataset has texts.

    Raises ConfigError for a model that cannot be used, UnreachableError for one that cannot be fetched.
    """
    pretrained = Pretrained.of(recipe.model, recipe.origin.below("model"))
    if pretrained is None or not any(column.type == "text" for column in dataset.features.values()):
        return None
    return pretrained.require_tokenizer(recipe.origin.below("model", KEY))


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
