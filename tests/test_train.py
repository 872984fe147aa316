"""Train: what the stage returns and leaves behind."""

from pathlib import Path

import torch

from tasks.train import build, load, train
from tasks.training.loop import WEIGHTS
from tests.tiny import LABELS, Stages, recipe


def test_only_the_weights_are_left(stages: Stages) -> None:
    assert [path.name for path in stages.folder("trained").iterdir()] == [WEIGHTS]


def test_the_result_names_the_best_epoch_and_the_size(stages: Stages) -> None:
    result = stages.training
    losses = [epoch.validation["log_loss"] for epoch in result.history]
    assert result.best == result.history[losses.index(min(losses))]
    assert result.parameters == 7 * 40 + 40 + 40 * 32 + 32 + 32 * 3 + 3
    assert result.figure.startswith(f"{result.parameters:,} parameters on cpu, best epoch {result.best.epoch} of 6: validation accuracy 0.")


def test_the_seed_alone_decides(stages: Stages, tmp_path: Path) -> None:
    def weights(folder: str, seed: int) -> bytes:
        (tmp_path / folder).mkdir()
        torch.manual_seed(7)
        torch.rand(3)
        train(recipe(training={"seed": seed}), len(LABELS), stages.encoded, tmp_path / folder)
        return (tmp_path / folder / WEIGHTS).read_bytes()

    first = (stages.folder("trained") / WEIGHTS).read_bytes()
    assert weights("same", 0) == first
    assert weights("other", 1) != first


def test_a_loaded_model_is_the_trained_one_and_ready_to_answer(stages: Stages) -> None:
    _, module = load(stages.recipe, stages.encoded, len(LABELS), stages.folder("trained"))
    assert not module.training
    _, fresh = build(stages.recipe, stages.encoded, len(LABELS))
    assert module.state_dict().keys() == fresh.state_dict().keys()
    assert not torch.equal(next(module.parameters()), next(fresh.parameters()))
