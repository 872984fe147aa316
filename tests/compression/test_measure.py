"""Measuring: what is asked, in turn and of whom, and what a session takes of memory."""

from pathlib import Path

import numpy as np
import pytest

from tasks.compression.invariance import ROWS, TOLERANCE, check_invariance
from tasks.compression.measure import requests, time_loads, time_variants
from tasks.compression.memory import session_memory
from tasks.core.bundle import Bundle, Variant
from tasks.core.encoded import EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.language import Run
from tasks.core.metrics import Scored
from tasks.core.predictor import open_session, rows_alone, run_session
from tasks.core.scoring import load_scores, score_split
from tasks.core.transforms import Tensors
from tasks.export import BUNDLE
from tests.outliers import run_with_outliers
from tests.tiny import Stages, encode_tiny


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return run_with_outliers(tmp_path_factory.mktemp("outliers") / "stages")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> EncodedSplit:
    return encode_tiny(tmp_path_factory.mktemp("texts"), "text", model={"family": "text_pool"}).split("validation")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    model = {"family": "lstm_lm", "hidden": 64, "embedding": 16}
    compression = {"compressors": [{"kind": "int8_dynamic"}], "limits": {"metric_drop": 1.0}}
    training = {"batch_size": 8, "window": 16}
    return Stages.run(tmp_path_factory.mktemp("running") / "stages", "running", model=model, compression=compression, training=training)


def variant(stages: Stages, name: str) -> Variant:
    return Bundle.open(stages.folder("compressed") / BUNDLE).manifest.variant(name)


def session_run(stages: Stages, name: str, batch: str = "any") -> Run:
    path = Bundle.open(stages.folder("compressed") / BUNDLE).file(name)
    return run_session(open_session(path, 1), "one" if batch == "one" else "any")


# Whether a row's answer depends on what is beside it.


def test_dynamic_int8_that_loses_rows_beside_a_large_one_is_caught_and_fp32_is_not(outliers: Stages) -> None:
    found, fp32 = (variant(outliers, name) for name in ("int8_dynamic", "fp32"))
    assert (found.batch, fp32.batch) == ("one", "any")
    assert found.measurements
    assert found.measurements.invariance
    assert found.measurements.invariance.changed > 0
    assert found.measurements.invariance.difference > TOLERANCE
    assert fp32.measurements
    assert fp32.measurements.invariance
    assert fp32.measurements.invariance.holds
    assert outliers.compression.candidates[1].batch == "one"


def test_its_scores_are_those_of_rows_run_alone(outliers: Stages) -> None:
    test = outliers.encoded.split("test")
    kept = load_scores(outliers.folder("compressed") / "scores" / "int8_dynamic.npz")
    alone, together = (score_split(session_run(outliers, "int8_dynamic", batch), test) for batch in ("one", "any"))
    assert isinstance(kept, Scored)
    assert isinstance(alone, Scored)
    np.testing.assert_array_equal(kept.probabilities, alone.probabilities)
    assert kept.metrics()["accuracy"] > together.metrics()["accuracy"] + 0.1


def test_run_alone_it_holds(outliers: Stages) -> None:
    found = check_invariance(session_run(outliers, "int8_dynamic", "one"), outliers.encoded.split("validation"))
    assert (found.rows, found.changed, found.difference, found.holds) == (80, 0, 0.0, True)


def test_a_model_that_sees_its_padding_is_caught(texts: EncodedSplit) -> None:
    def sees(tensors: Tensors) -> Tensors:
        """The share of tokens among the places decides."""
        share = tensors["attention_mask"].mean(axis=1)
        return {"logits": np.stack([share, 0.9 - share], axis=1).astype(np.float32)}

    def looks_away(tensors: Tensors) -> Tensors:
        length = tensors["attention_mask"].sum(axis=1) / 10
        return {"logits": np.stack([length, 0.7 - length], axis=1).astype(np.float32)}

    found = check_invariance(sees, texts)
    assert found.changed > 0
    assert not found.holds
    assert check_invariance(looks_away, texts).holds


