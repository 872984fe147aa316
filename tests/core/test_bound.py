"""Calls padded to buckets: the same code on the CPU as on a CUDA device, but for the graphs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.bound import MOST_ROWS, MOST_TOKENS, BoundSession, Bucket, bucket_of, buckets, device_thread
from tasks.core.bundle import Bundle
from tasks.core.predictor import Predictor, open_session
from tasks.core.transforms import Tensors, TensorSpec
from tests.texts import write_classifier, write_language_model

TEXTS = ["good", "bad bad", "good bad good good", "the day was good , not bad at all"]


def bind(bundle: Bundle) -> BoundSession:
    """The bundle's session on the CPU, bound as on a device."""
    session = open_session(bundle.file(), 1)
    return device_thread().submit(lambda: BoundSession(session, bundle.manifest.inputs, "cpu", graphs=True)).result()


def tensors(bundle: Bundle, texts: list[str]) -> Tensors:
    transform = bundle.manifest.transform
    return transform.tensors(transform.encode(transform.columns(texts)))


def text(longest: int | None) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=name, dtype="INT64", shape=(-1,), longest=longest) for name in ("input_ids", "attention_mask"))


@pytest.mark.parametrize(
    ("rows", "length", "longest", "expected"),
    [
        (1, 1, 128, (1, 16)),
        (3, 16, 128, (4, 16)),
        (8, 17, 128, (8, 32)),
        (9, 100, 128, (16, 128)),
        (2, 65, 100, (2, 100)),
        (2, 5, 12, (2, 12)),
        (5, 0, 0, (8, 0)),
    ],
)
def test_a_call_is_rounded_up_and_never_beyond_what_the_model_reads(
    rows: int, length: int, longest: int, expected: tuple[int, int]
) -> None:
    assert bucket_of(rows, length, longest) == expected


@pytest.mark.parametrize("longest", [2, 12, 100, 128, 512, 1_000_000])
def test_every_call_but_a_large_one_has_a_bucket(longest: int) -> None:
    found = buckets(text(longest))
    assert found == sorted(set(found), reverse=True)
    for rows in (1, 2, 3, 31, MOST_ROWS):
        for length in (1, 2, 15, 17, 99, 100, 512):
            bucket = bucket_of(rows, min(length, longest), longest)
            assert (bucket in found) == (bucket.rows * bucket.length <= MOST_TOKENS)


def test_rows_of_one_size_have_buckets_by_their_number_alone() -> None:
    found = buckets([TensorSpec(name="x", dtype="FP32", shape=(3, 8, 8))])
    assert found == [(rows, 0) for rows in (32, 16, 8, 4, 2, 1)]


@pytest.mark.parametrize("inputs", [(), text(None), text(64)[:1]], ids=["unknown", "any length", "no mask"])
def test_a_model_that_cannot_be_padded_has_none(inputs: tuple[TensorSpec, ...]) -> None:
    assert buckets(inputs) == []


def test_padding_is_zeros_of_the_inputs_own_type() -> None:
    spec = TensorSpec(name="x", dtype="FP32", shape=(2,))
    found = Bucket(4, 0).padded(np.ones((3, 2)), spec)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1, 1], [1, 1], [1, 1], [0, 0]])


def test_texts_of_any_number_and_length_are_answered_as_without_buckets(tmp_path: Path) -> None:
    bundle = write_classifier(tmp_path / "moods")
    plain, bound = open_session(bundle.file(), 1), bind(bundle)
    for rows in (1, 2, 3, 4, 31, 32, 33, 100):
        given = tensors(bundle, [TEXTS[row % 4] for row in range(rows)])
        (expected,), (found,) = plain.run(["logits"], given), bound.run(["logits"], given)
        np.testing.assert_array_equal(found, expected)


def test_rows_of_numbers_are_answered_as_without_buckets(bundle: Bundle) -> None:
    plain, bound = open_session(bundle.file(), 1), bind(bundle)
    for rows in (1, 3, 32, 40):
        given = {"x": np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)}
        np.testing.assert_allclose(bound.run(["logits"], given)[0], plain.run(["logits"], given)[0], rtol=1e-6)


def test_an_answer_stays_as_it_is_when_the_next_is_given(bundle: Bundle) -> None:
    bound = bind(bundle)
    (first,) = bound.run(["logits"], {"x": np.ones((2, 2), np.float32)})
    before = first.copy()
    bound.run(["logits"], {"x": np.full((2, 2), 9, np.float32)})
    np.testing.assert_array_equal(first, before)


def test_nothing_of_a_call_is_left_for_a_shorter_one(tmp_path: Path) -> None:
    bundle = write_classifier(tmp_path / "moods")
    bound = bind(bundle)
    (alone,) = bound.run(["logits"], tensors(bundle, ["good"]))
    bound.run(["logits"], tensors(bundle, ["bad bad bad bad bad bad"]))
    np.testing.assert_array_equal(bound.run(["logits"], tensors(bundle, ["good"]))[0], alone)


def test_a_text_that_is_too_long_is_left_to_the_model(tmp_path: Path) -> None:
    bundle = write_classifier(tmp_path / "moods")
    ids = np.ones((1, 40), np.int64)
    (found,) = bind(bundle).run(["logits"], {"input_ids": ids, "attention_mask": ids})
    assert found.shape == (1, 2)


def test_a_language_model_is_run_as_it_comes(tmp_path: Path) -> None:
    bundle = write_language_model(tmp_path / "writer")
    plain, bound = open_session(bundle.file(), 1), bind(bundle)
    state = {spec.name: np.zeros((3, *spec.shape), np.float32) for spec in bundle.manifest.state_inputs}
    given: Tensors = {"input_ids": np.ones((3, 7), np.int64), **state}
    names = [node.name for node in bound.get_outputs()]
    for expected, found in zip(plain.run(names, given), bound.run(names, given), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_threads_share_a_bound_session(bundle: Bundle) -> None:
    bound = bind(bundle)
    given = [{"x": np.full((1 + row % 3, 2), row, np.float32)} for row in range(40)]
    alone = [bound.run(["logits"], each)[0] for each in given]
    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone, pool.map(lambda each: bound.run(["logits"], each)[0], given), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_what_the_model_refuses_is_told_to_the_caller(bundle: Bundle) -> None:
    with pytest.raises(Exception, match="nonsense"):
        bind(bundle).run(["nonsense"], {"x": np.ones((40, 2), np.float32)})


def test_a_predictor_works_with_it_as_with_any_session(tmp_path: Path) -> None:
    bundle = write_classifier(tmp_path / "moods")
    predictor: Any = Predictor(bundle)
    expected = predictor.predict(TEXTS)
    predictor.session = bind(bundle)
    predictor._check()
    assert predictor.predict(TEXTS) == expected
