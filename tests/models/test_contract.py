"""What every model family owes, over the whole catalog."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.compression.measure import run_logits
from tasks.core.bundle import Bundle
from tasks.core.config import Origin
from tasks.core.encoded import Encoded
from tasks.core.errors import ConfigError
from tasks.core.predictor import Predictor, open_session
from tasks.core.splits import Split
from tasks.core.transforms import TensorSpec
from tasks.export import BUNDLE, export, largest_difference, write_onnx
from tasks.models import MODELS
from tasks.train import build, load, train
from tests.tiny import DATASETS, LABELS, VERSION, encode_tiny, recipe

SMALL: dict[str, dict[str, Any]] = {"mlp": {"hidden": [16]}}
"""Options that make a family quick to test; a family that is not here is tested with its defaults."""


@pytest.fixture(scope="session")
def encoded_by_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoded]:
    return {kind: encode_tiny(tmp_path_factory.mktemp("encoded") / kind, kind) for kind in DATASETS}


def taken(family: str, encoded_by_kind: dict[str, Encoded]) -> Iterator[tuple[str, Encoded]]:
    """The kinds of data that the family takes."""
    for kind, encoded in encoded_by_kind.items():
        try:
            MODELS.build(spec(family)).build(encoded.transform.inputs, len(LABELS))
        except ConfigError:
            continue
        yield kind, encoded


def spec(family: str) -> dict[str, Any]:
    return {"family": family, **SMALL.get(family, {})}


def forward(module: nn.Module, encoded: Encoded, rows: int) -> torch.Tensor:
    tensors = encoded.split("test").tensors(slice(rows))
    with torch.inference_mode():
        logits: torch.Tensor = module(**{name: torch.from_numpy(array) for name, array in tensors.items()})
    return logits


every_family = pytest.mark.parametrize("family", MODELS)


@every_family
def test_it_takes_some_kind_of_data_and_gives_a_logit_for_each_class(family: str, encoded_by_kind: dict[str, Encoded]) -> None:
    kinds = list(taken(family, encoded_by_kind))
    assert kinds
    for _, encoded in kinds:
        module = build(recipe(model=spec(family)), encoded, len(LABELS)).eval()
        for rows in (1, 2, 7):
            logits = forward(module, encoded, rows)
            assert logits.shape == (rows, len(LABELS))
            assert logits.dtype == torch.float32
            assert torch.isfinite(logits).all()


@every_family
def test_a_row_is_answered_alike_whatever_its_neighbours(family: str, encoded_by_kind: dict[str, Encoded]) -> None:
    for _, encoded in taken(family, encoded_by_kind):
        module = build(recipe(model=spec(family)), encoded, len(LABELS)).eval()
        torch.testing.assert_close(forward(module, encoded, 7)[:1], forward(module, encoded, 1))


@every_family
def test_its_weights_come_of_the_seed(family: str, encoded_by_kind: dict[str, Encoded]) -> None:
    def weights(seed: int, encoded: Encoded) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build(recipe(model=spec(family)), encoded, len(LABELS)).parameters())

    for _, encoded in taken(family, encoded_by_kind):
        assert torch.equal(weights(1, encoded), weights(1, encoded))
        assert not torch.equal(weights(1, encoded), weights(2, encoded))


@every_family
def test_it_refuses_inputs_that_it_does_not_take(family: str) -> None:
    strange = (TensorSpec(name="x", dtype="FP32", shape=(4,)), TensorSpec(name="y", dtype="INT64", shape=(2, 2)))
    with pytest.raises(ConfigError, match=r"^model: .*x \(FP32\), y \(INT64\)"):
        MODELS.build(spec(family), Origin().below("model")).build(strange, 3)


@every_family
def test_an_unknown_option_is_told_with_the_known_ones(family: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.nonsense: unknown key 'nonsense'.* Known keys: "):
        MODELS.build({"family": family, "nonsense": 1}, Origin().below("model"))


@every_family
def test_trained_it_becomes_a_bundle_that_answers_alike(family: str, encoded_by_kind: dict[str, Encoded], tmp_path: Path) -> None:
    for kind, encoded in taken(family, encoded_by_kind):
        found = recipe(model=spec(family))
        trained, exported = tmp_path / kind / "trained", tmp_path / kind / "exported"
        trained.mkdir(parents=True)
        training = train(found, len(LABELS), encoded, trained)
        assert training.history[-1].train_loss < 0.8 * training.history[0].train_loss
        assert training.best.validation["accuracy"] > 0.6

        result = export(found, "points", DATASETS[kind], VERSION, encoded, trained, exported)
        assert result.parity < 1e-4
        bundle = Bundle.open(exported / BUNDLE)
        assert bundle.manifest.parity == result.parity
        assert bundle.manifest.labels == LABELS

        test = Split.open(encoded.folder.parent / "prepared", "test")
        columns = test.columns(list(DATASETS[kind].features), 0, 9)
        instances = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        logits = forward(load(found, encoded, len(LABELS), trained), encoded, 9)
        expected = torch.softmax(logits.double(), dim=1).numpy()
        answers = Predictor(bundle).predict(instances)
        assert [answer.label for answer in answers] == [LABELS[index] for index in expected.argmax(axis=1)]
        np.testing.assert_allclose([list(answer.probabilities.values()) for answer in answers], expected, atol=1e-5)


@every_family
def test_its_export_takes_any_number_of_rows(family: str, encoded_by_kind: dict[str, Encoded], tmp_path: Path) -> None:
    for kind, encoded in taken(family, encoded_by_kind):
        module = build(recipe(model=spec(family)), encoded, len(LABELS)).eval()
        path, test = tmp_path / f"{kind}.onnx", encoded.split("test")
        write_onnx(module, test, path)
        assert largest_difference(module, test, path, (1, 2, 3, 7, 64, len(test))) < 1e-4
        np.testing.assert_allclose(run_logits(open_session(path), test), forward(module, encoded, len(test)).numpy(), atol=1e-5)
