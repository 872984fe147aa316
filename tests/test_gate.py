"""Gate: the release held against its gates, beside a champion of any kind."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tasks.compress import SCORES
from tasks.core.bundle import Bundle, describe_variant
from tasks.core.dataset import Column
from tasks.core.errors import BundleError, ConfigError, GateError
from tasks.core.metrics import Scored
from tasks.core.scoring import load_scores
from tasks.export import BUNDLE
from tasks.gate import GateResult, gate
from tests.tiny import TABLE, Stages, recipe

CHAMPION = [{"kind": "champion"}]


def judged(stages: Stages, gates: list[dict[str, Any]], champion: Path | None = None) -> GateResult:
    return gate(
        recipe(gates=gates),
        TABLE,
        stages.folder("prepared"),
        stages.folder("compressed"),
        ("7", champion) if champion else None,
    )


@pytest.fixture
def champion(stages: Stages, tmp_path: Path) -> Bundle:
    """A copy of the release's own bundle, to be changed."""
    folder = tmp_path / "champion"
    shutil.copytree(stages.folder("compressed") / BUNDLE, folder)
    return Bundle.open(folder)


def test_the_variant_that_ships_is_judged_on_the_test_rows(stages: Stages) -> None:
    expected = load_scores(stages.folder("compressed") / SCORES / f"{stages.compression.chosen}.npz").metrics()["accuracy"]
    (verdict,) = judged(stages, [{"kind": "metric_floor", "minimum": expected}]).verdicts
    assert (verdict.passed, verdict.measured, verdict.margin) == (True, expected, 0.0)
    (verdict,) = judged(stages, [{"kind": "metric_floor", "minimum": expected + 1e-6}]).verdicts
    assert not verdict.passed


def test_every_gate_is_judged_even_after_one_failed(stages: Stages) -> None:
    found = judged(stages, [{"kind": "metric_floor", "minimum": 1.0}, {"kind": "parity"}, {"kind": "size", "maximum_mb": 1e-6}])
    assert [verdict.passed for verdict in found.verdicts] == [False, True, False]
    assert not found.passed
    assert found.figure == "1 of 3 gates passed"


def test_failed_gates_stop_the_release_with_the_whole_table(stages: Stages) -> None:
    found = judged(stages, [{"kind": "metric_floor", "minimum": 1.0}, {"kind": "parity"}])
    with pytest.raises(GateError) as caught:
        found.require()
    first, *table = caught.value.what.splitlines()
    assert first == "1 of 2 gates failed (metric_floor); nothing was registered"
    assert table == found.table().splitlines()
    assert [line.split()[0] for line in table] == ["gate", "FAIL", "pass"]
    assert table[0].split() == ["gate", "measured", "limit", "by", "what"]


def test_without_gates_everything_passes(stages: Stages) -> None:
    found = judged(stages, [])
    found.require()
    assert found.passed


def test_a_gates_mistake_is_told_with_its_place(stages: Stages) -> None:
    with pytest.raises(ConfigError, match=r"^gates\.1\.kind: unknown gate 'parrity'; did you mean 'parity'"):
        judged(stages, [{"kind": "parity"}, {"kind": "parrity"}])


def test_a_bundle_that_was_changed_since_is_not_judged(stages: Stages, tmp_path: Path) -> None:
    compressed = tmp_path / "compressed"
    shutil.copytree(stages.folder("compressed"), compressed)
    with (compressed / BUNDLE / "variants" / "fp32.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="differs from its digest"):
        gate(recipe(gates=[]), TABLE, stages.folder("prepared"), compressed, None)


def test_a_release_is_not_worse_than_itself(stages: Stages, champion: Bundle) -> None:
    found = judged(stages, CHAMPION, champion.folder)
    (verdict,) = found.verdicts
    assert (verdict.passed, verdict.measured) == (True, 0.0)
    assert found.champion == "7"
    assert verdict.what == "test accuracy beside champion 7: +0.0000 [+0.0000, +0.0000]"


def test_a_better_champion_stops_the_release(stages: Stages, champion: Bundle) -> None:
    targets = stages.encoded.split("test").targets
    weak = champion.folder.parent / "weak"
    shutil.copytree(stages.folder("compressed"), weak)
    Scored(np.eye(3)[(targets + 1) % 3], targets).save(weak / SCORES / f"{stages.compression.chosen}.npz")
    found = gate(recipe(gates=CHAMPION), TABLE, stages.folder("prepared"), weak, ("7", champion.folder))
    assert not found.passed


def why(stages: Stages, champion: Bundle) -> str:
    """Why the champion cannot be compared."""
    found = judged(stages, CHAMPION, champion.folder)
    assert not found.passed
    said, _, reason = found.verdicts[0].what.partition(": ")
    assert said == "cannot be compared with champion 7"
    return reason


def test_a_champion_of_other_labels_cannot_be_compared(stages: Stages, champion: Bundle) -> None:
    for labels in (("left", "right", "middle"), ("cat", "dog", "cow")):
        Bundle(champion.folder, champion.manifest.replace(labels=labels)).write()
        assert why(stages, champion) == f"its labels are {', '.join(labels)}"


def test_a_champion_of_other_columns_cannot_be_compared(stages: Stages, champion: Bundle) -> None:
    columns = {**champion.manifest.columns, "height": Column(type="number")}
    Bundle(champion.folder, champion.manifest.replace(columns=columns)).write()
    assert why(stages, champion) == "it takes height, which the test rows do not have"


def test_a_champion_whose_column_changed_its_type_cannot_be_compared(stages: Stages, champion: Bundle) -> None:
    path = champion.folder / "bundle.json"
    path.write_text(path.read_text().replace('"a"', '"color"'))
    assert why(stages, champion).startswith("item 0: 'color' is ")


def test_a_champion_that_was_altered_cannot_be_compared(stages: Stages, champion: Bundle) -> None:
    with champion.file().open("ab") as file:
        file.write(b"x")
    assert "differs from its digest" in why(stages, champion)


def test_a_champion_that_is_gone_cannot_be_compared(stages: Stages, champion: Bundle) -> None:
    shutil.rmtree(champion.folder)
    assert "is not a bundle" in why(stages, champion)


def test_a_champion_without_answers_cannot_be_compared(stages: Stages, champion: Bundle) -> None:
    model = onnx.load(champion.file("fp32"))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), np.nan), tensor.name))
    onnx.save(model, champion.file("fp32"))
    variants = (describe_variant(champion.folder, "fp32"), *champion.manifest.variants[1:])
    Bundle(champion.folder, champion.manifest.replace(variants=variants, chosen="fp32")).write()
    assert why(stages, champion) == "it has no finite answer for 120 of the test rows"


def test_the_result_can_be_written_down_and_read_again(stages: Stages, champion: Bundle) -> None:
    found = judged(stages, [{"kind": "parity"}, *CHAMPION], champion.folder)
    assert GateResult.parse(json.loads(found.model_dump_json())) == found
