"""What every compressor owes, over the whole catalog, on a net that was trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tasks.candidate import Candidate
from tasks.compress import SCORES, CompressResult, compress
from tasks.compression import COMPRESSORS, Compressor, Subject, calibration_batches
from tasks.compression.chain import chains
from tasks.core.bundle import Bundle
from tasks.core.config import Origin
from tasks.core.errors import ConfigError
from tasks.core.predictor import open_session, run_session
from tasks.core.scoring import class_logits, load_scores
from tasks.export import BUNDLE
from tests.tiny import Stages, recipe


@dataclass(frozen=True)
class Compressed:
    """Every compressor with its defaults on one trained net, wide enough to be made smaller."""

    stages: Stages

    @property
    def subject(self) -> Subject:
        return Subject(self.stages.recipe, self.stages.encoded)

    @property
    def bundle(self) -> Bundle:
        return Bundle.open(self.stages.folder("compressed") / BUNDLE)

    def candidate(self, name: str) -> Candidate:
        return next(candidate for candidate in self.stages.compression.candidates if candidate.name == name)


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    compressors = [SPECS.get(kind, {"kind": kind}) for kind in COMPRESSORS]
    sections: dict[str, Any] = {"model": {"hidden": [128, 128]}, "compression": {"compressors": compressors}}
    return Compressed(Stages.run(tmp_path_factory.mktemp("compressed") / "stages", **sections))


SPECS: dict[str, dict[str, Any]] = {"fp16": {"kind": "fp16", "storage": True}}
"""The form of a compressor that fits any machine, where its defaults do not."""
FROM_TRAINED = {"prune", "distill"}
"""They begin with the trained module, which is not at hand here."""
every_compressor = pytest.mark.parametrize("kind", [kind for kind in COMPRESSORS if kind not in FROM_TRAINED])


@every_compressor
def test_its_file_is_smaller_than_fp32s_and_loads(kind: str, compressed: Compressed) -> None:
    assert kind not in compressed.stages.compression.failed
    found, fp32 = (compressed.bundle.manifest.variant(name) for name in (kind, "fp32"))
    assert found.bytes < fp32.bytes
    assert [node.name for node in open_session(compressed.bundle.file(kind)).get_outputs()] == ["logits"]


@every_compressor
def test_it_agrees_with_fp32_on_almost_every_row(kind: str, compressed: Compressed) -> None:
    assert compressed.candidate(kind).agreement >= 0.95
    assert abs(compressed.candidate(kind).validation_drop) <= 0.05


@every_compressor
def test_it_takes_any_number_of_rows(kind: str, compressed: Compressed) -> None:
    session, test = open_session(compressed.bundle.file(kind)), compressed.stages.encoded.split("test")
    for rows in (1, 2, 7, 32, len(test)):
        (logits,) = session.run(["logits"], test.tensors(slice(rows)))
        assert logits.shape == (rows, 3)
        assert np.isfinite(logits).all()


@every_compressor
def test_one_row_alone_is_answered_as_among_others(kind: str, compressed: Compressed) -> None:
    session, test = open_session(compressed.bundle.file(kind)), compressed.stages.encoded.split("test")
    alone, together = (class_logits(run_session(session), test, size) for size in (1, 32))
    assert (alone.argmax(axis=1) == together.argmax(axis=1)).mean() >= 0.95
    if kind in ("int8_static", "int8_rows"):
        # Up to the order of sums in what stays in fp32.
        np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-4)


@every_compressor
def test_it_is_one_file_with_no_code_and_nothing_beside_it(kind: str, compressed: Compressed) -> None:
    folder = compressed.bundle.folder
    assert sorted(path.name for path in (folder / "variants").iterdir()) == sorted(
        f"{name}.onnx" for name in ("fp32", *COMPRESSORS) if name not in FROM_TRAINED
    )
    model = onnx.load(compressed.bundle.file(kind), load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx", "com.microsoft"}


@every_compressor
def test_the_same_input_gives_the_same_file(kind: str, compressed: Compressed, tmp_path: Path) -> None:
    for name in ("one", "other"):
        COMPRESSORS.build(SPECS.get(kind, {"kind": kind})).compress(compressed.bundle.file("fp32"), tmp_path / name, compressed.subject)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@every_compressor
def test_it_leaves_its_source_alone(kind: str, compressed: Compressed, tmp_path: Path) -> None:
    source = compressed.bundle.file("fp32")
    before = source.read_bytes()
    COMPRESSORS.build(SPECS.get(kind, {"kind": kind})).compress(source, tmp_path / "made.onnx", compressed.subject)
    assert source.read_bytes() == before


@every_compressor
def test_an_unknown_option_is_told_with_the_known_ones(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"compressors\.0\.nonsense: unknown key 'nonsense'"):
        COMPRESSORS.build({"kind": kind, "nonsense": 1}, Origin().below("compressors", 0))


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_static_int8_calibrates_in_every_way(method: str, compressed: Compressed, tmp_path: Path) -> None:
    made = COMPRESSORS.build({"kind": "int8_static", "method": method, "rows": 64})
    made.compress(compressed.bundle.file("fp32"), tmp_path / "made.onnx", compressed.subject)
    found = class_logits(run_session(open_session(tmp_path / "made.onnx")), compressed.stages.encoded.split("test"))
    fp32 = load_scores(compressed.stages.folder("compressed") / SCORES / "fp32.npz")
    assert (found.argmax(axis=1) == fp32.predicted).mean() > 0.9


def test_calibration_rows_are_spread_over_the_whole_split(stages: Stages) -> None:
    train = stages.encoded.split("train")
    for count in (8, 200, 299, 300, 1000):
        found = np.concatenate([batch["x"] for batch in calibration_batches(train, count)])
        assert len(found) == min(count, len(train))
        np.testing.assert_array_equal(found[[0, -1]], train.tensors([0, len(train) - 1])["x"])


class Broken(Compressor):
    """Fails as it is told to."""

    how: str

    def compress(self, source: Path, target: Path, subject: Subject) -> None:
        match self.how:
            case "raises":
                target.write_bytes(b"half")
                raise ValueError("no such operator\nand much more")
            case "writes nonsense":
                target.write_bytes(b"nonsense")
            case "loses its numbers":
                model = onnx.load(source)
                for tensor in model.graph.initializer:
                    values = onnx.numpy_helper.to_array(tensor)
                    if values.dtype == np.float32:
                        tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
                onnx.save(model, target)
            case "fills the disk":
                raise OSError(28, "No space left on device", str(target))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressor `broken` in the catalog."""
    import tasks.compression as package  # noqa: PLC0415 - to put it where a catalog's line may point

    monkeypatch.setattr(package, "Broken", Broken, raising=False)
    monkeypatch.setitem(COMPRESSORS._entries, "broken", "tasks.compression:Broken")


