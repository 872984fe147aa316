"""How well a text is predicted, against a bigram table whose every probability is known."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tasks.core.language import LANES, WINDOW, ScoredText, score_text, windows
from tasks.core.scoring import load_scores
from tasks.core.transforms import Tensors, TensorSpec

VOCABULARY = 5
TABLE = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))
"""Logits of the id that follows, by the id before it."""
COUNT = TensorSpec(name="count", dtype="FP32", shape=(1,))


def text(length: int, seed: int = 1) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, length).astype(np.uint16)


def bigram(inputs: Tensors) -> Tensors:
    return {"logits": TABLE[inputs["input_ids"]].astype(np.float32)}


def costs(tokens: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Nats of each token after the first, one by one."""
    probabilities = np.exp(TABLE) / np.exp(TABLE).sum(axis=1, keepdims=True)
    return np.array([-math.log(probabilities[before, after]) for before, after in pairwise(tokens.tolist())])


def scored(tokens: npt.NDArray[Any]) -> ScoredText:
    return score_text(bigram, tokens, (), len)


@pytest.mark.parametrize("length", [2, 3, 40, LANES * 10 + 1, LANES * (WINDOW + 3) + 1])
def test_the_nats_are_those_of_a_direct_sum(length: int) -> None:
    tokens = text(length)
    lanes = max(1, min(LANES, (length - 1) // 2))
    read = (length - 1) // lanes * lanes
    found = scored(tokens)
    assert found.tokens.sum() == found.characters.sum() == read
    assert found.nats.sum() == pytest.approx(costs(tokens)[:read].sum(), rel=1e-6)
    assert found.metrics()["nats"] == pytest.approx(costs(tokens)[:read].mean(), rel=1e-6)


def test_the_metrics_are_one_cost_in_other_units() -> None:
    found = ScoredText(np.array([6.0, 2.0]), np.array([2.0, 2.0]), np.array([4.0, 4.0]), np.zeros(4, np.int64)).metrics()
    assert found == pytest.approx({"nats": 1.0, "bits": 1 / math.log(2), "perplexity": math.exp(2.0)})


def test_a_weight_counts_as_that_many_blocks() -> None:
    found = scored(text(LANES * WINDOW * 2))
    weights = np.arange(len(found)) % 3
    nats, tokens, characters = (np.repeat(values, weights) for values in (found.nats, found.tokens, found.characters))
    repeated = ScoredText(nats, tokens, characters, found.predicted)
    assert found.metrics(weights.astype(np.float64)) == pytest.approx(repeated.metrics())


def test_lanes_share_the_text_and_read_on_where_they_stopped() -> None:
    tokens = np.arange(1000)
    found = list(windows(tokens, 4, 100, start=3))
    ids, following = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    assert ids.shape == (4, 249)
    np.testing.assert_array_equal(ids.ravel(), np.arange(3, 999))
    np.testing.assert_array_equal(following, ids + 1)


def test_a_short_text_has_fewer_lanes() -> None:
    ((ids, following),) = windows(np.arange(5), LANES, WINDOW)
    assert ids.tolist() == [[0, 1], [2, 3]]
    assert following.tolist() == [[1, 2], [3, 4]]


def test_the_state_begins_as_zeros_and_is_carried_over_windows() -> None:
    carried: list[npt.NDArray[np.float32]] = []

    def run(inputs: Tensors) -> Tensors:
        carried.append(inputs["count"])
        return {**bigram(inputs), "next_count": inputs["count"] + inputs["input_ids"].shape[1]}

    score_text(run, text(LANES * WINDOW * 2 + LANES * 10 + 1), (COUNT,), len)
    assert [step.tolist() for step in carried] == [[[float(read)]] * LANES for read in (0, WINDOW, 2 * WINDOW)]


def test_what_a_model_finds_most_probable_is_kept() -> None:
    tokens = text(LANES * 10 + 1)
    lanes = tokens[:-1].reshape(LANES, 10)
    np.testing.assert_array_equal(scored(tokens).predicted, TABLE[lanes].argmax(axis=-1).ravel())


def test_a_block_without_an_answer_is_named_and_leaves_no_metric_standing() -> None:
    def broken(inputs: Tensors) -> Tensors:
        logits = bigram(inputs)["logits"]
        logits[3] = np.nan
        return {"logits": logits}

    found = score_text(broken, text(LANES * 10 + 1), (), len)
    assert found.unanswered == [3]
    assert all(math.isnan(value) for value in found.metrics().values())


def test_a_hopeless_model_has_a_finite_perplexity() -> None:
    found = ScoredText(np.array([1e6]), np.array([1.0]), np.array([1.0]), np.zeros(1, np.int64))
    assert math.isfinite(found.metrics()["perplexity"])


def test_scores_come_back_as_they_were_kept(tmp_path: Path) -> None:
    found = scored(text(LANES * 10 + 1))
    found.save(tmp_path / "fp32.npz")
    again = load_scores(tmp_path / "fp32.npz")
    assert isinstance(again, ScoredText)
    assert again.metrics() == found.metrics()
    np.testing.assert_array_equal(again.predicted, found.predicted)
