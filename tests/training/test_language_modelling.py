"""Training a language model: what the carried state is for, and that a killed training ends as one that was not."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.core.dataset import SPLITS
from tasks.core.encoded import Encoded
from tasks.core.errors import DataError
from tasks.core.splits import EXAMPLE, TARGET, write_split
from tasks.encode import encode
from tasks.models.lstm_lm import LSTMLanguageModel
from tasks.train import train
from tasks.training.device import accelerator
from tasks.training.language_modelling import LanguageModelling
from tasks.training.loop import WEIGHTS, Epoch, Loop
from tests.tiny import RUNNING, encode_tiny, recipe
from tests.training.test_resume import digest, told

MODEL = {"family": "lstm_lm", "embedding": 8, "hidden": 24}
TRAINING = {"batch_size": 8, "window": 16, "epochs": 2, "checkpoint_steps": 7}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    return encode_tiny(tmp_path_factory.mktemp("language") / "running", "running")


def make_loop(encoded: Encoded, folder: Path, **training: Any) -> Loop:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    found = recipe(model=MODEL, training=TRAINING | training)
    family = LSTMLanguageModel(embedding=8, hidden=24)
    vocabulary = encoded.transform.inputs[0].vocabulary
    assert vocabulary
    on = accelerator(found.training)
    objective = LanguageModelling(found.training, encoded.split("train"), encoded.split("validation"), on, family.state)
    return Loop(family.build(encoded.transform.inputs, vocabulary), found.training, objective, on, folder)


def trained(loop: Loop) -> list[Epoch]:
    return loop.run(lambda _: None)


def test_the_loss_falls_far_below_what_letters_alone_cost(running: Encoded, tmp_path: Path) -> None:
    history = trained(make_loop(running, tmp_path / "out", epochs=4))
    ids = np.asarray(running.split("validation").tokens)
    shares = np.bincount(ids) / len(ids)
    alone = -sum(share * np.log(share) for share in shares if share)
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].validation["nats"] < 0.2 * alone


def test_an_epoch_reads_every_place_once_and_begins_elsewhere_each_time(running: Encoded, tmp_path: Path) -> None:
    objective = make_loop(running, tmp_path / "out").objective
    first, second = objective.batches(0), objective.batches(1)
    assert len(first) == len(second) == objective.steps
    assert [window.first for window in first] == [True] + [False] * (len(first) - 1)
    places = np.concatenate([window.lanes for window in first])
    assert len(set(places.tolist())) == len(places)
    assert (np.diff(np.sort(places)) >= 16).all()
    assert places.max() + 16 < len(running.split("train").tokens)
    assert (first[0].lanes != second[0].lanes).all()


def echo(folder: Path) -> Encoded:
    """A text in which every letter comes again after four places, and nothing in between tells which it is."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, split in enumerate(SPLITS):
        letters = random.choice(list("abcd"), (4000 if split == "train" else 600) // 8)
        text = "".join(letter + "-" * 3 + letter + "." * 3 for letter in letters)
        columns = {"text": pa.array([text]), EXAMPLE: pa.array([number], pa.uint64()), TARGET: pa.array([0])}
        batch = pa.RecordBatch.from_pydict(columns)
        write_split(folder, split, iter([batch]), batch.schema)
    (folder / "out").mkdir()
    encode(recipe(), RUNNING, folder, folder / "out")
    return Encoded(folder / "out")


def test_what_lies_before_the_window_is_known_by_the_carried_state(tmp_path: Path) -> None:
    # The letter is told again after four places, and a window holds three: within any one of them it cannot be known.
    loop = make_loop(echo(tmp_path / "echo"), tmp_path / "out", window=3, batch_size=8, epochs=12, learning_rate=0.02, clip_norm=1.0)
    unknown = np.log(4) / 8
    # One letter of eight places has to be guessed; a model without memory would have to guess two.
    assert unknown < trained(loop)[-1].train_loss < 1.6 * unknown


class BreakOffError(Exception):
    """Stands for a kill after a checkpoint."""


@pytest.mark.parametrize("saves", [1, 3, 5])
def test_broken_off_and_resumed_it_ends_with_the_same_weights(
    saves: int, running: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = recipe(model=MODEL | {"dropout": 0.2}, training=TRAINING)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = train(found, 0, running, whole)
    save, left = Loop._save, saves

    def kill(self: Loop, state: Any) -> None:
        nonlocal left
        save(self, state)
        left -= 1
        if not left:
            raise BreakOffError

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_save", kill)
        with pytest.raises(BreakOffError):
            train(found, 0, running, broken)
    result = train(found, 0, running, broken)
    assert (digest(broken), told(result)) == (digest(whole), told(expected))
    assert [path.name for path in broken.iterdir()] == [WEIGHTS]


def test_lanes_taken_in_parts_are_the_lanes_at_once(running: Encoded, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1}
    whole = make_loop(running, tmp_path / "whole", batch_size=12, **shared)
    parts = make_loop(running, tmp_path / "parts", batch_size=4, accumulation=3, **shared)
    one, other = trained(whole), trained(parts)
    weights = [torch.nn.utils.parameters_to_vector(loop.module.parameters()) for loop in (whole, parts)]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
    assert [epoch.train_loss for epoch in one] == pytest.approx([epoch.train_loss for epoch in other], rel=1e-5)


def test_a_text_that_is_too_short_for_its_lanes_is_told(running: Encoded, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the training text has [\d,]+ tokens, too few for 64 lanes of 128") as caught:
        make_loop(running, tmp_path / "out", batch_size=64, window=128)
    assert caught.value.do == "lower training.batch_size or training.window"
