"""The bundle: the directory that ships. Export writes it, compression adds variants, serving reads nothing else.

    bundle.json                the manifest below
    variants/<name>.onnx       and <name>.onnx.data where the weights are too large for one file
    tokenizer.json             for texts
    bundle.json.sig            its signature, where it was signed
    golden.json                a few rows with each variant's answers, see tasks/core/golden.py

No file in it is code, and none is unpickled. No other file lies in it: ONNX Runtime reads what a model names as its weights from
anywhere below the model's folder, and refuses what lies beside or above that, so that weights without a digest are loaded from nowhere.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from tasks.core.config import Config
from tasks.core.dataset import Column, Task
from tasks.core.errors import BundleError, ConfigError
from tasks.core.file_digests import sha256
from tasks.core.machine import Device, Machine, Place, Runtime
from tasks.core.metrics import Interval
from tasks.core.signature import SIGNATURE, Trust
from tasks.core.stages import write_text
from tasks.core.transforms import TensorSpec, Transform

FORMAT: Final = 1
MANIFEST: Final = "bundle.json"
GOLDEN: Final = "golden.json"

Batch = Literal["any", "one"]
"""The rows that a model may be given together: `one` where a row's answer depends on its neighbours, or on its padding."""

Parallel = Literal["ops", "rows"]
"""What the threads of a model share: each operation, or the rows of a call, of which each then has a thread of its own."""


class Latency(Config):
    """Milliseconds for one request with a given number of rows."""

    p50: float
    p99: float


class Invariance(Config):
    """How far a row's answer beside others, and padded longer, is from its answer alone."""

    rows: int
    """Validation rows that were asked about; of a language model, tokens."""
    changed: int
    """Rows with another label than alone."""
    difference: float
    """The largest of any probability."""
    tolerance: float
    """The most that the difference may be."""

    @property
    def holds(self) -> bool:
        return self.changed == 0 and self.difference <= self.tolerance

    @property
    def batch(self) -> Batch:
        """How such a model may be run."""
        return "any" if self.holds else "one"


class Measurements(Config):
    """What a variant reached on `machine`, run as it is served: one row at a time where its `batch` says so.

    Metrics by split and name; latencies by the rows of one request. What is None was not measured by the version that wrote it.
    """

    metrics: dict[str, dict[str, float]]
    test_difference: Interval | None = None
    """How much better than fp32 the headline metric is on the test split, by a paired bootstrap: positive is better."""
    agreement: float
    """Share of test rows with the same label as fp32."""
    invariance: Invariance | None = None
    latency_ms: dict[str, Latency]
    load_ms: float | None = None
    """Median to make a session of the file, which the disk's cache holds."""
    memory_mb: float | None = None
    """Memory, in 10⁶ bytes, that a session takes with a request of the most rows above: resident memory, or the CUDA device's."""
    machine: Machine
    runtime: Runtime | None = None

    @property
    def place(self) -> Place | None:
        """Where it was measured; None where only a part of that was written down."""
        return Place(machine=self.machine, runtime=self.runtime) if self.runtime else None


class Variant(Config):
    """One ONNX model."""

    name: str
    file: str
    sha256: str
    bytes: int
    """Of all of its files."""
    external: dict[str, str] = {}
    """Files beside it that hold weights, by their SHA-256."""
    batch: Batch = "any"
    parallel: Parallel = "ops"
    measurements: Measurements | None = None

    @property
    def place(self) -> Place | None:
        """Where it was measured, if that is known."""
        return self.measurements.place if self.measurements else None

    @property
    def files(self) -> dict[str, str]:
        """All of its files, by their SHA-256."""
        return {self.file: self.sha256, **self.external}


class DatasetVersion(Config):
    """Which data: the DVC digests of the raw and the prepared files, and rows by split."""

    name: str
    raw: str
    digest: str
    rows: dict[str, int]


class TrainedWeights(Config):
    """What a model was exported from, as safetensors among the artifacts of an MLflow run: serving needs none of it."""

    run: str
    file: str
    sha256: str


class Lineage(Config):
    """Where a bundle came from."""

    dataset: DatasetVersion
    git_commit: str | None = None
    git_dirty: bool = False
    mlflow_run: str | None = None
    parent: str | None = None
    """The release whose weights these are, where it was compressed anew: `NAME version N`."""
    weights: TrainedWeights | None = None
    """From which it can be pruned or distilled later, wherever that is done."""
    created: str = ""
    versions: dict[str, str] = {}


