"""Remeasure: what a release reaches here, held against its recipe, and where that is written down."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core.bundle import Bundle
from tasks.core.errors import BundleError, GateError
from tasks.core.predictor import this_place
from tasks.export import BUNDLE
from tasks.places import is_measured, tag_of
from tasks.remeasure import RemeasureResult, record, remeasure
from tasks.tracking import Tracking
from tests.outliers import run_with_outliers
from tests.releases import ANOTHER, add_release, as_from_elsewhere, spoil
from tests.tiny import Stages, recipe

LOOSE: dict[str, Any] = {"limits": {"metric_drop": 0.5, "latency_ms": 1e4, "memory_mb": 1e4, "size_ratio": 2.0}}
EVERY_GATE = [
    {"kind": "metric_floor", "minimum": 0.5},
    {"kind": "metric_ceiling", "metric": "log_loss", "maximum": 5.0},
    {"kind": "metric_drop", "maximum": 0.5},
    {"kind": "latency", "maximum_ms": 1e4},
    {"kind": "parity"},
    {"kind": "size", "maximum_mb": 9},
    {"kind": "champion"},
]


def taken_from(stages: Stages, folder: Path, **sections: Any) -> Bundle:
    """A copy of the stages' bundle that was made by a recipe with these sections, serves its last variant, and was measured elsewhere."""
    shutil.copytree(stages.folder("compressed") / BUNDLE, folder)
    bundle = as_from_elsewhere(folder)
    chosen = bundle.manifest.variants[-1].name
    made_by = recipe(**{"gates": [], "compression": LOOSE, **sections}).model_dump(mode="json")
    return Bundle(folder, bundle.manifest.replace(recipe=made_by, chosen=chosen)).write()


