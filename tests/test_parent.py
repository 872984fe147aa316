"""What another search takes up of a release."""

from pathlib import Path

import pytest
import torch

from tasks.compression import standard
from tasks.compression.chain import chains
from tasks.core.bundle import Bundle, TrainedWeights
from tasks.core.errors import BundleError, RegistryError
from tasks.core.file_digests import sha256
from tasks.export import BUNDLE
from tasks.parent import recipe_of, take_weights
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


def bundle(stages: Stages) -> Bundle:
    return Bundle.open(stages.folder("compressed") / BUNDLE)


def test_another_search_tries_the_standard_compressors_beside_the_recipes_own(stages: Stages) -> None:
    found = recipe_of(bundle(stages), ("compression.limits.size_ratio=0.2",))
    own, fallback = stages.recipe.compression.compressors, found.compression.fallback
    assert found.compression.compressors[: len(own)] == own
    assert len(found.compression.compressors) == len(standard.COMPRESSORS)
    assert all(spec in found.compression.compressors for spec in standard.COMPRESSORS)
    assert fallback == standard.FALLBACK
    # And one after that tries nothing twice.
    again = bundle(stages)
    again = Bundle(again.folder, again.manifest.replace(recipe=found.model_dump(mode="json")))
    assert recipe_of(again, ()).compression == found.compression


@pytest.mark.parametrize("setting", ["compression.compressors=[{kind: graph}]", "compression={compressors: [{kind: graph}]}"])
def test_what_a_setting_says_is_all_that_is_tried(setting: str, stages: Stages) -> None:
    found = recipe_of(bundle(stages), (setting,)).compression
    assert (found.compressors, found.fallback) == (({"kind": "graph"},), ())


def test_a_fallback_of_ones_own_goes_with_compressors_of_ones_own(stages: Stages) -> None:
    found = recipe_of(bundle(stages), ("compression.compressors=[]", "compression.fallback=[{kind: graph}]")).compression
    assert (found.compressors, found.fallback) == ((), ({"kind": "graph"},))


def test_the_standard_compressors_are_ones_that_there_are(stages: Stages) -> None:
    assert len(chains(recipe_of(bundle(stages), ()))) == len(standard.COMPRESSORS) + len(standard.FALLBACK)