def compressed_with(stages: Stages, out: Path, how: str) -> CompressResult:
    out.mkdir()
    wanted = recipe(compression={"compressors": [{"kind": "broken", "how": how}, {"kind": "int8_dynamic"}]})
    return compress(wanted, stages.encoded, stages.folder("exported"), out)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("raises", "ValueError: no such operator"),
        ("writes nonsense", "BundleError: ONNX Runtime cannot load "),
        ("writes nothing", "BundleError: ONNX Runtime cannot load "),
        ("loses its numbers", "MaasflowError: broken has no finite answer for 80 of 80 validation rows"),
    ],
)
def test_a_compressor_that_fails_is_named_and_leaves_the_others(how: str, why: str, stages: Stages, tmp_path: Path) -> None:
    found = compressed_with(stages, tmp_path / "out", how)
    assert [candidate.name for candidate in found.candidates] == ["fp32", "int8_dynamic"]
    assert list(found.failed) == ["broken"]
    assert found.failed["broken"].startswith(why)
    assert sorted(path.name for path in (tmp_path / "out" / BUNDLE / "variants").iterdir()) == ["fp32.onnx", "int8_dynamic.onnx"]


@pytest.mark.usefixtures("broken")
def test_a_full_disk_is_not_the_compressors_failure(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        compressed_with(stages, tmp_path / "out", "fills the disk")


def test_a_chain_makes_one_variant_and_leaves_no_step_behind(stages: Stages, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    chain = [{"kind": "int8_dynamic"}, {"kind": "int8_dynamic"}]
    found = compress(recipe(compression={"compressors": [chain, *chain]}), stages.encoded, stages.folder("exported"), out)
    assert [candidate.name for candidate in found.candidates] == ["fp32", "int8_dynamic.int8_dynamic", "int8_dynamic", "int8_dynamic-2"]
    assert sorted(path.stem for path in (out / BUNDLE / "variants").iterdir()) == sorted(each.name for each in found.candidates)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([], r"^compression\.compressors\.0: the list is empty"),
        ([{"kind": "int8_dynamic"}, {"kind": "int9"}], r"^compression\.compressors\.0\.1\.kind: unknown compressor 'int9'"),
    ],
)
def test_a_chain_that_cannot_be_is_told_with_its_place(chain: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chains(recipe(compression={"compressors": [chain]}))


def test_what_does_not_fit_is_listed_with_the_reason(tmp_path: Path) -> None:
    model: dict[str, Any] = {"family": "lstm_lm", "hidden": 8, "embedding": 4}
    sections: dict[str, Any] = {"compression": {"compressors": [{"kind": "int8_static"}]}, "training": {"batch_size": 8, "window": 16}}
    found = Stages.run(tmp_path / "running", "running", model=model, **sections)
    assert found.compression.failed == {"int8_static": "not applicable here: it cannot be calibrated on a language model's state"}