@pytest.fixture(scope="module")
def passing(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> RemeasureResult:
    """A release that keeps every limit here too."""
    return remeasure(taken_from(stages, tmp_path_factory.mktemp("passing") / BUNDLE, gates=EVERY_GATE), stages.encoded)


def test_the_figures_are_of_here_beside_those_of_the_bundle(passing: RemeasureResult, stages: Stages) -> None:
    before = Bundle.open(stages.folder("compressed") / BUNDLE).manifest.variant("int8_static").measurements
    here, there = passing.chosen.measurements, passing.released.measurements
    assert passing.place == this_place(1)
    assert here
    assert there
    assert before
    # It is the same machine after all.
    assert (here.metrics, here.agreement, here.invariance) == (before.metrics, before.agreement, before.invariance)
    assert (here.place, there.machine) == (this_place(1), ANOTHER)
    assert passing.fp32.place == this_place(1)


def test_it_is_held_against_the_gates_and_limits_that_a_machine_changes(passing: RemeasureResult) -> None:
    gates = ["batch", "golden", "metric_floor", "metric_ceiling", "metric_drop", "latency"]
    assert [verdict.gate for verdict in passing.verdicts] == [*gates, "limits.metric_drop", "limits.latency_ms", "limits.memory_mb"]
    assert passing.passed


@pytest.mark.parametrize(
    ("sections", "failed"),
    [
        ({"gates": [{"kind": "latency", "maximum_ms": 1e-6}]}, "latency"),
        ({"gates": [{"kind": "metric_floor", "minimum": 1.0}]}, "metric_floor"),
        ({"compression": {"limits": {"metric_drop": None, "latency_ms": 1e-6}}}, "limits.latency_ms"),
        ({"compression": {"limits": {"metric_drop": None, "memory_mb": 1e-6}}}, "limits.memory_mb"),
    ],
)
def test_what_is_not_kept_here_fails(sections: dict[str, Any], failed: str, stages: Stages, tmp_path: Path) -> None:
    found = remeasure(taken_from(stages, tmp_path / BUNDLE, **sections), stages.encoded)
    assert found.failed == (failed,)


def test_a_variant_that_answers_otherwise_here_fails(stages: Stages, tmp_path: Path) -> None:
    folder = taken_from(stages, tmp_path / BUNDLE).folder
    spoil(folder)
    assert remeasure(Bundle.open(folder), stages.encoded).failed == ("golden", "limits.metric_drop")


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Its variant int8_dynamic may only be given one row at a time, and says so."""
    return run_with_outliers(tmp_path_factory.mktemp("outliers") / "stages")


def test_rows_that_disturb_each_other_here_fail_where_the_bundle_says_that_they_do_not(outliers: Stages, tmp_path: Path) -> None:
    bundle = taken_from(outliers, tmp_path / BUNDLE)
    variants = tuple(variant.model_copy(update={"batch": "any"}) for variant in bundle.manifest.variants)
    found = remeasure(Bundle(bundle.folder, bundle.manifest.replace(variants=variants, chosen="int8_dynamic")), outliers.encoded)
    assert "batch" in found.failed
    assert found.chosen.batch == "any"


def test_a_variant_of_one_row_at_a_time_is_measured_so(outliers: Stages, tmp_path: Path) -> None:
    bundle = taken_from(outliers, tmp_path / BUNDLE)
    found = remeasure(Bundle(bundle.folder, bundle.manifest.replace(chosen="int8_dynamic")), outliers.encoded)
    before = bundle.manifest.variant("int8_dynamic").measurements
    assert before
    assert found.chosen.measurements
    assert found.chosen.measurements.metrics == before.metrics
    assert (found.chosen.batch, "batch" in [verdict.gate for verdict in found.verdicts]) == ("one", False)


def test_the_threads_are_those_that_it_is_served_with(stages: Stages, tmp_path: Path) -> None:
    bundle = taken_from(stages, tmp_path / BUNDLE, serving={"threads": 1})
    found = remeasure(Bundle(bundle.folder, bundle.manifest.replace(threads=2)), stages.encoded)
    assert found.place == this_place(2)


def test_a_release_that_serves_fp32_is_measured_alone(stages: Stages, tmp_path: Path) -> None:
    bundle = taken_from(stages, tmp_path / BUNDLE)
    found = remeasure(Bundle(bundle.folder, bundle.manifest.replace(chosen="fp32")), stages.encoded)
    assert found.chosen == found.fp32
    assert found.passed


def test_a_variant_that_does_not_run_here_is_an_error(stages: Stages, tmp_path: Path) -> None:
    bundle = taken_from(stages, tmp_path / BUNDLE)
    bundle.file().write_bytes(bundle.file("fp32").read_bytes()[:-9])
    with pytest.raises(BundleError, match="ONNX Runtime cannot load"):
        remeasure(bundle, stages.encoded)


def test_a_language_model_is_measured_again_too(tmp_path: Path) -> None:
    model = {"family": "lstm_lm", "hidden": 16, "embedding": 8}
    compression = {"compressors": [{"kind": "int8_dynamic"}], "limits": {"metric_drop": 1.0}}
    training = {"batch_size": 8, "window": 16, "epochs": 1}
    stages = Stages.run(tmp_path / "stages", "running", model=model, compression=compression, training=training, gates=[])
    found = remeasure(as_from_elsewhere(stages.folder("compressed") / BUNDLE), stages.encoded)
    assert found.passed
    assert "a test nats of" in found.figure


# Where it is written down.


def test_what_passed_is_recorded_with_the_release(passing: RemeasureResult, tracking: Tracking, stages: Stages) -> None:
    release = add_release(tracking, stages)
    record(tracking, release, passing)
    path = Path(tracking.client.get_run(release.run).info.artifact_uri) / passing.file
    assert RemeasureResult.parse(json.loads(path.read_text())) == passing
    assert path.with_suffix(".txt").read_text().splitlines() == passing.table().splitlines()
    tag = tracking.version("points", "1").tags[f"machine.{passing.place.fingerprint}"]
    assert tag == f"passed: {passing.figure}; {passing.place}; {passing.taken}"


def test_a_place_where_it_passed_counts_as_one_where_it_was_measured(
    passing: RemeasureResult, tracking: Tracking, stages: Stages, tmp_path: Path
) -> None:
    elsewhere = taken_from(stages, tmp_path / BUNDLE).manifest
    release = add_release(tracking, stages)
    assert not is_measured(release, elsewhere, passing.place)
    record(tracking, release, passing)
    release = tracking.version("points", "1")
    assert is_measured(release, elsewhere, passing.place)
    assert not is_measured(release, elsewhere, this_place(2))


def test_what_failed_is_recorded_and_does_not_count(passing: RemeasureResult, tracking: Tracking, stages: Stages, tmp_path: Path) -> None:
    elsewhere = taken_from(stages, tmp_path / BUNDLE).manifest
    release = add_release(tracking, stages)
    bad = passing.verdicts[-1].model_copy(update={"passed": False})
    found = passing.model_copy(update={"verdicts": (*passing.verdicts[:-1], bad)})
    record(tracking, release, found)
    release = tracking.version("points", "1")
    assert release.tags[tag_of(found.place)].startswith("failed (limits.memory_mb): ")
    assert not is_measured(release, elsewhere, found.place)
    with pytest.raises(
        GateError, match=r"^points version 1 fails 1 of 9 checks on this machine \(limits.memory_mb\); nothing was promoted\n"
    ):
        found.require(release)


def test_a_release_measured_here_is_known_without_any_tag(tracking: Tracking, stages: Stages) -> None:
    release = add_release(tracking, stages)
    manifest = tracking.manifest(release.name, release.version)
    assert manifest == Bundle.open(stages.folder("compressed") / BUNDLE).manifest
    assert is_measured(release, manifest, this_place(manifest.threads))
