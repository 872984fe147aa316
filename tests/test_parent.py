"""What another search takes up of a release."""

from pathlib import Path

import pytest
import torch

from tasks.core.bundle import TrainedWeights
from tasks.core.errors import BundleError, RegistryError
from tasks.core.file_digests import sha256
from tasks.parent import take_weights
from tasks.tracking import TRAINED_PATH, Tracking
from tasks.train import load
from tasks.training.loop import WEIGHTS
from tests.tiny import Stages


@pytest.fixture
def weights(tracking: Tracking, stages: Stages) -> TrainedWeights:
    """The stages' weights in a run."""
    run, file = tracking.run("points", "points", "k"), stages.folder("trained") / WEIGHTS
    run.artifact(file, TRAINED_PATH)
    return TrainedWeights(run=run.id, file=f"{TRAINED_PATH}/{WEIGHTS}", sha256=sha256(file))


def test_a_module_is_loaded_from_the_weights_of_a_run(tracking: Tracking, weights: TrainedWeights, stages: Stages, tmp_path: Path) -> None:
    take_weights(tracking, weights, tmp_path / "out")
    here, there = (load(stages.recipe, stages.encoded, 3, folder)[1] for folder in (tmp_path / "out", stages.folder("trained")))
    x = torch.from_numpy(stages.encoded.split("test").tensors(slice(8))["x"])
    assert torch.equal(here(x), there(x))


def test_weights_that_differ_from_their_digest_are_not_taken(tracking: Tracking, weights: TrainedWeights, tmp_path: Path) -> None:
    other = weights.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(BundleError, match=f"^trained/model.safetensors of the MLflow run {weights.run} differs from its digest"):
        take_weights(tracking, other, tmp_path / "out")
    assert not (tmp_path / "out" / WEIGHTS).exists()


def test_weights_that_the_run_lost_are_told(tracking: Tracking, weights: TrainedWeights, tmp_path: Path) -> None:
    gone = weights.model_copy(update={"file": "trained/gone.safetensors"})
    with pytest.raises(RegistryError):
        take_weights(tracking, gone, tmp_path / "out")
