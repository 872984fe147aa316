"""Where variants are made and asked: each once, whatever the limits are and however often they change."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, get_args

from onnxruntime.quantization.shape_inference import quant_pre_process

from tasks.compression import Subject, weights_beside
from tasks.compression.chain import Chain
from tasks.compression.invariance import check_invariance
from tasks.compression.measure import requests
from tasks.compression.memory import session_memory
from tasks.core.bound import Session
from tasks.core.bundle import Batch, Invariance, Manifest, Parallel
from tasks.core.dataset import SplitName
from tasks.core.errors import MaasflowError
from tasks.core.file_digests import sha256
from tasks.core.machine import device_for, usable_cores
from tasks.core.predictor import open_session, rows_alone, run_session
from tasks.core.scoring import Scores, load_scores, score_split
from tasks.core.stages import StageResult, StageStore, code_key, content_key

ROWS: Final = 32
"""In the requests that throughput and memory are measured with."""
_MEASURED: Final[tuple[SplitName, ...]] = ("validation", "test")
_STAGE: Final = "variant"


class _Written(StageResult):
    """A file."""


class _Asked(StageResult):
    """What a variant answered, beside the answers themselves."""

    invariance: Invariance
    memory_mb: float


@dataclass(frozen=True)
class Made:
    """A variant, run as it will be served."""

    path: Path
    batch: Batch
    scores: dict[SplitName, Scores]
    invariance: Invariance
    memory_mb: float
    parallel: Parallel | None = None
    """What its threads share, where that is settled already."""


@dataclass(frozen=True)
class Workshop:
    """Makes the variants of one model. What is done lies in the store under the digest of all that it came from."""

    subject: Subject
    manifest: Manifest
    fp32: Path
    store: StageStore

    def make(self, chain: Chain | None) -> Made:
        """A chain's variant, or fp32, with an answer for every row. Raises MaasflowError, or whatever a compressor raises."""
        path = self.written(chain) if chain else self.fp32
        serving, bins = self.subject.recipe.serving, self.subject.recipe.evaluation.calibration_bins
        key = content_key(self._key(chain), serving.threads, device_for(serving.device), bins)
        done = self.store.run("answers", key, _Asked, lambda out: self._ask(chain.name if chain else "fp32", path, out))
        scores = {split: load_scores(done.folder / f"{split}.npz") for split in _MEASURED}
        return Made(path, done.result.invariance.batch, scores, done.result.invariance, done.result.memory_mb)

    def open(self, path: Path, parallel: Parallel = "ops") -> Session:
        """A session of a variant's file, as the server opens it."""
        serving = self.subject.recipe.serving
        return open_session(path, serving.threads, serving.device, self.manifest.inputs, parallel)

    def sessions(self, path: Path, parallel: Parallel | None) -> dict[Parallel, Session]:
        """A variant's file in the way that is given, or in each that may be the fastest."""
        serving = self.subject.recipe.serving
        if parallel is None and device_for(serving.device) == "cpu" and (serving.threads or usable_cores()) > 1:
            return {way: self.open(path, way) for way in get_args(Parallel)}
        way: Parallel = parallel or "ops"
        return {way: self.open(path, way)}

    def written(self, chain: Chain) -> Path:
        """The file that a chain's steps make, each from what the one before it left."""
        if not chain.steps:
            return self._prepared

        def work(out: Path) -> _Written:
            source = self.written(Chain(chain.name, chain.steps[:-1]))
            chain.steps[-1].compressor.compress(source, out / self._file(chain), self.subject)
            return _Written()

        return self.store.run(_STAGE, self._key(chain), _Written, work).folder / self._file(chain)

    def _file(self, chain: Chain) -> str:
        # Weights beside a model are found by the name of its file.
        return f"{chain.name if self._apart else 'model'}.onnx"

    def _key(self, chain: Chain | None) -> str:
        steps = [(step.kind, step.compressor) for step in chain.steps] if chain else []
        return content_key("variant", self._model, self._file(chain) if chain else "", steps)

    @cached_property
    def _model(self) -> str:
        return content_key(code_key(), sha256(self.fp32), self.subject.machine, self.subject.recipe.training, self.subject.recipe.model)

    @property
    def _apart(self) -> bool:
        return weights_beside(self.fp32).is_file()

    @cached_property
    def _prepared(self) -> Path:
        def work(out: Path) -> _Written:
            prepare_model(self.fp32, out / "prepared.onnx")
            return _Written()

        return self.store.run(_STAGE, content_key("prepared", self._model), _Written, work).folder / "prepared.onnx"

    def _ask(self, name: str, path: Path, out: Path) -> _Asked:
        found = self.ask(name, path)
        for split, scores in found.scores.items():
            scores.save(out / f"{split}.npz")
        return _Asked(invariance=found.invariance, memory_mb=found.memory_mb)

    def ask(self, name: str, path: Path, batch: Batch | None = None, parallel: Parallel | None = None) -> Made:
        """A variant on the validation and the test split, run as `batch` says or, without, as its rows turn out to allow.

        Raises MaasflowError where an answer is not finite.
        """
        recipe, encoded, state = self.subject.recipe, self.subject.encoded, self.manifest.state_inputs
        session = self.open(path)
        invariance = check_invariance(run_session(session), encoded.split("validation"), state)
        batch = batch or invariance.batch
        run = run_session(session, batch)
        scores = {split: score_split(run, encoded.split(split), state, recipe.evaluation.calibration_bins) for split in _MEASURED}
        for split, found in scores.items():
            if lost := found.unanswered:
                raise MaasflowError(f"{name} has no finite answer for {len(lost)} of {len(found)} {split} rows")
        request = requests(encoded.split("test"), state, ROWS)(0)
        calls = rows_alone(request) if batch == "one" else [request]
        memory = session_memory(path, recipe.serving.threads, calls, recipe.serving.device)
        return Made(path, batch, scores, invariance, memory, parallel)


def prepare_model(source: Path, target: Path) -> None:
    """Write a model with its shapes inferred and constants folded, which ONNX Runtime asks for before any quantisation."""
    apart = weights_beside(source).is_file()
    quant_pre_process(
        source,
        target,
        skip_symbolic_shape=True,
        # Beyond 2 GiB it would have to go through one protobuf message.
        skip_optimization=apart,
        save_as_external_data=apart,
        all_tensors_to_one_file=apart,
        external_data_location=weights_beside(target).name if apart else None,
    )
