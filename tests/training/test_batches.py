"""Which rows are trained on, and in which batches."""

from typing import Any

import numpy as np
import pytest

from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.recipe import Training
from tasks.training.batches import Batches
from tests.tiny import encode_tiny


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> EncodedSplit:
    return encode_tiny(tmp_path_factory.mktemp("batches") / "text", "text").split("train")


@pytest.fixture
def points(encoded: Encoded) -> EncodedSplit:
    return encoded.split("train")


def epoch(split: EncodedSplit, number: int = 0, **training: Any) -> list[np.ndarray[Any, Any]]:
    return Batches(split, Training.parse({"batch_size": 16, **training})).epoch(number)


def rows(batches: list[np.ndarray[Any, Any]]) -> list[int]:
    found: list[int] = np.concatenate(batches).tolist()
    return found


def counts(split: EncodedSplit, batches: list[np.ndarray[Any, Any]]) -> list[int]:
    found: list[int] = np.bincount(split.targets[rows(batches)], minlength=3).tolist()
    return found


@pytest.mark.parametrize("kind", ["points", "texts"])
def test_an_epoch_takes_every_row_once_in_an_order_of_its_own(kind: str, request: pytest.FixtureRequest) -> None:
    split: EncodedSplit = request.getfixturevalue(kind)
    options = {"batch_size": 16, "accumulation": 2}
    first, second = epoch(split, 0, **options), epoch(split, 1, **options)
    assert sorted(map(len, first)) == [12] + [32] * 9
    assert sorted(rows(first)) == sorted(rows(second)) == list(range(300))
    assert rows(first) != rows(second)
    assert len(first) == Batches(split, Training.parse(options)).steps


@pytest.mark.parametrize("options", [{}, {"balance": "sampling"}, {"rows_per_class": 5}])
def test_the_seed_and_the_epoch_alone_decide(options: dict[str, Any], texts: EncodedSplit) -> None:
    assert rows(epoch(texts, 3, **options)) == rows(epoch(texts, 3, **options))
    assert rows(epoch(texts, 3, **options)) != rows(epoch(texts, 3, seed=1, **options))


def test_texts_of_like_length_share_a_batch(texts: EncodedSplit) -> None:
    assert texts.lengths is not None

    def padded(batches: list[np.ndarray[Any, Any]]) -> int:
        return sum(texts.tensors(batch)["input_ids"].size for batch in batches)

    found = epoch(texts)
    shuffled = np.array_split(np.random.default_rng(0).permutation(300), len(found))
    tokens = int(texts.lengths.sum())
    assert padded(found) - tokens < 0.25 * (padded(shuffled) - tokens)


def test_short_texts_do_not_always_come_first(texts: EncodedSplit) -> None:
    assert texts.lengths is not None
    means = [float(texts.lengths[batch].mean()) for batch in epoch(texts)]
    assert means != sorted(means)


@pytest.mark.parametrize("wanted", [1, 20])
def test_so_many_rows_of_each_class(wanted: int, points: EncodedSplit) -> None:
    assert counts(points, epoch(points, rows_per_class=wanted)) == [wanted] * 3
    assert sorted(rows(epoch(points, 0, rows_per_class=wanted))) == sorted(rows(epoch(points, 1, rows_per_class=wanted)))


def test_a_class_with_fewer_rows_gives_all_it_has(points: EncodedSplit) -> None:
    whole = np.bincount(points.targets).tolist()
    assert counts(points, epoch(points, rows_per_class=100)) == [min(count, 100) for count in whole]
    assert min(whole) < 100 < max(whole)


def test_sampling_draws_as_many_rows_of_each_class(points: EncodedSplit) -> None:
    found = epoch(points, balance="sampling")
    assert counts(points, found) == [100, 100, 100]


def test_sampling_goes_through_a_class_before_it_repeats_a_row(points: EncodedSplit) -> None:
    drawn = np.bincount(rows(epoch(points, balance="sampling")), minlength=300)
    for target in range(3):
        of_class = drawn[points.targets == target]
        assert of_class.max() - of_class.min() <= 1


def test_sampling_draws_from_the_rows_that_are_trained_on(points: EncodedSplit) -> None:
    kept = set(rows(epoch(points, rows_per_class=20)))
    assert set(rows(epoch(points, rows_per_class=20, balance="sampling"))) <= kept
