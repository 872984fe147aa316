"""A bundle's variant in ONNX Runtime: from raw inputs to labels and probabilities."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tasks.core.bound import Session
from tasks.core.bundle import Batch, Bundle, Parallel
from tasks.core.cuda import PROVIDER as CUDA
from tasks.core.cuda import open_cuda
from tasks.core.errors import BundleError, InputError
from tasks.core.lanes import Lanes
from tasks.core.language import Run
from tasks.core.machine import Device, Place, Runtime, device_for, this_machine, usable_cores
from tasks.core.transforms import Tensors, TensorSpec

_CPU: Final = "CPUExecutionProvider"
_TOKENS: Final = 2**14
"""The most tokens in one call: attention takes memory for each pair of a row's, and would take all there is for many rows."""


@dataclass(frozen=True)
class Prediction:
    """The most probable label, and the probability of every label."""

    label: str
    probabilities: dict[str, float]


class Predictor:
    """One variant, loaded. Safe to call from several threads."""

    def __init__(self, bundle: Bundle, variant: str | None = None, threads: int | None = None) -> None:
        self.manifest = bundle.manifest
        self.variant = bundle.manifest.variant(variant)
        threads = threads if threads is not None else self.manifest.threads
        device, inputs = self.manifest.device, self.manifest.inputs
        self.session = open_session(bundle.file(variant), threads, device, inputs, self.variant.parallel)
        self.dynamic = any(-1 in spec.shape for spec in bundle.manifest.inputs)
        """Whether the sizes of its inputs, beside the number of rows, differ from call to call."""
        self._check()

    def predict(self, instances: Sequence[Any]) -> list[Prediction]:
        """One prediction for each raw instance. Raises InputError."""
        return self.predictions(self.logits(self.tensors(instances))) if instances else []

    def tensors(self, instances: Sequence[Any]) -> Tensors:
        """The model's input tensors for at least one raw instance. Raises InputError."""
        if not self.manifest.labels:
            raise InputError(f"the model '{self.manifest.name}' continues texts, it has no labels to predict")
        transform = self.manifest.transform
        return transform.tensors(transform.encode(transform.columns(instances)))

    def predictions(self, logits: npt.NDArray[np.float32]) -> list[Prediction]:
        """One for each row of [batch, labels]. Raises InputError for one that the model has no finite answer for."""
        if not np.isfinite(logits).all():
            raise InputError(f"item {unanswered(logits)[0]}: the model has no finite answer for it")
        labels = self.manifest.labels
        best, rows = logits.argmax(axis=1).tolist(), probabilities(logits).tolist()
        return [Prediction(labels[label], dict(zip(labels, row, strict=True))) for label, row in zip(best, rows, strict=True)]

    def logits(self, tensors: Tensors) -> npt.NDArray[np.float32]:
        """float32 [batch, labels] for the model's input tensors."""
        (logits,) = self.run(["logits"], tensors)
        return logits

    def run(self, names: list[str], tensors: Tensors, *, spread: bool = True) -> list[npt.NDArray[Any]]:
        """The named outputs, each [batch, …], for the model's input tensors.

        Many long rows are run in parts, and each alone where the variant takes no others beside it. Not `spread`, all of them are run by
        the thread that asks, where the variant's threads would each take some: for who asks in several threads at once.
        """
        session = self.session if spread or not isinstance(self.session, Lanes) else self.session.session
        if self.variant.batch == "one":
            return run_alone(session, names, tensors)
        if self.dynamic:
            first = next(iter(tensors.values()))
            rows = max(1, _TOKENS // first[0].size)
            if len(first) > rows:
                return _run_in_parts(session, names, tensors, rows)
        return session.run(names, tensors)

    def _check(self) -> None:
        """Raises BundleError unless the model takes and gives what the manifest says."""
        found = [" and ".join(sorted(node.name for node in nodes)) for nodes in (self.session.get_inputs(), self.session.get_outputs())]
        said = [" and ".join(sorted(spec.name for spec in specs)) for specs in (self.manifest.inputs, self.manifest.outputs)]
        if found != said:
            raise BundleError(
                f"bundle '{self.manifest.name}': {self.variant.file} takes {found[0]} and gives {found[1]}, "
                f"its manifest says {said[0]} and {said[1]}",
                "export the model again",
            )


def open_session(
    path: Path, threads: int = 0, device: Device = "cpu", inputs: Sequence[TensorSpec] = (), parallel: Parallel = "ops"
) -> Session:
    """An ONNX Runtime session. On a CUDA device the model's `inputs`, where given, say how calls are padded to few sizes.

    `parallel` is what its threads share on the CPU: the rows of a call, or each operation.

    Raises BundleError for a file that ONNX Runtime rejects, and MaasflowError where the session does not get the device.
    """
    # Read once, at the first import, at which ONNX Runtime would otherwise write a device id and report home.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort  # noqa: PLC0415 - after the line above

    options = ort.SessionOptions()
    threads = threads or usable_cores()
    lanes = threads if parallel == "rows" and device_for(device) == "cpu" else 1
    options.intra_op_num_threads = threads if lanes == 1 else 1
    options.inter_op_num_threads = 1
    # Threads that spin between calls take the cores from everything else on the machine; that sleep within one cost it a third of its speed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    if device_for(device) == "cuda":
        return open_cuda(path, options, inputs)
    try:
        session: Session = ort.InferenceSession(str(path), options, providers=[_CPU])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise BundleError(f"ONNX Runtime cannot load {path}: {why}", "export the model again") from error
    return Lanes(session, lanes) if lanes > 1 else session


def runtime_of(session: Session) -> Runtime:
    """What runs the session, by its own word."""
    import onnxruntime as ort  # noqa: PLC0415 - imported with the session already

    return Runtime(
        threads=session.count if isinstance(session, Lanes) else session.get_session_options().intra_op_num_threads,
        provider=session.get_providers()[0],
        onnxruntime=ort.__version__,
    )


def this_place(threads: int = 0, device: Device = "cpu") -> Place:
    """This machine, and what would run a model on it: where the figures of a session that `open_session` makes are from."""
    # Read once, at the first import, as above.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort  # noqa: PLC0415 - after the line above

    provider = CUDA if device_for(device) == "cuda" else _CPU
    runtime = Runtime(threads=threads or usable_cores(), provider=provider, onnxruntime=ort.__version__)
    return Place(machine=this_machine(), runtime=runtime)


def run_session(session: Session, batch: Batch = "any") -> Run:
    """The session as a function of its inputs: all outputs by name, each row run alone where `batch` says so."""
    names = [node.name for node in session.get_outputs()]

    def run(inputs: Tensors) -> Tensors:
        return dict(zip(names, session.run(names, inputs), strict=True))

    def each(inputs: Tensors) -> Tensors:
        return dict(zip(names, run_alone(session, names, inputs), strict=True))

    return run if batch == "any" else each


def run_alone(session: Session, names: list[str], tensors: Tensors) -> list[npt.NDArray[Any]]:
    """The named outputs, each [batch, …], every row run in a call of its own."""
    rows = rows_alone(tensors)
    return _joined(session.map(names, rows) if isinstance(session, Lanes) else (session.run(names, row) for row in rows))


def _run_in_parts(session: Session, names: list[str], tensors: Tensors, rows: int) -> list[npt.NDArray[Any]]:
    total = len(next(iter(tensors.values())))
    return _joined(
        session.run(names, {name: values[start : start + rows] for name, values in tensors.items()}) for start in range(0, total, rows)
    )


def rows_alone(tensors: Tensors) -> Iterator[Tensors]:
    """Each row as a call of its own, and a text without the padding after its last token."""
    mask = tensors.get("attention_mask")
    for row in range(len(next(iter(tensors.values())))):
        alone = {name: values[row : row + 1] for name, values in tensors.items()}
        if mask is not None:
            # A text with no token at all keeps one place, as it has when it is sent alone.
            length = int(np.flatnonzero(mask[row])[-1:].sum()) + 1
            alone = {name: values[:, :length] if values.shape[1:] == mask.shape[1:] else values for name, values in alone.items()}
        yield alone


def _joined(calls: Iterable[list[npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
    """The outputs of several calls, each as one array."""
    return [np.concatenate(outputs) for outputs in zip(*calls, strict=True)]


def unanswered(logits: npt.NDArray[np.float32]) -> list[int]:
    """Rows that the model has no finite answer for."""
    rows: list[int] = np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist()
    return rows


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Softmax over the last axis, in float64 so that rows sum to 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponents = np.exp(shifted)
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
