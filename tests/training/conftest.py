"""The points, encoded once, and a loop over them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.recipe import Training
from tasks.models.mlp import MLP
from tasks.training.classification import Classification
from tasks.training.device import accelerator
from tasks.training.loop import Loop
from tests.tiny import LABELS, encode_tiny, recipe


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    return encode_tiny(tmp_path_factory.mktemp("training") / "points")


MakeLoop = Callable[..., Loop]


@pytest.fixture
def make_loop(encoded: Encoded, tmp_path: Path) -> MakeLoop:
    """A loop in a folder of its own that trains a small net, the same at first each time, with the given training options."""

    def make(hidden: tuple[int, ...] = (16,), folder: str = "loop", train: EncodedSplit | None = None, **training: Any) -> Loop:
        (tmp_path / folder).mkdir(exist_ok=True)
        torch.manual_seed(0)
        module = MLP(hidden=hidden).build(encoded.transform.inputs, len(LABELS))
        options: Training = recipe(training=training).training
        on = accelerator(options)
        objective = Classification(options, train or encoded.split("train"), encoded.split("validation"), on)
        return Loop(module, options, objective, on, tmp_path / folder)

    return make
