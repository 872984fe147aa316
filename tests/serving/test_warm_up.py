"""The first calls of a model: those of every size that requests are run in, and not for long."""

import math
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.serving.warm_up import warm_up
from tasks.core.bundle import Bundle
from tasks.core.predictor import Predictor
from tasks.core.transforms import Tensors
from tests.serving.conftest import IMAGE, Served
from tests.texts import write_classifier, write_language_model


class Watched(Predictor):
    """Notes the rows and the length of each call, and takes some time for it."""

    def __init__(self, bundle: Bundle, seconds: float = 0.0) -> None:
        super().__init__(bundle)
        self.sizes: list[tuple[int, ...]] = []
        self.seconds = seconds

    def run(self, names: list[str], tensors: Tensors, *, spread: bool = True) -> list[Any]:
        (first, *_) = self.manifest.inputs
        self.sizes.append(tensors[first.name].shape[: 2 if self.dynamic else 1])
        time.sleep(self.seconds)
        return super().run(names, tensors, spread=spread)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is at the moment."""
    monkeypatch.setattr("deploy.serving.warm_up._SECONDS", math.inf)


def sizes(bundle: Bundle) -> set[tuple[int, ...]]:
    predictor = Watched(bundle)
    warm_up(predictor)
    return set(predictor.sizes)


def alone(bundle: Bundle) -> Bundle:
    variant = bundle.manifest.variant().model_copy(update={"batch": "one"})
    return Bundle(bundle.folder, bundle.manifest.replace(variants=(variant,)))


@pytest.mark.usefixtures("unhurried")
def test_rows_of_one_size_are_run_up_to_the_largest_batch(served: Served) -> None:
    assert sizes(Bundle.open(served.add("marks", "1", IMAGE))) == {(1,), (2,), (4,), (8,), (16,), (32,), (64,)}


@pytest.mark.usefixtures("unhurried")
def test_texts_are_run_in_lengths_up_to_the_longest_that_is_read(tmp_path: Path) -> None:
    found = sizes(write_classifier(tmp_path / "moods"))
    assert {length for _, length in found} == {1, 2, 4, 8, 12}
    assert {rows for rows, _ in found} == {1, 2, 4, 8, 16, 32, 64}


@pytest.mark.usefixtures("unhurried")
def test_a_variant_of_one_row_at_a_time_is_run_so(tmp_path: Path) -> None:
    assert sizes(alone(write_classifier(tmp_path / "moods"))) == {(1, 1), (1, 2), (1, 4), (1, 8), (1, 12)}


@pytest.mark.usefixtures("unhurried")
def test_a_language_model_reads_up_to_a_window(tmp_path: Path) -> None:
    found = sizes(write_language_model(tmp_path / "writer"))
    assert {rows for rows, _ in found} == {1}
    assert max(length for _, length in found) == 256


def test_a_slow_model_is_not_run_in_every_size(served: Served) -> None:
    predictor = Watched(Bundle.open(served.add("marks", "1", IMAGE)), seconds=0.2)
    warm_up(predictor)
    assert (64,) not in predictor.sizes
