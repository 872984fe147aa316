"""What every model family owes, over the whole catalog: to train, to resume, to be exported, and to answer over HTTP."""

import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.bound import BoundSession, device_thread
from tasks.core.bundle import Bundle
from tasks.core.config import Origin
from tasks.core.encoded import Encoded
from tasks.core.errors import ConfigError
from tasks.core.language import first_state
from tasks.core.predictor import Predictor
from tasks.core.recipe import Recipe
from tasks.core.splits import Split
from tasks.core.stages import write_text
from tasks.core.transforms import Tensors, TensorSpec
from tasks.export import BUNDLE, ExportResult, export
from tasks.models import MODELS
from tasks.train import TrainResult, build, load, train
from tasks.training.forward import as_tensors
from tasks.training.loop import WEIGHTS, Epoch
from tests.tiny import DATASETS, VERSION, encode_tiny, recipe

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16]},
    "bert": {"hidden": 32},
    "gpt2": {"hidden": 32},
    "lstm_lm": {"embedding": 16, "hidden": 32, "layers": 2, "dropout": 0.1},
    "resnet": {"stem": "small", "embedding": 8, "widths": [8, 16], "depths": [1, 1]},
}
"""Options that make a family quick to test; a family that is not here is tested with its defaults."""
TRAINING: dict[str, dict[str, Any]] = {
    "bert": {"learning_rate": 3e-3, "epochs": 4},
    "gpt2": {"learning_rate": 3e-3, "epochs": 4},
    "lstm_lm": {"batch_size": 8, "window": 16, "epochs": 4},
    "resnet": {"learning_rate": 5e-3},
}


@dataclass(frozen=True)
class Made:
    """A family on one kind of data, after training and export."""

    family: str
    kind: str
    recipe: Recipe
    encoded: Encoded
    training: TrainResult
    export: ExportResult
    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "exported" / BUNDLE

    @property
    def classes(self) -> int:
        return len(DATASETS[self.kind].classes)

    def module(self) -> nn.Module:
        return load(self.recipe, self.encoded, self.classes, self.folder / "trained")[1]

    def instances(self, rows: int) -> list[dict[str, Any]]:
        """Test rows as clients send them."""
        columns = Split.open(self.folder / "prepared", "test").columns(list(DATASETS[self.kind].features), 0, rows)
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def family_recipe(family: str) -> Recipe:
    return recipe(model={"family": family, **SMALL.get(family, {})}, training=TRAINING.get(family, {}))


def calls(made: Made, rows: int) -> Tensors:
    """The first test rows, or the beginnings of as many texts."""
    test = made.encoded.split("test")
    state = MODELS.build(made.recipe.model).state
    if not state:
        return test.tensors(slice(rows))
    return {"input_ids": np.array(test.tokens[: rows * 12], np.int64).reshape(rows, 12), **first_state(state, rows)}


def forward(module: nn.Module, inputs: Tensors) -> torch.Tensor:
    with torch.inference_mode():
        found = module.eval()(**as_tensors(inputs))
    logits: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return logits


@pytest.fixture(scope="session")
def encoded_by_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoded]:
    # A language model's text is not cut into rows, so that the recipe's task decides how it is encoded.
    kinds = {"running": family_recipe("lstm_lm")}
    return {kind: encode_tiny(tmp_path_factory.mktemp("encoded") / kind, kind, model=kinds.get(kind, recipe()).model) for kind in DATASETS}


@pytest.fixture(scope="session")
def everything(encoded_by_kind: dict[str, Encoded], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Made]]:
    """Every family on every kind of data that it takes."""
    found: dict[str, list[Made]] = {}
    for family in MODELS:
        chosen = family_recipe(family)
        for kind, encoded in encoded_by_kind.items():
            if not takes(family, kind, encoded):
                continue
            folder = tmp_path_factory.mktemp(f"{family}-{kind}")
            shutil.copytree(encoded.folder.parent / "prepared", folder / "prepared")
            for stage in ("trained", "exported"):
                (folder / stage).mkdir()
            classes = len(DATASETS[kind].classes)
            training = train(chosen, classes, encoded, folder / "trained")
            exported = export(chosen, f"{family}-{kind}", DATASETS[kind], VERSION, encoded, folder / "trained", folder / "exported")
            found.setdefault(family, []).append(Made(family, kind, chosen, encoded, training, exported, folder))
    return found


def takes(family: str, kind: str, encoded: Encoded) -> bool:
    try:
        build(family_recipe(family), encoded, len(DATASETS[kind].classes))
    except ConfigError:
        return False
    return True


every_family = pytest.mark.parametrize("family", MODELS)


@every_family
def test_it_gives_a_logit_for_each_class_or_entry(family: str, everything: dict[str, list[Made]]) -> None:
    for made in everything[family]:
        module = made.module()
        outputs = made.classes or made.encoded.transform.inputs[0].vocabulary
        for rows in (1, 2, 7):
            logits = forward(module, calls(made, rows))
            assert logits.shape[0] == rows
            assert logits.shape[-1] == outputs
            assert logits.dtype == torch.float32
            assert torch.isfinite(logits).all()


@every_family
def test_a_row_is_answered_alike_whatever_its_neighbours(family: str, everything: dict[str, list[Made]]) -> None:
    """Texts of other lengths among them, so that the row is padded."""
    for made in everything[family]:
        module = made.module()
        alone, together = (forward(module, calls(made, rows))[:1] for rows in (1, 7))
        torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


@every_family
def test_its_weights_come_of_the_seed(family: str, everything: dict[str, list[Made]]) -> None:
    def weights(seed: int, made: Made) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build(made.recipe, made.encoded, made.classes)[1].parameters())

    for made in everything[family]:
        assert torch.equal(weights(1, made), weights(1, made))
        assert not torch.equal(weights(1, made), weights(2, made))


