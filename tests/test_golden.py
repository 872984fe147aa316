"""Golden rows: what of the test split goes into a bundle, and which answers count as those of the release."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.compress import compress
from tasks.core.bundle import GOLDEN, Bundle
from tasks.core.golden import Answer, Golden
from tasks.core.predictor import Predictor
from tasks.core.splits import Split
from tasks.export import BUNDLE
from tests.releases import as_from_elsewhere, spoil
from tests.tiny import LABELS, Stages, recipe

MODELS: dict[str, dict[str, Any]] = {
    "table": {},
    "image": {},
    "text": {"model": {"family": "text_pool", "embedding": 8}, "training": {"epochs": 1}},
    "running": {
        "model": {"family": "lstm_lm", "hidden": 16, "embedding": 8},
        "training": {"batch_size": 8, "window": 16, "epochs": 1},
    },
}


@pytest.fixture(scope="module", params=MODELS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    compression = {"compressors": [{"kind": "int8_dynamic"}], "limits": {"metric_drop": None}}
    return Stages.run(tmp_path_factory.mktemp(kind) / "stages", kind, compression=compression, **MODELS[kind])


@pytest.fixture
def bundle(made: Stages) -> Bundle:
    return Bundle.open(made.folder("compressed") / BUNDLE)


def golden(bundle: Bundle) -> Golden:
    found = Golden.read(bundle)
    assert found
    return found


def moved(answer: Answer, share: float) -> Answer:
    """The answer with so much of each outcome's probability at the least probable one."""
    (*others, (least, probability)) = [(index, value * (1 - share)) for index, value in answer]
    return (*others, (least, probability + share))


def test_every_variant_answers_as_it_did_when_it_was_measured(bundle: Bundle) -> None:
    found = golden(bundle)
    assert len(found.rows) == 8
    assert found.answers.keys() == {"fp32", "int8_dynamic"}
    assert [found.otherwise(Predictor(bundle, name)) for name in found.answers] == [[], []]


def test_rows_are_those_of_the_test_split_as_a_client_sends_them(kind: str, made: Stages, bundle: Bundle) -> None:
    rows = json.loads((bundle.folder / GOLDEN).read_text())["rows"]
    if kind == "running":
        tokens = made.encoded.split("test").tokens.tolist()
        assert rows[0] == tokens[:32]
        assert rows[-1] == tokens[-32:]
        return
    split = Split.open(made.root / "prepared", "test")
    predictions = Predictor(bundle, "fp32").predict(rows)
    answers = golden(bundle).answers["fp32"]
    assert [LABELS[answer[0][0]] for answer in answers] == [prediction.label for prediction in predictions]
    sent = {json.dumps(row) for row in rows}
    assert len(sent) == 8
    if kind == "text":
        assert sent <= {json.dumps(text) for text in split.columns(["text"])["text"]}
    if kind == "table":
        assert {row["color"] for row in rows} <= {"red", "green", "blue"}
        assert {row["a"] for row in rows} <= set(split.columns(["a"])["a"].tolist())


def test_the_digest_protects_them(bundle: Bundle) -> None:
    assert GOLDEN in Bundle.open(bundle.folder).manifest.files


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages.run(tmp_path_factory.mktemp("golden") / "stages", compression={"compressors": [{"kind": "int8_static"}]})


@pytest.fixture
def copied(table: Stages, tmp_path: Path) -> Path:
    """A bundle of its own, which a test may change."""
    compress(table.recipe, table.encoded, table.folder("exported"), tmp_path, table.folder("trained"), prepared=table.root / "prepared")
    return tmp_path / BUNDLE


@pytest.mark.parametrize(("share", "here", "elsewhere"), [(0.00001, 0, 0), (0.001, 8, 0), (0.2, 8, 0), (0.5, 8, 8)])
def test_here_answers_are_the_same_and_elsewhere_a_quarter_of_the_probability_may_move(
    share: float, here: int, elsewhere: int, copied: Path
) -> None:
    bundle = Bundle.open(copied)
    released = golden(bundle)
    answers = {name: tuple(moved(answer, share) for answer in answers) for name, answers in released.answers.items()}
    changed = Golden(rows=released.rows, answers=answers)
    assert len(changed.otherwise(Predictor(bundle))) == here
    assert len(changed.otherwise(Predictor(as_from_elsewhere(copied)))) == elsewhere


def test_a_variant_that_is_another_is_found_elsewhere_too(copied: Path) -> None:
    as_from_elsewhere(copied)
    spoil(copied)
    bundle = Bundle.open(copied)
    assert len(golden(bundle).otherwise(Predictor(bundle))) > 4


def test_a_recipe_may_keep_them_out(table: Stages, tmp_path: Path) -> None:
    none = recipe(serving={"golden": 0}, compression={"compressors": []})
    compress(none, table.encoded, table.folder("exported"), tmp_path, prepared=table.root / "prepared")
    bundle = Bundle.open(tmp_path / BUNDLE)
    assert (bundle.manifest.golden, Golden.read(bundle)) == (None, None)
    assert not (bundle.folder / GOLDEN).exists()
