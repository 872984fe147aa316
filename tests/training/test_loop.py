"""The training loop: each option by what it does to the weights."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight

from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.metrics import score
from tasks.core.predictor import probabilities
from tasks.core.recipe import Training
from tasks.core.transforms import Arrays
from tasks.training.classification import Classification
from tasks.training.device import accelerator
from tasks.training.loop import WEIGHTS, Epoch, Loop
from tests.training.conftest import MakeLoop


def trained(loop: Loop) -> list[Epoch]:
    return loop.run(lambda _: None)


def vector(loop: Loop) -> torch.Tensor:
    weights: torch.Tensor = torch.nn.utils.parameters_to_vector(loop.module.parameters())
    return weights.detach().clone()


def first_layer(loop: Loop) -> torch.Tensor:
    weights: torch.Tensor = next(loop.module.parameters())
    return weights.detach()


def answers(loop: Loop) -> np.ndarray[Any, np.dtype[np.float64]]:
    objective = loop.objective
    assert isinstance(objective, Classification)
    return probabilities(objective.logits(loop.module, objective.validation))


def test_what_an_epoch_reports(make_loop: MakeLoop, encoded: Encoded) -> None:
    loop, told = make_loop(epochs=2, batch_size=100, schedule="linear"), list[Epoch]()
    history = loop.run(told.append)
    assert told == history
    assert [(epoch.epoch, epoch.step) for epoch in history] == [(1, 3), (2, 6)]
    assert history[1].learning_rate == pytest.approx(0.02 / 6)
    assert history[1].train_loss < history[0].train_loss
    assert history[1].validation == score(answers(loop), encoded.split("validation").targets)


def test_l1_takes_weights_to_zero(make_loop: MakeLoop) -> None:
    plain, sparse = make_loop(folder="plain"), make_loop(folder="sparse", l1=0.02)
    trained(plain)
    trained(sparse)
    assert (first_layer(sparse).abs() < 0.01).float().mean() > (first_layer(plain).abs() < 0.01).float().mean() + 0.2


def test_weight_decay_keeps_weights_small(make_loop: MakeLoop) -> None:
    plain, decayed = make_loop(folder="plain"), make_loop(folder="decayed", weight_decay=2.0)
    trained(plain)
    trained(decayed)
    assert first_layer(decayed).norm() < 0.8 * first_layer(plain).norm()


def test_label_smoothing_keeps_answers_from_certainty(make_loop: MakeLoop) -> None:
    plain, smooth = make_loop(folder="plain"), make_loop(folder="smooth", label_smoothing=0.3)
    trained(plain)
    trained(smooth)
    assert answers(smooth).max(axis=1).mean() < answers(plain).max(axis=1).mean() - 0.05


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_balancing_gives_a_rare_class_its_due(balance: str, make_loop: MakeLoop, encoded: Encoded) -> None:
    def recall_of_the_rare(balance: str) -> float:
        train = encoded.split("train")
        rare = train.targets == 2
        loop = make_loop(folder=balance, train=few(train, np.flatnonzero(~rare | (np.cumsum(rare) <= 4))), epochs=2, balance=balance)
        trained(loop)
        validation = encoded.split("validation").targets == 2
        return float((answers(loop).argmax(axis=1) == 2)[validation].mean())

    assert recall_of_the_rare(balance) > recall_of_the_rare("none") + 0.2


def test_balanced_class_weights_are_scikit_learns(make_loop: MakeLoop, encoded: Encoded) -> None:
    targets, objective = encoded.split("train").targets, make_loop(balance="weights").objective
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    found = [objective.weight(np.flatnonzero(targets == target)[:1]) for target in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def few(split: EncodedSplit, rows: np.ndarray[Any, Any]) -> EncodedSplit:
    arrays: Arrays = {name: array[rows] for name, array in split.arrays.items() if isinstance(array, np.ndarray)}
    return EncodedSplit(split.transform, arrays, split.targets[rows], split.examples[rows])


def test_clipping_bounds_a_step(make_loop: MakeLoop) -> None:
    def moved(**training: Any) -> float:
        loop = make_loop(folder=str(training), epochs=1, batch_size=300, optimizer="sgd", momentum=0.0, learning_rate=1.0, **training)
        before = vector(loop)
        trained(loop)
        return float((vector(loop) - before).norm())

    assert moved(clip_norm=0.01) == pytest.approx(0.01, rel=1e-3)
    assert moved() > 0.02


@pytest.mark.parametrize("options", [{}, {"balance": "weights"}, {"l1": 0.01}, {"label_smoothing": 0.1, "balance": "weights"}])
def test_accumulated_batches_are_one_larger_batch(options: dict[str, Any], make_loop: MakeLoop) -> None:
    # 300 rows: the last batch of 96 is short, and so is its last part.
    shared = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.1, **options}
    whole, parts = make_loop(folder="whole", batch_size=96, **shared), make_loop(folder="parts", batch_size=16, accumulation=6, **shared)
    one, other = trained(whole), trained(parts)
    torch.testing.assert_close(vector(parts), vector(whole), rtol=1e-4, atol=1e-6)
    assert [epoch.step for epoch in one] == [epoch.step for epoch in other]
    assert [epoch.train_loss for epoch in one] == pytest.approx([epoch.train_loss for epoch in other], rel=1e-5)


def test_early_stopping_waits_for_its_patience(make_loop: MakeLoop) -> None:
    history = trained(make_loop(epochs=60, learning_rate=0.3, early_stopping={"metric": "log_loss", "patience": 2}))
    losses = [epoch.validation["log_loss"] for epoch in history]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 60


def test_early_stopping_follows_its_own_metric(make_loop: MakeLoop) -> None:
    history = trained(make_loop(epochs=60, learning_rate=0.05, early_stopping={"metric": "accuracy", "patience": 3}))
    accuracies = [epoch.validation["accuracy"] for epoch in history]
    assert len(accuracies) == accuracies.index(max(accuracies)) + 4


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_the_best_epochs_weights_are_kept(metric: str, make_loop: MakeLoop, encoded: Encoded) -> None:
    loop = make_loop(epochs=12, learning_rate=0.3, keep_best=metric)
    values = [epoch.validation[metric] for epoch in trained(loop)]
    best = min(values) if metric == "log_loss" else max(values)
    assert values[-1] != best
    loop.module.load_state_dict(load_file(loop.folder / WEIGHTS))
    assert score(answers(loop), encoded.split("validation").targets)[metric] == best


def test_a_loss_that_is_no_number_is_told_with_what_to_do(make_loop: MakeLoop) -> None:
    loop = make_loop(optimizer="sgd", learning_rate=1e30, epochs=3)
    with pytest.raises(MaasflowError, match=r"the training loss became (nan|inf)") as caught:
        trained(loop)
    assert "lower training.learning_rate" in caught.value.do


def test_weights_that_the_last_step_broke_are_never_kept(make_loop: MakeLoop) -> None:
    loop = make_loop(optimizer="sgd", learning_rate=1e38, epochs=1, batch_size=300)
    with pytest.raises(MaasflowError, match="after epoch 1: the model has no finite answer for 80 of 80 validation rows"):
        trained(loop)
    assert list(loop.folder.iterdir()) == []


def test_bf16_trains_and_keeps_fp32_weights(make_loop: MakeLoop) -> None:
    loop = make_loop(precision="bf16")
    assert trained(loop)[-1].validation["accuracy"] > 0.7
    assert {tensor.dtype for tensor in load_file(loop.folder / WEIGHTS).values()} == {torch.float32}


def test_one_training_does_not_inherit_the_precision_of_another(make_loop: MakeLoop) -> None:
    make_loop(precision="bf16")
    assert make_loop().accelerator.mixed_precision == "no"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(MaasflowError, match=r"training\.device is 'cuda', but torch sees no CUDA device"):
        accelerator(Training(device="cuda"))


def test_fp16_is_not_for_the_cpu() -> None:
    with pytest.raises(MaasflowError, match=r"training\.precision is 'fp16', which needs a CUDA device"):
        accelerator(Training(device="cpu", precision="fp16"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_cuda_device_trains_in_every_precision(precision: str, make_loop: MakeLoop) -> None:
    loop = make_loop(device="cuda", precision=precision)
    assert trained(loop)[-1].validation["accuracy"] > 0.7
