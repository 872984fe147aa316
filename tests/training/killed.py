"""Runs trainings that are killed, one after the other: python -m tests.training.killed SPEC, see `Spec`.

Each is a fork of this process, which has gone through one training and so through the imports, which take seconds.
"""

import json
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import torch
from safetensors.torch import save_file

from tasks.core.encoded import Encoded
from tasks.train import train
from tasks.training import checkpoint, loop
from tasks.training.checkpoint import Checkpoint, save_weights
from tasks.training.loop import WEIGHTS
from tests.tiny import LABELS, recipe


class Spec(TypedDict):
    encoded: str
    runs: list[tuple[str, dict[str, Any], list[tuple[str, int]]]]
    """(folder, recipe sections, kills), and each kill (when, which one), see `arm`."""


def arm(when: str, count: int) -> None:
    """Kill this process at the count-th checkpoint that is saved or written, or epoch whose weights are kept."""
    left = count
    save = Checkpoint.save

    def at(found: str) -> None:
        nonlocal left
        left -= found == when
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def saved(self: Checkpoint, *args: Any) -> None:
        save(self, *args)
        at("saved")

    def written(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
        save_file(tensors, path, metadata)
        if path.stem == "checkpoint":
            os.truncate(path, path.stat().st_size // 2)
            at("writing")
            save_file(tensors, path, metadata)

    def kept(path: Path, *args: Any) -> None:
        save_weights(path, *args)
        if path.name == WEIGHTS:
            at("kept")

    for owner, name, function in ((Checkpoint, "save", saved), (checkpoint, "save_file", written), (loop, "save_weights", kept)):
        setattr(owner, name, function)


def main(spec: Spec) -> None:
    # A fork has no threads but its own, and torch would wait for those that it had before.
    torch.set_num_threads(1)
    with TemporaryDirectory() as warm:
        train(recipe(training={"epochs": 1}), len(LABELS), Encoded(Path(spec["encoded"])), Path(warm))
    for folder, sections, kills in spec["runs"]:
        for when, count in kills:
            child = os.fork()
            if child == 0:
                arm(when, count)
                train(recipe(**sections), len(LABELS), Encoded(Path(spec["encoded"])), Path(folder))
                os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
                sys.exit(f"{folder}: {when} {count} never came")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
