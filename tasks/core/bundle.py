"""The bundle: the directory that ships. Export writes it, compression adds variants, serving reads nothing else.

    bundle.json          the manifest below
    variants/<name>.onnx

No file in it is code, and none is unpickled.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from tasks.core.config import Config
from tasks.core.dataset import Column
from tasks.core.errors import BundleError, ConfigError
from tasks.core.machine import Machine
from tasks.core.stages import write_text
from tasks.core.transforms import TensorSpec, Transform

FORMAT: Final = 1


class Latency(Config):
    """Milliseconds for one call with a given number of rows."""

    p50: float
    p99: float


class Measurements(Config):
    """What a variant reached on `machine`. Metrics by split and name; latencies by rows in the call."""

    metrics: dict[str, dict[str, float]]
    latency_ms: dict[str, Latency]
    agreement: float
    """Share of test rows with the same label as fp32."""
    machine: Machine


class Variant(Config):
    """One ONNX file."""

    name: str
    file: str
    sha256: str
    bytes: int
    measurements: Measurements | None = None


class DatasetVersion(Config):
    """Which data: the DVC digests of the raw and the prepared files, and rows by split."""

    name: str
    raw: str
    digest: str
    rows: dict[str, int]


class Lineage(Config):
    """Where a bundle came from."""

    dataset: DatasetVersion
    git_commit: str | None = None
    git_dirty: bool = False
    mlflow_run: str | None = None
    created: str = ""
    versions: dict[str, str] = {}


class Manifest(Config):
    """`bundle.json`."""

    format: Literal[1] = 1
    name: str
    task: Literal["classification"] = "classification"
    description: str = ""
    columns: dict[str, Column]
    """The raw input that a client sends."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    transform: Transform
    variants: tuple[Variant, ...]
    chosen: str
    threads: int = 0
    parity: float
    """The largest difference between torch's and fp32 ONNX's outputs over real test rows."""
    recipe: dict[str, Any]
    lineage: Lineage

    def variant(self, name: str | None = None) -> Variant:
        """The named variant, or the chosen one. Raises BundleError."""
        wanted = name or self.chosen
        found = next((variant for variant in self.variants if variant.name == wanted), None)
        if found is None:
            raise BundleError(f"bundle '{self.name}' has no variant '{wanted}'", f"it has {', '.join(v.name for v in self.variants)}")
        return found

    def replace(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)


@dataclass(frozen=True)
class Bundle:
    """A folder with a manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Self:
        """Read a bundle, and check each file against its digest unless that was done before. Raises BundleError."""
        path = folder / "bundle.json"
        try:
            values = json.loads(path.read_bytes())
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
        bundle = cls(folder, manifest)
        if verify:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Raises BundleError unless every variant's file is inside the bundle and as its digest says."""
        self.manifest.variant()
        for variant in self.manifest.variants:
            path = self.folder / variant.file
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise BundleError(f"bundle '{self.manifest.name}': the file {variant.file} lies outside of the bundle")
            if not path.is_file():
                raise BundleError(f"bundle '{self.manifest.name}': {variant.file} is missing", "fetch or export the bundle again")
            if sha256(path) != variant.sha256:
                raise BundleError(
                    f"bundle '{self.manifest.name}': {variant.file} differs from its digest", "fetch or export the bundle again"
                )

    def file(self, variant: str | None = None) -> Path:
        """The ONNX file of the named variant, or of the chosen one."""
        return self.folder / self.manifest.variant(variant).file

    def write(self) -> Self:
        write_text(self.folder / "bundle.json", self.manifest.model_dump_json(indent=1))
        return self


def describe_variant(folder: Path, name: str, measurements: Measurements | None = None) -> Variant:
    """The entry for the file `variants/<name>.onnx` of a bundle's folder."""
    path = folder / "variants" / f"{name}.onnx"
    return Variant(name=name, file=f"variants/{name}.onnx", sha256=sha256(path), bytes=path.stat().st_size, measurements=measurements)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
