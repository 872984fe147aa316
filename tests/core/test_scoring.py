"""A model on a split: every row answered in its place, whatever the calls it comes in."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.encoded import EncodedSplit
from tasks.core.language import ScoredText
from tasks.core.metrics import Scored
from tasks.core.scoring import class_logits, load_scores, score_split
from tasks.core.transforms import Tensors
from tests.tiny import ROWS, encode_tiny


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> EncodedSplit:
    return encode_tiny(tmp_path_factory.mktemp("scoring") / "text", "text").split("test")


def sums(inputs: Tensors) -> Tensors:
    """A row's answer: the sum of its ids, and their number."""
    mask = inputs["attention_mask"]
    return {"logits": np.stack([(inputs["input_ids"] * mask).sum(axis=1), mask.sum(axis=1)], axis=1).astype(np.float32)}


@pytest.mark.parametrize("size", [1, 7, 256])
def test_rows_are_answered_in_their_order_whatever_the_calls(size: int, texts: EncodedSplit) -> None:
    expected = np.concatenate([sums(texts.tensors([row]))["logits"] for row in range(len(texts))])
    np.testing.assert_array_equal(class_logits(sums, texts, size), expected)


def test_every_row_is_in_one_call_and_longer_texts_are_in_smaller_ones(texts: EncodedSplit) -> None:
    calls = texts.calls(16)
    np.testing.assert_array_equal(np.sort(np.concatenate(calls)), np.arange(ROWS["test"]))
    assert texts.lengths is not None
    longest = [int(texts.lengths[call].max()) for call in calls]
    assert longest == sorted(longest, reverse=True)


def test_calls_waste_less_on_padding_than_rows_as_they_come(texts: EncodedSplit) -> None:
    def padded(calls: list[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> int:
        return sum(texts.tensors(call)["input_ids"].size for call in calls)

    assert padded(texts.calls(16)) < 0.75 * padded(np.array_split(np.arange(len(texts)), len(texts) // 16))


def test_a_classifier_is_scored_by_its_rows(texts: EncodedSplit, tmp_path: Path) -> None:
    found = score_split(lambda inputs: {"logits": np.eye(3, dtype=np.float32)[inputs["input_ids"][:, 0] % 3]}, texts, bins=7)
    assert isinstance(found, Scored)
    np.testing.assert_array_equal(found.targets, texts.targets)
    found.save(tmp_path / "fp32.npz")
    again = load_scores(tmp_path / "fp32.npz")
    assert isinstance(again, Scored)
    assert (again.metrics(), again.bins) == (found.metrics(), 7)


def test_a_running_text_is_scored_by_its_characters(tmp_path: Path) -> None:
    split = encode_tiny(tmp_path, "running").split("test")
    size = split.transform.inputs[0].vocabulary
    assert size
    found = score_split(lambda inputs: {"logits": np.zeros((*inputs["input_ids"].shape, size), np.float32)}, split)
    assert isinstance(found, ScoredText)
    assert found.metrics()["nats"] == pytest.approx(np.log(size))
    assert found.metrics()["perplexity"] == pytest.approx(size)


def test_a_row_with_an_infinite_answer_is_unanswered(texts: EncodedSplit) -> None:
    def broken(inputs: Tensors) -> Tensors:
        return {"logits": np.where(sums(inputs)["logits"] == sums(texts.tensors([5]))["logits"], np.inf, 0).astype(np.float32)}

    found = score_split(broken, texts)
    assert 5 in found.unanswered
    assert all(np.isnan(value) for value in found.metrics().values())
