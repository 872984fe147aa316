"""What every compressor owes, over families of every kind: to say that it makes no sense, or to make a file that holds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tasks.compression import COMPRESSORS, Subject, remove_model
from tasks.core.bundle import Bundle
from tasks.core.language import first_state
from tasks.core.predictor import open_session, run_session
from tasks.core.scoring import Scores, score_split
from tasks.export import BUNDLE, largest_difference
from tasks.train import load
from tasks.workshop import prepare_model
from tests.tiny import Stages

FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mlp": ("table", {"hidden": [64, 64]}, {}),
    "text_pool": ("text", {"embedding": 48}, {"learning_rate": 0.02}),
    "bert": ("text", {"hidden": 32, "layers": 2, "heads": 2}, {"learning_rate": 3e-3, "epochs": 4}),
    "gpt2": ("text", {"hidden": 32, "layers": 2, "heads": 2}, {"learning_rate": 3e-3, "epochs": 4}),
    "resnet": ("image", {"stem": "small", "embedding": 8, "widths": [8, 16], "depths": [1, 1]}, {"learning_rate": 5e-3}),
    "lstm_lm": ("running", {"embedding": 16, "hidden": 32}, {"batch_size": 8, "window": 16, "epochs": 2}),
}
SPECS: dict[str, list[dict[str, Any]]] = {
    **{kind: [{"kind": kind, **({"smallest": 64} if kind.startswith("int") else {})}] for kind in COMPRESSORS},
    "fp16 in the file": [{"kind": "fp16", "storage": True}],
    "graph, then int8_rows": [{"kind": "graph"}, {"kind": "int8_rows", "smallest": 64}],
    "graph, then int8_static": [{"kind": "graph"}, {"kind": "int8_static", "smallest": 64}],
    "graph, then int8_dynamic": [{"kind": "graph"}, {"kind": "int8_dynamic", "smallest": 64}],
    "graph, then int8_weights": [{"kind": "graph"}, {"kind": "int8_weights", "smallest": 64}],
    "int4 tables, then int8_rows": [
        {"kind": "int4_weights", "products": False, "block": 16, "smallest": 64},
        {"kind": "int8_rows", "smallest": 64},
    ],
    "graph, then int4_weights": [{"kind": "graph"}, {"kind": "int4_weights", "smallest": 64}],
}
INVARIANT = ("graph", "fp16 in the file", "int8_rows", "int8_static", "int8_weights", "int4_weights", "int4 tables, then int8_rows")
"""A row's answer is the same in every batch."""


@dataclass
class Trained:
    """A trained net of a family, its file ready to be compressed, and what was made of it so far."""

    folder: Path
    stages: Stages
    made: dict[str, Path | str] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return self.folder / "prepared.onnx"

    @property
    def subject(self) -> Subject:
        return Subject(self.stages.recipe, self.stages.encoded)

    def compressed(self, name: str) -> Path:
        """The file that the compressors make; the test is skipped where they say why they make none."""
        if name not in self.made:
            self.made[name] = self.make(name, self.folder / f"{len(self.made)}.onnx")
        found = self.made[name]
        if isinstance(found, str):
            pytest.skip(found)
        return found

    def make(self, name: str, target: Path) -> Path | str:
        source = self.source
        for number, spec in enumerate(SPECS[name]):
            step = target if number == len(SPECS[name]) - 1 else target.with_suffix(".step")
            compressor = COMPRESSORS.build(spec)
            if reason := compressor.unfit(self.subject):
                return reason
            compressor.compress(source, step, self.subject)
            source = step
        return target

    def scores(self, path: Path) -> Scores:
        state = Bundle.open(self.stages.folder("exported") / BUNDLE).manifest.state_inputs
        return score_split(run_session(open_session(path, 1)), self.stages.encoded.split("test"), state)


@pytest.fixture(scope="session", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    kind, model, training = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    sections: dict[str, Any] = {"model": {"family": request.param, **model}, "training": training, "compression": {"compressors": []}}
    found = Trained(folder, Stages.run(folder / "stages", kind, **sections))
    prepare_model(Bundle.open(found.stages.folder("exported") / BUNDLE).file(), found.source)
    return found


every = pytest.mark.parametrize("name", SPECS)


@every
def test_it_agrees_with_fp32(name: str, trained: Trained) -> None:
    found, exact = (trained.scores(path) for path in (trained.compressed(name), trained.source))
    assert not len(found.unanswered)
    assert (found.predicted == exact.predicted).mean() >= 0.95


@every
def test_its_file_is_smaller(name: str, trained: Trained) -> None:
    exported = Bundle.open(trained.stages.folder("exported") / BUNDLE).file()
    assert trained.compressed(name).stat().st_size < exported.stat().st_size


@every
def test_it_takes_any_batch(name: str, trained: Trained) -> None:
    session, split = open_session(trained.compressed(name), 1), trained.stages.encoded.split("test")
    state = Bundle.open(trained.stages.folder("exported") / BUNDLE).manifest.state_inputs
    for rows in (1, 2, 7):
        for length in (1, 9) if state else (0,):
            ids = np.asarray(split.tokens[: rows * length], np.int64).reshape(rows, length) if state else None
            inputs = split.tensors(slice(rows)) if ids is None else {"input_ids": ids, **first_state(state, rows)}
            outputs = run_session(session)(inputs)
            assert outputs["logits"].shape[0] == rows
            assert all(np.isfinite(values).all() for values in outputs.values())


@pytest.mark.parametrize("name", INVARIANT)
def test_a_row_is_answered_alone_as_among_others(name: str, trained: Trained) -> None:
    split = trained.stages.encoded.split("test")
    if trained.subject.task == "language_modelling":
        pytest.skip("a running text has no rows")
    run = run_session(open_session(trained.compressed(name), 1))
    together = run(split.tensors(slice(24)))["logits"]
    alone = np.concatenate([run(split.tensors([row]))["logits"] for row in range(24)])
    # Up to the order of sums in fp32, which one step of a code may come of.
    np.testing.assert_allclose(alone, together, atol=0.02 * np.abs(together).max() if name.startswith("int") else 1e-4)


@every
def test_it_makes_the_same_file_again_and_leaves_its_source_alone(name: str, trained: Trained, tmp_path: Path) -> None:
    first, before = trained.compressed(name), trained.source.read_bytes()
    trained.make(name, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == first.read_bytes()
    assert trained.source.read_bytes() == before
    remove_model(tmp_path / "again.onnx")


@every
def test_its_graph_is_valid(name: str, trained: Trained) -> None:
    model = onnx.load(trained.compressed(name))
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx", "com.microsoft"}
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_optimised_graph_computes_the_same(trained: Trained) -> None:
    bundle = Bundle.open(trained.stages.folder("exported") / BUNDLE)
    family, module = load(trained.stages.recipe, trained.stages.encoded, len(bundle.manifest.labels), trained.stages.folder("trained"))
    assert largest_difference(family, module, trained.stages.encoded.split("test"), trained.compressed("graph")) < 1e-4
