"""A small real problem, points in the plane in three classes, taken through the stages in a second or two."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from tasks.compress import CompressResult, compress
from tasks.core.bundle import DatasetVersion
from tasks.core.dataset import SPLITS, Dataset
from tasks.core.encoded import Encoded
from tasks.core.recipe import Recipe
from tasks.core.splits import EXAMPLE, TARGET, write_split
from tasks.encode import encode
from tasks.evaluate import EvaluateResult, evaluate
from tasks.export import ExportResult, export
from tasks.train import TrainResult, train

LABELS = ("left", "middle", "right")
ROWS = {"train": 300, "validation": 80, "test": 120}
TABLE = Dataset.parse(
    {
        "source": {"kind": "csv", "path": "points.csv"},
        "columns": {
            "a": {"type": "number"},
            "b": {"type": "number", "nullable": True},
            "color": {"type": "category"},
            "side": {"type": "label", "classes": list(LABELS)},
        },
    }
)
IMAGES = Dataset.parse(
    {
        "source": {"kind": "images", "path": "."},
        "columns": {"image": {"type": "image"}, "side": {"type": "label", "classes": list(LABELS)}},
    }
)
DATASETS = {"table": TABLE, "image": IMAGES}
VERSION = DatasetVersion(name="points", raw="0" * 32, digest="1" * 32, rows=ROWS)


def recipe(**sections: Any) -> Recipe:
    """A recipe for the points, quick to train, with these sections changed."""
    values: dict[str, Any] = {
        "dataset": "points",
        "model": {"family": "mlp", "hidden": [24]},
        "training": {"epochs": 6, "batch_size": 32, "learning_rate": 0.02},
        "evaluation": {"bootstrap": 100},
        "serving": {"threads": 1},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, Mapping) else section
    return Recipe.parse(values)


def write_prepared(folder: Path, kind: str = "table", rows: Mapping[str, int] = ROWS) -> Path:
    """The three prepared splits of the points as a table, or of 6 × 6 images with a bright third."""
    folder.mkdir(parents=True)
    for number, split in enumerate(SPLITS):
        columns, targets = (_table if kind == "table" else _images)(np.random.default_rng(number), rows[split])
        identity = pa.array(np.arange(len(targets), dtype=np.uint64) + np.uint64(number * 10**6))
        batch = pa.RecordBatch.from_pydict({**columns, EXAMPLE: identity, TARGET: pa.array(targets)})
        write_split(folder, split, iter([batch]), batch.schema)
    (folder / "summary.json").write_text(json.dumps({"rows": dict(rows), "classes": {}, "dropped": {}}))
    return folder


def encode_tiny(folder: Path, kind: str = "table", **sections: Any) -> Encoded:
    """The points, prepared and encoded under the folder."""
    out = folder / "encoded"
    out.mkdir(parents=True)
    encode(recipe(**sections), DATASETS[kind], write_prepared(folder / "prepared", kind), out)
    return Encoded(out)


@dataclass(frozen=True)
class Stages:
    """What each stage left on the points, and what it found."""

    root: Path
    recipe: Recipe
    training: TrainResult
    evaluation: EvaluateResult
    export: ExportResult
    compression: CompressResult

    @property
    def encoded(self) -> Encoded:
        return Encoded(self.root / "encoded")

    def folder(self, stage: str) -> Path:
        return self.root / stage

    @classmethod
    def run(cls, root: Path, **sections: Any) -> "Stages":
        found, encoded = recipe(**sections), encode_tiny(root, **sections)
        out = {name: root / name for name in ("trained", "evaluated", "exported", "compressed")}
        for folder in out.values():
            folder.mkdir()
        training = train(found, len(LABELS), encoded, out["trained"])
        return cls(
            root,
            found,
            training,
            evaluate(found, LABELS, encoded, out["trained"], training, out["evaluated"]),
            export(found, "points", TABLE, VERSION, encoded, out["trained"], out["exported"]),
            compress(found, encoded, out["exported"], out["compressed"]),
        )


def _table(random: np.random.Generator, rows: int) -> tuple[dict[str, pa.Array], np.ndarray[Any, np.dtype[np.int64]]]:
    a, b = random.normal(size=rows), random.normal(size=rows)
    targets = np.digitize(a + 0.3 * b, [-0.5, 0.5]).astype(np.int64)
    known = random.random(rows) > 0.1
    colors = np.array(["red", "green", "blue"])[random.integers(0, 3, rows)]
    return {"a": pa.array(a), "b": pa.array(np.where(known, b, np.nan), from_pandas=True), "color": pa.array(colors)}, targets


def _images(random: np.random.Generator, rows: int) -> tuple[dict[str, pa.Array], np.ndarray[Any, np.dtype[np.int64]]]:
    targets = np.arange(rows, dtype=np.int64) % 3
    pixels = random.integers(0, 120, (rows, 6, 6), dtype=np.uint8)
    for row, target in enumerate(targets.tolist()):
        pixels[row, :, 2 * target : 2 * target + 2] += 120
    return {"image": pa.array([png(image) for image in pixels])}, targets


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """An image as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
