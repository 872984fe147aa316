"""Predictions against the same sums in numpy."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.core.bundle import Bundle
from tasks.core.errors import BundleError, InputError
from tasks.core.predictor import Predictor, open_session, probabilities, rows_alone, run_session, runtime_of, this_place
from tests.core.conftest import BIAS, LABELS, WEIGHTS
from tests.texts import write_classifier

ROWS = [{"a": 1.0, "b": 20.0}, {"a": 2.0, "b": 10.0}, {"a": -5.0, "b": 35.0}]


def expected(row: dict[str, float]) -> list[float]:
    x = np.array([row["a"] - 1, (row["b"] - 20) / 10])
    exponents = np.exp(x @ WEIGHTS + BIAS)
    return list(exponents / exponents.sum())


def test_probabilities_are_those_of_numpy(bundle: Bundle) -> None:
    for row, prediction in zip(ROWS, Predictor(bundle).predict(ROWS), strict=True):
        np.testing.assert_allclose(list(prediction.probabilities.values()), expected(row), rtol=1e-5)
        assert prediction.label == LABELS[int(np.argmax(expected(row)))]


def test_a_row_does_not_depend_on_its_neighbours(bundle: Bundle) -> None:
    predictor = Predictor(bundle)
    assert predictor.predict(ROWS) == [predictor.predict([row])[0] for row in ROWS]


def test_no_rows_give_no_predictions(bundle: Bundle) -> None:
    assert Predictor(bundle).predict([]) == []


def test_threads_share_a_predictor(bundle: Bundle) -> None:
    predictor = Predictor(bundle)
    alone = predictor.predict(ROWS)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == alone for found in pool.map(lambda _: predictor.predict(ROWS), range(40)))


def test_many_long_rows_in_parts_are_as_each_alone(tmp_path: Path) -> None:
    predictor = Predictor(write_classifier(tmp_path / "moods"))
    texts = ["good " * (1 + row % 11) + "bad" * (row % 2) for row in range(2000)]
    # Twelve tokens a row, which is more than one call takes.
    found = predictor.predict(texts)
    assert len(found) == len(texts)
    assert found[1990:] == [predictor.predict([text])[0] for text in texts[1990:]]


def test_a_variant_that_takes_one_row_at_a_time_is_given_one(bundle: Bundle) -> None:
    predictor = Predictor(bundle)
    marked = Predictor(Bundle(bundle.folder, bundle.manifest.replace(variants=(predictor.variant.model_copy(update={"batch": "one"}),))))
    assert marked.predict(ROWS) == [predictor.predict([row])[0] for row in ROWS]
    rows = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    together, alone = (run_session(predictor.session, batch)(rows)["logits"] for batch in ("any", "one"))
    np.testing.assert_allclose(alone, together, rtol=1e-5)


def test_a_row_alone_is_without_the_padding_after_its_last_token() -> None:
    mask = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    ids, each = np.arange(16).reshape(4, 4), np.arange(4, dtype=np.float32)[:, None]
    found = list(rows_alone({"input_ids": ids, "attention_mask": mask, "each": each}))
    assert [row["input_ids"].tolist() for row in found] == [[[0, 1]], [[4, 5, 6]], [[8, 9, 10, 11]], [[12]]]
    assert [row["attention_mask"].tolist() for row in found] == [[[1, 1]], [[0, 1, 1]], [[1, 1, 1, 1]], [[0]]]
    assert [row["each"].tolist() for row in found] == [[[0.0]], [[1.0]], [[2.0]], [[3.0]]]


def test_a_session_tells_what_runs_it(bundle: Bundle) -> None:
    found = runtime_of(open_session(bundle.file(), 3))
    assert this_place(3).runtime == found
    assert (found.threads, found.provider) == (3, "CPUExecutionProvider")
    assert found.onnxruntime


def test_an_answer_that_is_not_finite_is_no_answer(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="item 1: the model has no finite answer for it"):
        Predictor(bundle).predict([ROWS[0], {"a": 3e38, "b": -3e38}])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot load .*x\.onnx"):
        open_session(tmp_path / "x.onnx")


def test_a_model_that_its_manifest_does_not_describe_is_refused(bundle: Bundle) -> None:
    other = Bundle(bundle.folder, bundle.manifest.replace(inputs=(bundle.manifest.inputs[0].model_copy(update={"name": "y"}),)))
    with pytest.raises(BundleError, match=r"variants/fp32\.onnx takes x and gives logits, its manifest says y and logits"):
        Predictor(other)


def test_an_unknown_variant_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no variant 'int8'"):
        Predictor(bundle, "int8")


@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_probabilities_sum_to_one_whatever_the_logits(logits: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    rows = probabilities(logits)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)
    assert (rows >= 0).all()
