"""Register: a version that a reviewer can judge, once, whatever kills the run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from tasks.core.bundle import Bundle, TrainedWeights
from tasks.core.errors import GateError
from tasks.core.file_digests import sha256
from tasks.core.git import Commit
from tasks.core.machine import this_machine
from tasks.core.signature import SETTING, Trust, create_signing_key
from tasks.gate import GateResult, gate
from tasks.register import RegisterResult, register
from tasks.tracking import BUNDLE_PATH, CHALLENGER, CONTENT, KEY, TRAFFIC, Run, Tracking
from tasks.training.loop import WEIGHTS
from tests.releases import stored
from tests.tiny import TABLE, Stages, recipe

COMMIT = Commit("c0ffee", dirty=False)


def gates(stages: Stages, *, minimum: float = 0.5, champion: str | None = None) -> GateResult:
    wanted = recipe(gates=[{"kind": "metric_floor", "minimum": minimum}, {"kind": "parity"}])
    found = gate(wanted, TABLE, stages.folder("prepared"), stages.folder("compressed"), None)
    return found.model_copy(update={"champion": champion})


Register = Callable[..., RegisterResult]


@pytest.fixture
def do(tracking: Tracking, stages: Stages, tmp_path: Path) -> Register:
    """Register the stages' bundle for the run with this key."""

    def again(key: str = "k", commit: Commit = COMMIT, judged: GateResult | None = None, **sections: Any) -> RegisterResult:
        return register(
            recipe(**sections),
            key,
            run_of(tracking, key),
            commit,
            stages.folder("compressed"),
            (stages.compression, judged or gates(stages)),
            tmp_path / "releases" / key,
        )

    return again


def test_a_release_is_signed_where_a_key_is_configured(
    do: Register, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, str(tmp_path / "key"))
    trust = Trust.read(create_signing_key(tmp_path / "key"))
    made = do()
    bundle = stored(tracking, tracking.version(made.name, made.version))
    assert Bundle.open(bundle, trust=trust).manifest.name == "points"


def run_of(tracking: Tracking, key: str = "k") -> Run:
    return tracking.run("points", "points", key)


def test_the_bundle_becomes_a_version_and_challenger(do: Register, tracking: Tracking, stages: Stages, tmp_path: Path) -> None:
    found = do()
    assert (found.name, found.version, found.run) == ("points", "1", run_of(tracking).id)
    release = tracking.version("points", "1")
    assert release.aliases == (CHALLENGER,)
    bundle = Bundle.open(stored(tracking, release))
    assert bundle.manifest.variants == Bundle.open(stages.folder("compressed") / "bundle").manifest.variants
    assert list((tmp_path / "releases").iterdir()) == []


def test_the_bundle_says_where_it_comes_from(do: Register, tracking: Tracking) -> None:
    found = do(commit=Commit("c0ffee", dirty=True), description="Points in the plane.")
    manifest = Bundle.open(stored(tracking, tracking.version("points", found.version))).manifest
    assert (manifest.lineage.git_commit, manifest.lineage.git_dirty) == ("c0ffee", True)
    assert manifest.lineage.mlflow_run == found.run
    assert manifest.lineage.dataset.name == "points"
    assert manifest.lineage.created
    assert {"torch", "onnx", "numpy"} <= set(manifest.lineage.versions)
    assert manifest.recipe == json.loads(recipe(description="Points in the plane.").model_dump_json())


def test_the_trained_weights_lie_beside_the_bundle_once_with_their_digest(tracking: Tracking, stages: Stages, tmp_path: Path) -> None:
    def do(key: str, compressed: Path) -> TrainedWeights | None:
        found = (stages.compression, gates(stages))
        trained = stages.folder("trained")
        made = register(recipe(), key, run_of(tracking, key), COMMIT, compressed, found, tmp_path / "out", trained=trained)
        bundle = Bundle.open(stored(tracking, tracking.version("points", made.version)))
        shutil.copytree(bundle.folder, tmp_path / key / BUNDLE_PATH)
        return bundle.manifest.lineage.weights

    weights = do("k", stages.folder("compressed"))
    file = stages.folder("trained") / WEIGHTS
    assert weights == TrainedWeights(run=run_of(tracking).id, file="trained/model.safetensors", sha256=sha256(file))
    fetched = tracking.fetch_artifact(weights.run, weights.file, tmp_path / "fetched")
    assert fetched.read_bytes() == file.read_bytes()
    # One that is made of that release's bundle names the weights that are there already.
    assert do("again", tmp_path / "k") == weights
    assert [item.path for item in tracking.client.list_artifacts(run_of(tracking, "again").id)] == [BUNDLE_PATH]


