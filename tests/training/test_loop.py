"""The training loop: each option by what it does to the weights."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight

from tasks.core.encoded import EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.metrics import score
from tasks.core.predictor import probabilities
from tasks.core.recipe import Training
from tasks.training.device import accelerator
from tasks.training.loop import WEIGHTS, Epoch, Loop, batches
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
    return probabilities(loop.logits(loop.validation_split))


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own() -> None:
    training = Training(batch_size=4, accumulation=2)
    first, second = batches(21, training, 0), batches(21, training, 1)
    assert [len(batch) for batch in first] == [8, 8, 5]
    assert sorted(np.concatenate(first)) == list(range(21))
    assert np.concatenate(first).tolist() != np.concatenate(second).tolist()
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in batches(21, training, 0)]


def test_what_an_epoch_reports(make_loop: MakeLoop) -> None:
    loop, told = make_loop(epochs=2, batch_size=100, schedule="linear"), list[Epoch]()
    history = loop.run(told.append)
    assert told == history
    assert [(epoch.epoch, epoch.step) for epoch in history] == [(1, 3), (2, 6)]
    assert history[1].learning_rate == pytest.approx(0.02 / 6)
    assert history[1].train_loss < history[0].train_loss
    assert history[1].validation == score(answers(loop), loop.validation_split.targets)


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


def test_class_weights_give_a_rare_class_its_due(make_loop: MakeLoop) -> None:
    def recall_of_the_rare(loop: Loop) -> float:
        rare = loop.train_split.targets == 2
        loop.train_split = few(loop.train_split, np.flatnonzero(~rare | (np.cumsum(rare) <= 4)))
        loop.class_weights = loop._class_weights()
        trained(loop)
        validation = loop.validation_split.targets == 2
        return float((answers(loop).argmax(axis=1) == 2)[validation].mean())

    plain = recall_of_the_rare(make_loop(folder="plain", epochs=2))
    balanced = recall_of_the_rare(make_loop(folder="balanced", epochs=2, class_weights="balanced"))
    assert balanced > plain + 0.2


def test_balanced_class_weights_are_scikit_learns(make_loop: MakeLoop) -> None:
    loop = make_loop(class_weights="balanced")
    assert loop.class_weights is not None
    expected = compute_class_weight("balanced", classes=np.arange(3), y=loop.train_split.targets)
    np.testing.assert_allclose(loop.class_weights.numpy(), expected, rtol=1e-6)


def few(split: EncodedSplit, rows: np.ndarray[Any, Any]) -> EncodedSplit:
    arrays = {name: array[rows] for name, array in split.arrays.items()}
    return EncodedSplit(split.transform, arrays, split.targets[rows], split.examples[rows])


def test_clipping_bounds_a_step(make_loop: MakeLoop) -> None:
    def moved(**training: Any) -> float:
        loop = make_loop(folder=str(training), epochs=1, batch_size=300, optimizer="sgd", momentum=0.0, learning_rate=1.0, **training)
        before = vector(loop)
        trained(loop)
        return float((vector(loop) - before).norm())

    assert moved(clip_norm=0.01) == pytest.approx(0.01, rel=1e-3)
    assert moved() > 0.02


@pytest.mark.parametrize(
    "options", [{}, {"class_weights": "balanced"}, {"l1": 0.01}, {"label_smoothing": 0.1, "class_weights": "balanced"}]
)
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
def test_the_best_epochs_weights_are_kept(metric: str, make_loop: MakeLoop) -> None:
    loop = make_loop(epochs=12, learning_rate=0.3, keep_best=metric)
    values = [epoch.validation[metric] for epoch in trained(loop)]
    best = min(values) if metric == "log_loss" else max(values)
    assert values[-1] != best
    loop.module.load_state_dict(load_file(loop.folder / WEIGHTS))
    assert score(answers(loop), loop.validation_split.targets)[metric] == best


def test_a_loss_that_is_no_number_is_told_with_what_to_do(make_loop: MakeLoop) -> None:
    loop = make_loop(optimizer="sgd", learning_rate=1e30, epochs=3)
    with pytest.raises(MaasflowError, match=r"the training loss became (nan|inf)") as caught:
        trained(loop)
    assert "lower training.learning_rate" in caught.value.do


def test_weights_that_the_last_step_broke_are_never_kept(make_loop: MakeLoop) -> None:
    loop = make_loop(optimizer="sgd", learning_rate=1e38, epochs=1, batch_size=300)
    with pytest.raises(MaasflowError, match="after epoch 1 the model has no finite answer for 80 validation rows"):
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
