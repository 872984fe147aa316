"""Rows side by side give the answers that they give together."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.bundle import Bundle
from tasks.core.lanes import Lanes
from tasks.core.predictor import Predictor, open_session, run_session, runtime_of
from tasks.core.transforms import Tensors
from tests.texts import write_classifier, write_language_model


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_classifier(tmp_path_factory.mktemp("lanes") / "moods")


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("threads", [2, 3])
def test_answers_are_in_the_order_of_the_rows(texts: Bundle, rows: int, threads: int) -> None:
    predictor = Predictor(texts)
    tensors = predictor.tensors(["good " * (1 + 7 * row % 11) + "bad" * (row % 2) for row in range(rows)])
    lanes = open_session(texts.file(), threads, parallel="rows")
    assert isinstance(lanes, Lanes)
    np.testing.assert_allclose(lanes.run(["logits"], tensors)[0], predictor.logits(tensors), rtol=1e-5, atol=1e-6)
    alone = run_session(lanes, "one")(tensors)["logits"]
    np.testing.assert_allclose(alone, predictor.logits(tensors), rtol=1e-5, atol=1e-6)


def test_what_one_lane_reads_is_as_long_as_its_longest_and_lanes_have_about_as_much_to_read(texts: Bundle) -> None:
    seen = []

    class Noting:
        def run(self, names: list[str], tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.append(tensors["attention_mask"].shape)
            return [np.zeros((len(tensors["input_ids"]), len(names)))]

    mask = np.tril(np.ones((16, 16), np.int64))[[15, 0, 1, 14, 2, 3]]
    Lanes(Noting(), 2).run(["logits"], {"input_ids": np.ones_like(mask), "attention_mask": mask})  # type: ignore[arg-type]
    assert sorted(seen) == [(1, 16), (5, 15)]


def test_rows_of_a_language_model_keep_their_length(tmp_path: Path) -> None:
    bundle = write_language_model(tmp_path / "writer")
    state = {spec.name: np.zeros((5, *spec.shape), np.float32) for spec in bundle.manifest.state_inputs}
    tensors: Tensors = {"input_ids": np.arange(15).reshape(5, 3), **state}
    plain, lanes = (run_session(open_session(bundle.file(), 2, parallel=parallel))(tensors) for parallel in ("ops", "rows"))
    for name, values in plain.items():
        np.testing.assert_allclose(lanes[name], values, rtol=1e-5, atol=1e-6)


def test_they_are_as_many_threads_as_were_asked_for(texts: Bundle) -> None:
    assert runtime_of(open_session(texts.file(), 3, parallel="rows")).threads == 3
    assert not isinstance(open_session(texts.file(), 1, parallel="rows"), Lanes)