def test_its_tags_are_what_a_reviewer_needs(do: Register, tracking: Tracking, stages: Stages) -> None:
    do(judged=gates(stages, champion="7"))
    choice, machine = stages.compression.choice, this_machine()
    assert tracking.version("points", "1").tags == {
        KEY: "k",
        CONTENT: sha256(stored(tracking, tracking.version("points", "1")) / "bundle.json"),
        "dataset": "points",
        "dataset_digest": "1" * 32,
        "git_commit": "c0ffee",
        "variant": choice.name,
        "batch": choice.batch,
        "variant_sha256": Bundle.open(stages.folder("compressed") / "bundle").manifest.variant().sha256,
        "test_accuracy": f"{choice.test:.4f}",
        "test_accuracy_fp32": f"{stages.evaluation.metrics['accuracy'].value:.4f}",
        "size_kb": f"{choice.bytes / 1e3:.1f} ({choice.size_ratio:.2f} of fp32)",
        "latency_ms": f"{choice.latency_ms:.3f}",
        "memory_mb": f"{choice.memory_mb:.1f}",
        "machine": f"{machine.processor}, {machine.cores} cores, 1 used by ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider",
        "gates": "metric_floor ok, parity ok",
        "compared_with": "version 7",
        "approval": "review",
        TRAFFIC: "none",
    }


def test_its_description_is_the_recipes_and_the_gates_table(do: Register, tracking: Tracking, stages: Stages) -> None:
    judged = gates(stages)
    do(judged=judged, description="Points in the plane.")
    assert tracking.client.get_model_version("points", "1").description == f"Points in the plane.\n\n{judged.markdown()}"


def test_a_description_beyond_mlflows_tables_is_cut(do: Register, tracking: Tracking) -> None:
    do(description="x" * 9000)
    assert len(tracking.client.get_model_version("points", "1").description or "") == 5000


@pytest.mark.parametrize(
    ("commit", "said"),
    [(Commit(None, dirty=False), "none"), (Commit("c0ffee", dirty=True), "c0ffee (with uncommitted changes)")],
)
def test_the_commit_is_told_as_it_is(commit: Commit, said: str, do: Register, tracking: Tracking) -> None:
    do(commit=commit)
    assert tracking.version("points", "1").tags["git_commit"] == said


def test_a_failed_gate_registers_nothing(do: Register, tracking: Tracking, stages: Stages) -> None:
    with pytest.raises(GateError, match="1 of 2 gates failed"):
        do(judged=gates(stages, minimum=1.0))
    assert tracking.client.search_registered_models() == []
    assert tracking.client.list_artifacts(run_of(tracking).id) == []


def test_another_run_is_another_version_and_the_challenger_moves(do: Register, tracking: Tracking) -> None:
    assert [do().version, do("l").version] == ["1", "2"]
    assert [tracking.version("points", version).aliases for version in ("1", "2")] == [(), (CHALLENGER,)]


class KilledError(Exception):
    """Stands for a kill at this call."""


@pytest.mark.parametrize("at", ["log_artifacts", "create_registered_model", "create_model_version", "set_registered_model_alias"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_anywhere_the_next_run_makes_the_one_version(
    at: str, moment: str, do: Register, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(tracking.client, at)

    def kill(*args: Any, **kwargs: Any) -> None:
        if moment == "after":
            real(*args, **kwargs)
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(tracking.client, at, kill)
        with pytest.raises(KilledError):
            do()
    assert do().version == "1"
    assert len(tracking.client.search_model_versions("name = 'points'")) == 1
    release = tracking.version("points", "1")
    assert release.aliases == (CHALLENGER,)
    assert release.tags[KEY] == "k"
    Bundle.open(stored(tracking, release))
    assert [item.path for item in tracking.client.list_artifacts(release.run)] == [BUNDLE_PATH]


def test_the_figure_names_the_version(do: Register) -> None:
    assert do().figure == "points version 1"