@every_family
def test_it_refuses_inputs_that_it_does_not_take(family: str) -> None:
    strange = (TensorSpec(name="x", dtype="FP32", shape=(4,)), TensorSpec(name="y", dtype="INT64", shape=(2, 2)))
    with pytest.raises(ConfigError, match=r"^model: .*x \(FP32\), y \(INT64\)"):
        MODELS.build({"family": family}, Origin().below("model")).build(strange, 3)


@every_family
def test_an_unknown_option_is_told_with_the_known_ones(family: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.nonsense: unknown key 'nonsense'.* Known keys: "):
        MODELS.build({"family": family, "nonsense": 1}, Origin().below("model"))


@every_family
def test_its_head_is_named_as_heads_are(family: str, everything: dict[str, list[Made]]) -> None:
    """By which another training starts from its weights, and leaves its classes."""
    for made in everything[family]:
        outputs = made.classes or made.encoded.transform.inputs[0].vocabulary
        assert dict(made.module().named_parameters())["head.weight"].shape[0] == outputs


@every_family
def test_it_learns(family: str, everything: dict[str, list[Made]]) -> None:
    for made in everything[family]:
        history = made.training.history
        assert history[-1].train_loss < 0.8 * history[0].train_loss
        validation = made.training.best.validation
        assert validation["accuracy"] > 0.6 if made.classes else validation["nats"] < 2


class BrokenOffError(Exception):
    """Stands for a kill after an epoch."""


@every_family
def test_broken_off_and_resumed_it_ends_in_the_same_weights(family: str, everything: dict[str, list[Made]], tmp_path: Path) -> None:
    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise BrokenOffError

    for made in everything[family]:
        folder = tmp_path / made.kind
        folder.mkdir()
        with pytest.raises(BrokenOffError):
            train(made.recipe, made.classes, made.encoded, folder, stop)
        train(made.recipe, made.classes, made.encoded, folder)
        digests = [sha256((place / WEIGHTS).read_bytes()).hexdigest() for place in (folder, made.folder / "trained")]
        assert digests[0] == digests[1]


@every_family
def test_its_export_answers_as_torch_does(family: str, everything: dict[str, list[Made]]) -> None:
    """Over numbers of rows and lengths that the export was not traced with."""
    for made in everything[family]:
        assert made.export.parity < 1e-4
        predictor = Predictor(Bundle.open(made.bundle))
        assert predictor.manifest.parity == made.export.parity
        module = made.module()
        for rows in (1, 2, 3, 7, 64):
            inputs = calls(made, rows)
            np.testing.assert_allclose(predictor.logits(inputs), forward(module, inputs).numpy(), atol=1e-4)


@every_family
def test_it_answers_the_same_padded_as_on_a_device(family: str, everything: dict[str, list[Made]]) -> None:
    for made in everything[family]:
        predictor = Predictor(Bundle.open(made.bundle))
        bound = device_thread().submit(BoundSession, predictor.session, predictor.manifest.inputs, "cpu", graphs=True).result()
        for rows in (1, 3, 32, 64):
            inputs = calls(made, rows)
            np.testing.assert_allclose(bound.run(["logits"], inputs)[0], predictor.logits(inputs), atol=1e-4)


@every_family
def test_the_attention_of_every_layer_is_fused(family: str, everything: dict[str, list[Made]]) -> None:
    for made in everything[family]:
        attention = MODELS.build(made.recipe.model).attention(made.module())
        assert made.export.fused.get("Attention", 0) == (attention.layers if attention else 0)
        assert (family in ("bert", "gpt2")) == (attention is not None)


@pytest.fixture(scope="session")
def server(everything: dict[str, list[Made]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server over every bundle."""
    served = tmp_path_factory.mktemp("served")
    for made in (each for several in everything.values() for each in several):
        name = Bundle.open(made.bundle).manifest.name
        shutil.copytree(made.bundle, served / name / "1")
        write_text(served / name / "current.json", '{"version": "1"}')
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.serving", "--served", str(served), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    address = re.search(r"http://\S+?(?=[\s,]|$)", process.stdout.readline())
    assert address
    yield address[0]
    process.terminate()
    process.communicate(timeout=20)


@every_family
def test_a_server_answers_as_torch_does(family: str, everything: dict[str, list[Made]], server: str) -> None:
    for made in everything[family]:
        url = f"{server}/v1/models/{made.family}-{made.kind}"
        if not made.classes:
            reply = httpx.post(f"{url}/generate", json={"prompt": "the cat ", "max_tokens": 20, "temperature": 0}, timeout=30)
            assert reply.status_code == 200, reply.text
            assert re.match(r"(sees|hears|likes) the (cat|dog|bird|child)\.?", reply.json()["text"])
            continue
        instances = [{name: _plain(value) for name, value in row.items()} for row in made.instances(9)]
        reply = httpx.post(f"{url}/predict", json={"instances": instances}, timeout=30)
        assert reply.status_code == 200, reply.text
        expected = torch.softmax(forward(made.module(), calls(made, 9)).double(), dim=1).numpy()
        found = np.array([list(each["probabilities"].values()) for each in reply.json()["predictions"]])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def _plain(value: Any) -> Any:
    """As JSON has it: an image in base64, a missing number as null."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return None if isinstance(value, float) and np.isnan(value) else value


def test_a_family_is_told_that_the_dataset_is_for_another_task(encoded_by_kind: dict[str, Encoded]) -> None:
    with pytest.raises(ConfigError, match="is for language modelling, the dataset is for classification"):
        build(family_recipe("lstm_lm"), encoded_by_kind["text"], 3)
