"""Going on from weights that are there: the head alone, another recipe's weights, less memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.encoded import Encoded
from tasks.core.errors import ConfigError
from tasks.core.machine import this_machine
from tasks.core.recipe import Training
from tasks.models import HEAD
from tasks.train import build, start_from, train
from tasks.training.device import chosen_precision
from tasks.training.loop import WEIGHTS
from tests.tiny import LABELS, encode_tiny, recipe

RESNET = {"family": "resnet", "stem": "small", "embedding": 4, "widths": [4, 8], "depths": [1, 1]}
BERT = {"family": "bert", "hidden": 8, "layers": 2, "heads": 2, "dropout": 0.0}
BASE = {"recipe": "other"}

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    return encode_tiny(tmp_path_factory.mktemp("images") / "image", "image")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    return encode_tiny(tmp_path_factory.mktemp("texts") / "text", "text")


def trained(folder: Path, encoded: Encoded, begun_in: Path | None = None, **sections: Any) -> Weights:
    folder.mkdir()
    train(recipe(**sections), len(LABELS), encoded, folder, base=begun_in)
    return load_file(folder / WEIGHTS)


def begun(encoded: Encoded, **sections: Any) -> Weights:
    """The weights before any training."""
    found = recipe(**sections)
    torch.manual_seed(found.training.seed)
    return build(found, encoded, len(LABELS))[1].state_dict()


def test_a_frozen_backbone_stays_as_it_was_to_the_last_statistic(images: Encoded, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"model": RESNET, "training": {"epochs": 1, "freeze_backbone": True}}
    before, after = begun(images, **sections), trained(tmp_path / "out", images, **sections)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{HEAD}weight", f"{HEAD}bias"}
    assert any(name.endswith("running_mean") for name in before)


def test_without_freezing_everything_moves(images: Encoded, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"model": RESNET, "training": {"epochs": 1}}
    before, after = begun(images, **sections), trained(tmp_path / "out", images, **sections)
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_gradient_checkpointing_changes_no_loss(texts: Encoded, tmp_path: Path) -> None:
    plain, saving = (
        trained(tmp_path / str(on), texts, model=BERT, training={"epochs": 1, "optimizer": "sgd", "gradient_checkpointing": on})
        for on in (False, True)
    )
    for name in plain:
        torch.testing.assert_close(saving[name], plain[name])


def test_a_family_that_cannot_checkpoint_its_gradients_says_so(images: Encoded, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^training\.gradient_checkpointing: the family 'mlp' cannot do it"):
        trained(tmp_path / "out", images, training={"gradient_checkpointing": True})


def test_an_augmentation_for_other_data_is_told_with_its_key(images: Encoded, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^training\.augmentation\.word_dropout: 'word_dropout' does not fit"):
        trained(tmp_path / "out", images, training={"augmentation": {"word_dropout": 0.1}})


def test_a_language_models_training_takes_no_augmentation(tmp_path: Path) -> None:
    running = encode_tiny(tmp_path, "running", transform={"tokenizer": "characters"})
    with pytest.raises(ConfigError, match=r"^training\.augmentation\.word_dropout: 'word_dropout' does not fit"):
        trained(tmp_path / "out", running, model={"family": "lstm_lm", "hidden": 8}, training={"augmentation": {"word_dropout": 0.1}})


@pytest.mark.parametrize(("instructions", "expected"), [(("avx2",), "fp32"), (("avx2", "avx512_bf16"), "bf16"), (("amx_bf16",), "bf16")])
def test_auto_is_the_precision_that_the_processor_multiplies_in(
    instructions: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = this_machine().model_copy(update={"instructions": instructions})
    monkeypatch.setattr("tasks.training.device.this_machine", lambda: machine)
    assert chosen_precision(Training(precision="auto"), on_cpu=True) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_that_is_named_is_taken(precision: Any) -> None:
    assert chosen_precision(Training(precision=precision), on_cpu=True) == precision


@pytest.mark.parametrize(("head", "kept"), [("new", False), ("keep", True)])
def test_a_base_gives_all_weights_but_those_of_a_new_head(head: str, kept: bool, images: Encoded) -> None:
    found = recipe(model=RESNET, base={**BASE, "head": head})
    assert found.base
    torch.manual_seed(1)
    other = build(found, images, len(LABELS))[1].state_dict()
    _, module = build(found, images, len(LABELS))
    start_from(module, found.base, other, found)
    same = {name for name, value in module.state_dict().items() if torch.equal(value, other[name])}
    assert {name for name in other if not name.startswith(HEAD)} <= same
    assert (f"{HEAD}weight" in same) is kept


def test_a_new_head_may_have_other_classes(images: Encoded) -> None:
    found = recipe(model=RESNET, base=BASE)
    assert found.base
    other = build(found, images, 7)[1].state_dict()
    _, module = build(found, images, len(LABELS))
    start_from(module, found.base, other, found)
    assert module.state_dict()[f"{HEAD}weight"].shape[0] == len(LABELS)


@pytest.mark.parametrize(
    ("model", "head", "classes", "what", "advice"),
    [
        (RESNET, "keep", 7, r"head\.bias has the shape \[7\] there and \[3\] here", "set base.head to new"),
        (
            RESNET | {"embedding": 6},
            "new",
            3,
            r"backbone\.\S+ has the shape \[6.*\] there and \[4.*\] here",
            "give both recipes the same model",
        ),
        (
            RESNET | {"depths": [1, 2]},
            "new",
            3,
            r"backbone\.\S+ has the shape \[.*\] there and None here",
            "give both recipes the same model",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(model: dict[str, Any], head: str, classes: int, what: str, advice: str, images: Encoded) -> None:
    found = recipe(model=RESNET, base={**BASE, "head": head})
    assert found.base
    other = build(recipe(model=model), images, classes)[1].state_dict()
    _, module = build(found, images, len(LABELS))
    with pytest.raises(ConfigError, match=rf"^base\.recipe: the weights of 'other' do not fit: {what}") as caught:
        start_from(module, found.base, other, found)
    assert caught.value.do.startswith(advice)


def test_a_training_from_a_base_begins_where_that_ended(images: Encoded, tmp_path: Path) -> None:
    first = trained(tmp_path / "first", images, model=RESNET)
    sections: dict[str, Any] = {"model": RESNET, "base": {**BASE, "head": "new"}, "training": {"epochs": 1, "freeze_backbone": True}}
    after = trained(tmp_path / "second", images, tmp_path / "first", **sections)
    assert all(torch.equal(after[name], value) for name, value in first.items() if not name.startswith(HEAD))
