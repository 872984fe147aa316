"""Compress: what was measured, and which variant is chosen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.candidate import Candidate, Miss, choose, nearest
from tasks.compress import SCORES, CompressResult, InfeasibleError, compress
from tasks.core.bundle import Bundle, Invariance
from tasks.core.errors import ConfigError
from tasks.core.machine import this_machine
from tasks.core.metrics import Interval, Scored, paired_difference
from tasks.core.predictor import this_place
from tasks.core.recipe import Objective
from tasks.core.scoring import load_scores
from tasks.export import BUNDLE
from tests.tiny import Stages, recipe


def bundle(stages: Stages) -> Bundle:
    return Bundle.open(stages.folder("compressed") / BUNDLE)


def candidate(name: str, **figures: Any) -> Candidate:
    plain: dict[str, Any] = {
        "bytes": 100,
        "size_ratio": 1.0,
        "batch": "any",
        "load_ms": 1.0,
        "memory_mb": 10.0,
        "latency_ms": 1.0,
        "p99_ms": 2.0,
        "parallel": "ops",
        "rows_per_second": 1000.0,
        "validation": 0.9,
        "validation_drop": 0.0,
        "test": 0.9,
        "test_difference": Interval(value=0.0, low=0.0, high=0.0),
        "agreement": 1.0,
        "calibration_error": 0.02,
        "invariance": Invariance(rows=80, changed=0, difference=0.0, tolerance=0.01),
        "misses": (),
    }
    return Candidate(name=name, **plain | figures)


def test_every_variant_is_in_the_bundle_measured_and_whole(stages: Stages) -> None:
    manifest = bundle(stages).manifest
    assert [variant.name for variant in manifest.variants] == ["fp32", "int8_dynamic", "int8_static"]
    assert manifest.chosen == stages.compression.chosen
    for variant in manifest.variants:
        found = variant.measurements
        assert found is not None
        assert found.machine == this_machine()
        assert found.runtime
        assert (found.runtime.threads, found.runtime.provider) == (1, "CPUExecutionProvider")
        assert found.load_ms
        assert found.memory_mb is not None
        assert found.invariance
        assert found.invariance.holds == (variant.batch == "any")
        assert set(found.metrics) == {"validation", "test"}
        assert set(found.latency_ms) == {"1", "32"}
        assert all(0 < latency.p50 <= latency.p99 for latency in found.latency_ms.values())


def test_it_is_served_with_the_threads_that_it_was_measured_with(stages: Stages, tmp_path: Path) -> None:
    wanted = recipe(serving={"threads": 2}, compression={"compressors": []})
    compress(wanted, stages.encoded, stages.folder("exported"), tmp_path)
    found = Bundle.open(tmp_path / BUNDLE).manifest
    assert found.threads == 2
    assert found.variant().place == this_place(2)


def kept(stages: Stages, variant: str) -> Scored:
    found = load_scores(stages.folder("compressed") / SCORES / f"{variant}.npz")
    assert isinstance(found, Scored)
    return found


def test_the_metrics_are_those_of_the_kept_scores(stages: Stages) -> None:
    names = [variant.name for variant in bundle(stages).manifest.variants]
    assert sorted(path.stem for path in (stages.folder("compressed") / SCORES).iterdir()) == sorted(names)
    for variant in bundle(stages).manifest.variants:
        scored = kept(stages, variant.name)
        np.testing.assert_array_equal(scored.targets, stages.encoded.split("test").targets)
        assert variant.measurements
        assert variant.measurements.metrics["test"] == scored.metrics()
        assert variant.measurements.agreement == (scored.predicted == kept(stages, "fp32").predicted).mean()
        assert variant.measurements.test_difference == paired_difference(scored, kept(stages, "fp32"), "accuracy", 100)


def test_fp32_is_beside_itself_the_same(stages: Stages) -> None:
    fp32 = stages.compression.candidates[0]
    assert (fp32.name, fp32.size_ratio, fp32.validation_drop, fp32.agreement, fp32.misses) == ("fp32", 1.0, 0.0, 1.0, ())


def test_the_figure_tells_the_choice(stages: Stages) -> None:
    choice = stages.compression.choice
    assert stages.compression.figure.startswith(f"chose {choice.name}: {choice.size_ratio:.2f} × fp32's size, ")


def test_the_figure_tells_of_a_choice_that_takes_one_row_at_a_time() -> None:
    for batch in ("any", "one"):
        found = CompressResult(chosen="it", candidates=(candidate("it", batch=batch),), failed={})
        assert found.figure.endswith(", one row at a time") == (batch == "one")


def test_the_exported_bundle_stays_as_it_was(stages: Stages) -> None:
    exported = Bundle.open(stages.folder("exported") / BUNDLE)
    assert [variant.name for variant in exported.manifest.variants] == ["fp32"]
    assert exported.manifest.variant().measurements is None


def run(stages: Stages, out: Path, **compression: Any) -> Bundle:
    out.mkdir()
    compress(recipe(compression=compression), stages.encoded, stages.folder("exported"), out)
    return Bundle.open(out / BUNDLE)


def test_without_compressors_fp32_ships(stages: Stages, tmp_path: Path) -> None:
    found = run(stages, tmp_path / "out", compressors=[])
    assert found.manifest.chosen == "fp32"
    assert [path.name for path in (found.folder / "variants").iterdir()] == ["fp32.onnx"]


def test_one_kind_may_be_used_twice(stages: Stages, tmp_path: Path) -> None:
    kinds = [{"kind": "int8_dynamic"}, {"kind": "int8_dynamic", "per_channel": False}]
    found = run(stages, tmp_path / "out", compressors=kinds)
    assert [variant.name for variant in found.manifest.variants] == ["fp32", "int8_dynamic", "int8_dynamic-2"]
    assert found.manifest.variant("int8_dynamic").sha256 != found.manifest.variant("int8_dynamic-2").sha256


def test_an_unknown_compressor_is_told_with_its_place(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^compression\.compressors\.0\.kind: unknown compressor 'int8_dynamik'; did you mean"):
        run(stages, tmp_path / "out", compressors=[{"kind": "int8_dynamik"}])


def test_a_limit_that_nothing_keeps_stops_the_run_with_all_that_was_found(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(
        InfeasibleError, match=r"^infeasible; .* misses median ms for one row by [\d.]+% \([\d.e-]+, the limit is 1e-09\)"
    ) as caught:
        run(stages, tmp_path / "out", limits={"latency_ms": 1e-9})
    assert caught.value.do == "widen the limit in the recipe's compression.limits, or add a compressor"
    assert [each.name for each in caught.value.picture.candidates] == ["fp32", "int8_dynamic", "int8_static"]
    assert all(each.misses for each in caught.value.picture.candidates)
    assert not (tmp_path / "out" / BUNDLE / "bundle.json").exists()


def test_a_size_limit_leaves_fp32_out(stages: Stages, tmp_path: Path) -> None:
    wide = Stages.run(tmp_path / "wide", model={"hidden": [256]}, compression={"limits": {"size_ratio": 0.9, "metric_drop": 1.0}})
    fp32 = wide.compression.candidates[0]
    assert list(map(str, fp32.misses)) == ["size beside fp32 1 is over 0.9"]
    assert wide.compression.chosen != "fp32"


SMALL = candidate("small", bytes=10, latency_ms=3.0, rows_per_second=100.0)
LIGHT = candidate("light", bytes=60, memory_mb=3.0, latency_ms=3.0, rows_per_second=100.0)
QUICK = candidate("quick", bytes=50, latency_ms=0.5, rows_per_second=900.0)
WIDE = candidate("wide", bytes=90, latency_ms=2.0, rows_per_second=5000.0)

ALL = (SMALL, LIGHT, QUICK, WIDE)


@pytest.mark.parametrize(("objective", "chosen"), [("size", "small"), ("memory", "light"), ("latency", "quick"), ("throughput", "wide")])
def test_the_objective_decides_among_those_within_the_limits(objective: Objective, chosen: str) -> None:
    lost = Miss(what="validation accuracy drop", value=0.5, limit=0.01)
    best_of_all = candidate("over", bytes=1, memory_mb=0.1, latency_ms=0.1, rows_per_second=1e6, misses=(lost,))
    assert choose(objective, (best_of_all, *ALL)) == next(each for each in ALL if each.name == chosen)


@pytest.mark.parametrize("objective", ["size", "memory", "latency", "throughput"])
def test_between_equals_the_first_is_chosen(objective: Objective) -> None:
    assert choose(objective, (candidate("fp32"), candidate("other"))) == candidate("fp32")


def miss(what: str, value: float, limit: float) -> Miss:
    return Miss(what=what, value=value, limit=limit)


def test_where_none_is_within_the_limits_the_nearest_by_its_largest_miss_is_named_with_how_far_it_is() -> None:
    far = candidate("far", misses=(miss("median ms for one row", 9, 5),))
    near = candidate("near", misses=(miss("size beside fp32", 0.6, 0.5), miss("median ms for one row", 7, 5)))
    assert choose("size", (far, near)) is None
    assert nearest((far, near)) == (
        "the nearest is near, which misses size beside fp32 by 20.00% (0.6, the limit is 0.5), "
        "and median ms for one row by 40.00% (7, the limit is 5)"
    )


def test_beyond_a_limit_of_0_the_nearest_is_the_one_with_the_smallest_value() -> None:
    far, near = (candidate(name, misses=(miss("validation accuracy drop", value, 0),)) for name, value in (("far", 0.2), ("near", 0.02)))
    assert nearest((far, near)) == "the nearest is near, which misses validation accuracy drop by 0.02 (0.02, the limit is 0)"


def test_a_memory_limit_that_nothing_keeps_stops_the_run(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError, match=r"misses MB of memory by [\d.]+% \([\d.]+, the limit is 1e-06\)"):
        run(stages, tmp_path / "out", compressors=[], limits={"memory_mb": 1e-6})


@pytest.mark.parametrize(
    ("compression", "says"),
    [
        ({"limits": {"memory_mb": 0}}, r"^compression\.limits\.memory_mb: 0 is too small: it must be above 0$"),
        ({"limits": {"size_ratio": 0}}, r"^compression\.limits\.size_ratio: 0 is too small: it must be above 0$"),
        ({"limits": {"latency_ms": -1}}, r"^compression\.limits\.latency_ms: -1 is too small: it must be above 0$"),
        ({"limits": {"metric_drop": -0.1}}, r"^compression\.limits\.metric_drop: -0\.1 is too small: the least allowed is 0$"),
        (
            {"compressors": [], "limits": {"size_ratio": 0.5}},
            r"compression: .*there is only fp32, whose size_ratio is 1, over the limit of 0\.5",
        ),
    ],
)
def test_limits_that_nothing_could_keep_are_refused_when_they_are_read(compression: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        recipe(compression=compression)


def test_what_only_the_fallback_could_keep_is_not_refused() -> None:
    assert recipe(compression={"compressors": [], "fallback": [{"kind": "prune"}], "limits": {"size_ratio": 0.5}})


def test_fp32_alone_may_be_allowed_to_be_larger() -> None:
    assert recipe(compression={"compressors": [], "limits": {"size_ratio": 1.5}}).compression.limits.size_ratio == 1.5