class Manifest(Config):
    """`bundle.json`."""

    format: Literal[1] = 1
    name: str
    task: Task = "classification"
    description: str = ""
    columns: dict[str, Column]
    """The raw input that a client sends."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: dict[str, str] = {}
    """What a language model carries from one call to the next: inputs, by the outputs that give their next values. They begin as zeros."""
    labels: tuple[str, ...]
    """The classes; a language model has none."""
    transform: Transform
    variants: tuple[Variant, ...]
    chosen: str
    threads: int = 0
    device: Device = "cpu"
    parity: float
    """The largest difference between torch's and fp32 ONNX's outputs over real test rows."""
    parity_place: Place | None = None
    """Where that was taken."""
    golden: str | None = None
    """SHA-256 of the file GOLDEN, where it has golden rows."""
    recipe: dict[str, Any]
    lineage: Lineage

    def variant(self, name: str | None = None) -> Variant:
        """The named variant, or the chosen one. Raises BundleError."""
        wanted = name or self.chosen
        found = next((variant for variant in self.variants if variant.name == wanted), None)
        if found is None:
            raise BundleError(f"bundle '{self.name}' has no variant '{wanted}'", f"it has {', '.join(v.name for v in self.variants)}")
        return found

    @property
    def files(self) -> dict[str, str]:
        """Every file of the bundle beside its manifest, by its SHA-256."""
        golden = {GOLDEN: self.golden} if self.golden else {}
        return {name: digest for variant in self.variants for name, digest in variant.files.items()} | self.transform.files | golden

    @property
    def state_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that are the state."""
        return tuple(spec for spec in self.inputs if spec.name in self.state)

    def replace(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)


@dataclass(frozen=True)
class Bundle:
    """A folder with a manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True, trust: Trust | None = None) -> Self:
        """Read a bundle, and check each file against its digest unless that was done before; with `trust`, its signature before all.

        Raises BundleError.
        """
        path = folder / MANIFEST
        try:
            content = path.read_bytes()
            if trust:
                trust.check(folder, content)
            values = json.loads(content)
        except FileNotFoundError:
            raise BundleError(f"{folder} is not a bundle: it has no bundle.json") from None
        except (ValueError, OSError) as error:
            raise BundleError(f"{path} cannot be read: {error}") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise BundleError(f"{path} has the format {found!r}, this version of maasflow reads {FORMAT}", "export the model again")
        try:
            manifest = Manifest.parse(values)
        except ConfigError as error:
            raise BundleError(f"{path} is not a manifest of format {FORMAT}: {error.what}") from None
        manifest.transform.at(folder)
        bundle = cls(folder, manifest)
        if verify:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Raises BundleError unless every file is inside the bundle and as its digest says, and there is no other."""
        self.manifest.variant()
        for name, digest in self.manifest.files.items():
            path = self.folder / name
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise BundleError(f"bundle '{self.manifest.name}': the file {name} lies outside of the bundle")
            if not path.is_file():
                raise BundleError(f"bundle '{self.manifest.name}': {name} is missing", "fetch or export the bundle again")
            if sha256(path) != digest:
                raise BundleError(f"bundle '{self.manifest.name}': {name} differs from its digest", "fetch or export the bundle again")
        for name in sorted(self._found() - self.manifest.files.keys() - {MANIFEST, SIGNATURE}):
            raise BundleError(f"bundle '{self.manifest.name}': its manifest says nothing of the file {name}", "remove it")

    def _found(self) -> set[str]:
        """The files that lie in it."""
        return {Path(parent, name).relative_to(self.folder).as_posix() for parent, _, names in os.walk(self.folder) for name in names}

    def file(self, variant: str | None = None) -> Path:
        """The ONNX file of the named variant, or of the chosen one."""
        return self.folder / self.manifest.variant(variant).file

    def write(self) -> Self:
        write_text(self.folder / MANIFEST, self.manifest.model_dump_json(indent=1))
        return self


def describe_variant(
    folder: Path, name: str, measurements: Measurements | None = None, batch: Batch = "any", parallel: Parallel = "ops"
) -> Variant:
    """The entry for the model `variants/<name>.onnx` of a bundle's folder."""
    path = folder / "variants" / f"{name}.onnx"
    external = sorted(path.parent.glob(f"{path.name}.data*"))
    return Variant(
        name=name,
        file=f"variants/{name}.onnx",
        sha256=sha256(path),
        bytes=sum(file.stat().st_size for file in (path, *external)),
        external={f"variants/{file.name}": sha256(file) for file in external},
        batch=batch,
        parallel=parallel,
        measurements=measurements,
    )
