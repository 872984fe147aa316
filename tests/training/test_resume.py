"""A training that was killed ends with the weights, bit for bit, of one that was not."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tasks.core.encoded import Encoded
from tasks.train import TrainResult, train
from tasks.training.checkpoint import Checkpoint
from tasks.training.loop import WEIGHTS, Loop
from tests.conftest import REPOSITORY
from tests.tiny import LABELS, recipe
from tests.training.conftest import MakeLoop
from tests.training.killed import Spec

OPTIMIZERS = ("adamw", "adam", "sgd")
# 300 rows in batches of 32: ten steps an epoch, so that every fourth step is sometimes an epoch's end and mostly not.
KILLS = {
    "in an epoch": ("saved", 2),
    "while the checkpoint is written": ("writing", 2),
    "with an epoch's weights kept and its end not noted": ("kept", 1),
    "between epochs": ("saved", 3),
}


def sections(optimizer: str) -> dict[str, Any]:
    training = {
        "optimizer": optimizer,
        "epochs": 5,
        "checkpoint_steps": 4,
        "schedule": "cosine",
        "warmup": 0.2,
        "weight_decay": 0.01,
        "l1": 1e-4,
        "clip_norm": 1.0,
        "label_smoothing": 0.1,
        "balance": "weights",
        "accumulation": 1,
        "early_stopping": {"patience": 50},
    }
    return {"model": {"dropout": 0.4}, "training": training}


def finish(optimizer: str, encoded: Encoded, folder: Path) -> TrainResult:
    folder.mkdir(exist_ok=True)
    return train(recipe(**sections(optimizer)), len(LABELS), encoded, folder)


def told(result: TrainResult) -> dict[str, Any]:
    """All that a training found, but for the time of day."""
    return result.model_dump(exclude={"best": {"finished"}, "history": {"__all__": {"finished"}}})


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def killed(encoded: Encoded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of trainings that were killed: once each way, and in every way one after the other."""
    root = tmp_path_factory.mktemp("killed")
    runs: Spec = {"encoded": str(encoded.folder), "runs": []}
    for optimizer in OPTIMIZERS:
        ways = {name: [kill] for name, kill in KILLS.items()} | {"every way": list(KILLS.values())}
        for name, kills in ways.items():
            folder = root / f"{optimizer} {name}"
            folder.mkdir()
            runs["runs"].append((str(folder), sections(optimizer), kills))
    command = [sys.executable, "-m", "tests.training.killed", json.dumps(runs)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def unbroken(encoded: Encoded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, dict[str, Any]]]:
    """The weights' digest and the result of each optimizer's training."""
    root = tmp_path_factory.mktemp("unbroken")
    results = {optimizer: finish(optimizer, encoded, root / optimizer) for optimizer in OPTIMIZERS}
    return {optimizer: (digest(root / optimizer), told(result)) for optimizer, result in results.items()}


@pytest.mark.parametrize("way", [*KILLS, "every way"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_killed_and_resumed(
    optimizer: str, way: str, killed: Path, encoded: Encoded, unbroken: dict[str, tuple[str, dict[str, Any]]]
) -> None:
    folder = killed / f"{optimizer} {way}"
    assert any(folder.iterdir())
    result = finish(optimizer, encoded, folder)
    assert (digest(folder), told(result)) == unbroken[optimizer]
    assert [path.name for path in folder.iterdir()] == [WEIGHTS]


class BreakOffError(Exception):
    """Stands for a kill after an epoch."""


def broken_off(loop: Loop, epochs: int) -> None:
    def stop(epoch: Any) -> None:
        if epoch.epoch == epochs:
            raise BreakOffError

    with pytest.raises(BreakOffError):
        loop.run(stop)


def test_what_was_done_is_not_done_again(make_loop: MakeLoop) -> None:
    broken_off(make_loop(epochs=5), 3)
    loop, told_again = make_loop(epochs=5), list[int]()
    history = loop.run(lambda epoch: told_again.append(epoch.epoch))
    assert told_again == [4, 5]
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4, 5]


def test_a_finished_loop_has_nothing_to_do(make_loop: MakeLoop) -> None:
    first = make_loop().run(lambda _: None)
    assert make_loop().run(lambda _: pytest.fail("an epoch was done again")) == first


def test_patience_goes_on_where_it_was(make_loop: MakeLoop) -> None:
    options = {"epochs": 60, "learning_rate": 0.3, "early_stopping": {"metric": "log_loss", "patience": 3}}
    whole = make_loop(folder="whole", **options).run(lambda _: None)
    broken_off(make_loop(folder="broken", **options), len(whole) - 1)
    assert len(make_loop(folder="broken", **options).run(lambda _: None)) == len(whole)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "of something else", "without a record", "with a record that is none"])
def test_a_checkpoint_that_cannot_be_read_is_as_none(damage: str, make_loop: MakeLoop) -> None:
    whole, loop = make_loop(folder="whole"), make_loop(folder="damaged")
    whole.run(lambda _: None)
    broken_off(loop, 2)
    path = loop.checkpoint.path
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[: len(content) * 3 // 4])
        case "text":
            path.write_text("no tensors")
        case "of something else":
            save_file({"x": torch.zeros(2)}, path)
        case "without a record":
            save_file(load_file(path), path)
        case _:
            save_file(load_file(path), path, {"record": "{"})
    make_loop(folder="damaged").run(lambda _: None)
    assert digest(loop.folder) == digest(whole.folder)


def test_the_scale_of_fp16_gradients_is_kept(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters())
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors")
    checkpoint.save(module, optimizer, {"step": 3}, torch.amp.GradScaler("cpu", init_scale=8.0))
    scaler = torch.amp.GradScaler("cpu")
    assert checkpoint.load(module, optimizer, scaler) == ({"step": 3}, {})
    assert scaler.get_scale() == 8.0


def test_a_checkpoint_of_another_precision_can_be_gone_on_from(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters())
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors")
    checkpoint.save(module, optimizer, {"step": 3})
    assert checkpoint.load(module, optimizer, torch.amp.GradScaler("cpu")) == ({"step": 3}, {})


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters())
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors")
    checkpoint.save(module, optimizer, {})
    expected = torch.rand(4)
    checkpoint.load(module, optimizer)
    assert torch.equal(torch.rand(4), expected)