def test_a_tie_that_rounding_decides_is_no_change(texts: EncodedSplit) -> None:
    def nearly(tensors: Tensors) -> Tensors:
        rows = len(tensors["input_ids"])
        return {"logits": np.tile(np.array([0.0, 1e-6 if rows > 1 else -1e-6], np.float32), (rows, 1))}

    assert check_invariance(nearly, texts).holds


def test_tokens_of_a_language_model_are_asked_alone_and_together(running: Stages) -> None:
    state = Bundle.open(running.folder("compressed") / BUNDLE).manifest.state_inputs
    found = variant(running, "fp32").measurements
    assert found
    assert found.invariance
    assert (found.invariance.rows, found.invariance.holds) == (ROWS, True)
    split = running.encoded.split("validation")
    together = check_invariance(session_run(running, "int8_dynamic"), split, state)
    assert together.difference > 1e-4
    assert check_invariance(session_run(running, "int8_dynamic", "one"), split, state).difference == 0.0


# What is asked.


def test_each_request_is_of_other_rows_of_various_lengths(texts: EncodedSplit) -> None:
    request = requests(texts, (), 8)
    found = [request(number) for number in range(10)]
    assert len({each["input_ids"].shape for each in found}) > 1
    assert all(len(each["input_ids"]) == 8 for each in found)
    assert sorted(int(row.sum()) for each in found for row in each["attention_mask"]) == sorted(
        texts.lengths if texts.lengths is not None else []
    )


def test_more_rows_than_there_are_come_again(texts: EncodedSplit) -> None:
    assert len(requests(texts, (), 200)(3)["input_ids"]) == 200


def test_a_language_models_request_is_a_token_a_row_with_its_first_state(running: Stages) -> None:
    state = Bundle.open(running.folder("compressed") / BUNDLE).manifest.state_inputs
    found = requests(running.encoded.split("test"), state, 4)(0)
    assert found["input_ids"].shape == (4, 1)
    assert all(found[spec.name].shape == (4, *spec.shape) and not found[spec.name].any() for spec in state)


def test_variants_answer_the_same_requests_in_turn() -> None:
    asked: list[tuple[str, int]] = []

    def run(name: str) -> Run:
        def note(tensors: Tensors) -> Tensors:
            asked.append((name, int(tensors["x"][0])))
            return {}

        return note

    found = time_variants({"a": run("a"), "b": run("b")}, lambda number: {"x": np.array([number])})
    measured = asked[6:]
    assert [name for name, _ in measured[:4]] == ["a", "b", "a", "b"]
    assert [number for _, number in measured[:4]] == [0, 0, 1, 1]
    assert len(measured) >= 20
    assert set(found) == {"a", "b"}


def test_every_file_is_loaded(outliers: Stages) -> None:
    bundle = Bundle.open(outliers.folder("compressed") / BUNDLE)
    loaded: list[str] = []
    found = time_loads({name: bundle.file(name) for name in ("fp32", "int8_dynamic")}, lambda path: loaded.append(path.stem))
    assert list(found) == ["fp32", "int8_dynamic"]
    assert loaded == 3 * ["fp32", "int8_dynamic"]
    assert min(found.values()) > 0


# Memory.


def test_a_larger_model_takes_more_memory(stages: Stages, tmp_path: Path) -> None:
    wide = Stages.run(tmp_path / "wide", model={"hidden": [1024, 1024]}, training={"epochs": 1}, compression={"compressors": []})
    request = requests(stages.encoded.split("test"), (), 32)(0)
    small, large = (session_memory(Bundle.open(each.folder("exported") / BUNDLE).file(), 1, [request]) for each in (stages, wide))
    # Four megabytes of weights.
    assert large > small + 4
    assert session_memory(Bundle.open(wide.folder("exported") / BUNDLE).file(), 1, rows_alone(request)) > 4


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(MaasflowError, match=r"^the memory of broken cannot be measured: .*InvalidProtobuf"):
        session_memory(tmp_path / "broken.onnx", 1, [{"x": np.zeros((1, 2), np.float32)}])
