"""Small real problems, taken through the stages in a second or two: points in the plane in three classes, also as images and
as texts, and a running text."""

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
from tasks.models import MODELS
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
TEXTS = Dataset.parse(
    {
        "source": {"kind": "csv", "path": "texts.csv"},
        "columns": {"text": {"type": "text"}, "side": {"type": "label", "classes": list(LABELS)}},
    }
)
RUNNING = Dataset.parse(
    {
        "source": {"kind": "text", "path": "running.txt"},
        "columns": {"text": {"type": "text"}},
        "cleaning": [],
        "split": {"by": "order"},
    }
)
DATASETS = {"table": TABLE, "image": IMAGES, "text": TEXTS, "running": RUNNING}
VERSION = DatasetVersion(name="points", raw="0" * 32, digest="1" * 32, rows=ROWS)


def recipe(**sections: Any) -> Recipe:
    """A recipe for the points, quick to train, with these sections changed, and a model of another family taken as it is."""
    values: dict[str, Any] = {
        "dataset": "points",
        "model": {"family": "mlp", "hidden": [40, 32]},
        "training": {"epochs": 6, "batch_size": 32, "learning_rate": 0.02},
        "evaluation": {"bootstrap": 100},
        "serving": {"threads": 1},
    }
    for name, section in sections.items():
        changed = isinstance(section, Mapping) and not (name == "model" and section.get("family", "mlp") != "mlp")
        values[name] = {**values.get(name, {}), **section} if changed else section
    return Recipe.parse(values).fitted_to(MODELS.load(values["model"]["family"]).task)


def write_prepared(folder: Path, kind: str = "table", rows: Mapping[str, int] = ROWS) -> Path:
    """The three prepared splits of a kind of DATASETS."""
    folder.mkdir(parents=True)
    for number, split in enumerate(SPLITS):
        columns, targets = _MAKERS[kind](np.random.default_rng(number), rows[split])
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
    """What each stage left on one of DATASETS, and what it found."""

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
    def run(cls, root: Path, kind: str = "table", **sections: Any) -> "Stages":
        found, dataset, encoded = recipe(**sections), DATASETS[kind], encode_tiny(root, kind, **sections)
        out = {name: root / name for name in ("trained", "evaluated", "exported", "compressed")}
        for folder in out.values():
            folder.mkdir()
        training = train(found, len(dataset.classes), encoded, out["trained"])
        return cls(
            root,
            found,
            training,
            evaluate(found, dataset.class_names, encoded, out["trained"], training, out["evaluated"]),
            export(found, "points", dataset, VERSION, encoded, out["trained"], out["exported"]),
            compress(found, encoded, out["exported"], out["compressed"], out["trained"], prepared=root / "prepared"),
        )


Rows = tuple[dict[str, pa.Array], np.ndarray[Any, np.dtype[np.int64]]]
"""The columns, and the class of each row."""


def _table(random: np.random.Generator, rows: int) -> Rows:
    a, b = random.normal(size=rows), random.normal(size=rows)
    targets = np.digitize(a + 0.3 * b, [-0.5, 0.5]).astype(np.int64)
    known = random.random(rows) > 0.1
    colors = np.array(["red", "green", "blue"])[random.integers(0, 3, rows)]
    return {"a": pa.array(a), "b": pa.array(np.where(known, b, np.nan), from_pandas=True), "color": pa.array(colors)}, targets


def _images(random: np.random.Generator, rows: int) -> Rows:
    """6 × 6 pixels with a bright third."""
    targets = np.arange(rows, dtype=np.int64) % 3
    pixels = random.integers(0, 120, (rows, 6, 6), dtype=np.uint8)
    for row, target in enumerate(targets.tolist()):
        pixels[row, :, 2 * target : 2 * target + 2] += 120
    return {"image": pa.array([png(image) for image in pixels])}, targets


_SIDES = (("west", "port", "sunset"), ("centre", "between", "noon"), ("east", "starboard", "sunrise"))
_OTHERS = ("the", "a", "walks", "stands", "and", "very", "house", "tree", "slowly", "under", "old", "man")


def _texts(random: np.random.Generator, rows: int) -> Rows:
    """Three to twelve words, a third of which, and at least one, tell the class."""
    targets = np.arange(rows, dtype=np.int64) % 3
    texts = []
    for target in targets.tolist():
        told = random.random(int(random.integers(3, 13))) < 1 / 3
        told[random.integers(len(told))] = True
        texts.append(" ".join(str(random.choice(_SIDES[target] if tells else _OTHERS)) for tells in told))
    return {"text": pa.array(texts)}, targets


def _running(random: np.random.Generator, rows: int) -> Rows:
    """A sentence of the same form in every row."""
    someone, does = ("cat", "dog", "bird", "child"), ("sees", "hears", "likes")
    texts = [f"the {random.choice(someone)} {random.choice(does)} the {random.choice(someone)}.\n" for _ in range(rows)]
    return {"text": pa.array(texts)}, np.zeros(rows, np.int64)


_MAKERS = {"table": _table, "image": _images, "text": _texts, "running": _running}


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """An image as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
