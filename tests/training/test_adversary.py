"""Adversarial training: how far and where to texts are moved, and that each is moved on its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.core.encoded import Encoded
from tasks.core.errors import ConfigError
from tasks.train import build, train
from tasks.training.adversary import Adversary
from tasks.training.forward import as_tensors
from tests.tiny import LABELS, encode_tiny, recipe

SHARE = 0.1
MODELS: tuple[dict[str, Any], ...] = (
    {"family": "bert", "hidden": 8, "layers": 1, "heads": 2, "dropout": 0.0},
    {"family": "gpt2", "hidden": 8, "layers": 1, "heads": 2, "dropout": 0.0},
    {"family": "text_pool", "embedding": 8, "dropout": 0.0},
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    return encode_tiny(tmp_path_factory.mktemp("texts") / "text", "text")


@pytest.fixture(params=MODELS, ids=lambda model: model["family"])
def model(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def embedded(texts: Encoded, model: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """A module, the same each time, and what in it embeds tokens."""
    torch.manual_seed(0)
    family, module = build(recipe(model=model), texts, len(LABELS))
    embedding = family.token_embedding(module)
    assert embedding is not None
    return module, embedding


def losses(texts: Encoded, module: nn.Module, embedding: nn.Module, rows: slice) -> tuple[list[float], list[Tensor]]:
    """The two losses of some training rows, taken back through the module, and what the embedding gave for each, padding aside."""
    split = texts.split("train")
    wanted = torch.arange(len(split))[rows].numpy()
    inputs, targets = as_tensors(split.tensors(wanted), torch.device("cpu")), torch.from_numpy(split.targets[wanted])
    seen: list[Tensor] = []

    def loss() -> Tensor:
        # Behind the adversary's own hook, so that it sees what the module goes on with.
        handle = embedding.register_forward_hook(
            lambda _module, _inputs, found: seen.append(found.detach() * inputs["attention_mask"].unsqueeze(-1))
        )
        found = functional.cross_entropy(module(**inputs), targets, reduction="sum")
        handle.remove()
        return found

    found = []
    for half in Adversary(embedding, SHARE).losses(loss):
        half.backward()  # type: ignore[no-untyped-call]
        found.append(half.item())
    return found, seen


def test_every_text_is_moved_by_its_share_to_a_higher_loss(texts: Encoded, model: dict[str, Any]) -> None:
    (plain, moved), (before, after) = losses(texts, *embedded(texts, model), slice(0, 16))
    assert moved > plain
    lengths = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, SHARE))


def test_a_batch_in_parts_has_the_gradient_of_the_whole(texts: Encoded, model: dict[str, Any]) -> None:
    whole, parts = embedded(texts, model), embedded(texts, model)
    losses(texts, *whole, slice(0, 16))
    for rows in (slice(0, 5), slice(5, 16)):
        losses(texts, *parts, rows)
    for one, two in zip(whole[0].parameters(), parts[0].parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_a_frozen_embedding_is_moved_too(texts: Encoded) -> None:
    module, embedding = embedded(texts, MODELS[0])
    embedding.requires_grad_(requires_grad=False)
    (plain, moved), _ = losses(texts, module, embedding, slice(0, 16))
    assert moved > plain


def test_training_takes_it(texts: Encoded, tmp_path: Any, model: dict[str, Any]) -> None:
    found = train(recipe(model=model, training={"epochs": 2, "adversarial": SHARE}), len(LABELS), texts, tmp_path)
    assert found.history[-1].train_loss < found.history[0].train_loss


@pytest.mark.parametrize("kind", ["table", "running"])
def test_what_has_no_tokens_to_classify_refuses_it(encode_kind: Callable[[str], Encoded], tmp_path: Any, kind: str) -> None:
    found = recipe(training={"adversarial": SHARE}, **({"model": {"family": "lstm_lm", "hidden": 4}} if kind == "running" else {}))
    with pytest.raises(ConfigError, match=r"^training\.adversarial: the family '(mlp|lstm_lm)' cannot do it"):
        train(found, len(LABELS) if kind == "table" else 0, encode_kind(kind), tmp_path)


@pytest.fixture
def encode_kind(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Encoded]:
    def encode(kind: str) -> Encoded:
        sections = {"model": {"family": "lstm_lm", "hidden": 4}} if kind == "running" else {}
        return encode_tiny(tmp_path_factory.mktemp(kind) / kind, kind, **sections)

    return encode
