"""A bundle as a model repository of NVIDIA's Triton Inference Server: tensors alone, for its ONNX Runtime backend.

<folder>/<name>/config.pbtxt      what Triton has to know, so that it runs the variant as our own server does
<folder>/<name>/labels.txt        the classes, one a line
<folder>/<name>/1/model.onnx      the variant; where it has weights in other files, a folder with model.onnx and these

Source: Triton's model_repository.md, model_configuration.md and model_config.proto.
"""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from deploy.serving.settings import Settings
from deploy.serving.waiting import MOST_ROWS
from tasks.core.bundle import Bundle, Manifest, Variant
from tasks.core.errors import MaasflowError
from tasks.core.stages import replace_folder
from tasks.core.transforms import TensorSpec

_MARK: Final = "# Written by maasflow export triton"
"""How the first line of our config.pbtxt begins: a folder with one may be replaced."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_KINDS: Final = {"cpu": "KIND_CPU", "cuda": "KIND_GPU", "auto": "KIND_AUTO"}
_LABELS: Final = "labels.txt"


def write_repository(bundle: Bundle, name: str, version: str, folder: Path) -> Path:
    """Write the bundle's chosen variant as the model `name`, whole or not at all; its folder.

    Raises MaasflowError for a model that Triton's configuration cannot express, and for a folder of that name which maasflow did not write.
    """
    model = folder / name
    _check(bundle.manifest, name)
    if not _may_replace(model):
        raise MaasflowError(f"{model} is there, and maasflow did not write it", "choose another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # One level deeper than a model's folder: Triton, should it look meanwhile, finds no version there.
        _write(bundle, name, version, partial / name)
        replace_folder(partial / name, model)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return model


def config(manifest: Manifest, name: str, version: str) -> str:
    """The text of config.pbtxt."""
    variant = manifest.variant()
    together = variant.batch == "any"
    lines = [
        f"{_MARK}, which may replace it: version {version} of the release, its variant {variant.name}.",
        f"name: {_quoted(name)}",
        'platform: "onnxruntime_onnx"',
        'backend: "onnxruntime"',
        # Without batching the first dimension belongs to the tensors, and is 1: two rows of one request would disturb each other too.
        *([f"max_batch_size: {MOST_ROWS}"] if together else []),
        *(_tensor("input", spec, together) for spec in manifest.inputs),
        *(_tensor("output", spec, together, labelled=spec.name == "logits" and bool(manifest.labels)) for spec in manifest.outputs),
        "version_policy { latest { num_versions: 1 } }",
        f"instance_group [ {{ count: 1 kind: {_KINDS[manifest.device]} }} ]",
        *([_dynamic_batching()] if together else []),
        *(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
            for key, value in _parameters(manifest, version)
        ),
    ]
    return "\n".join(lines) + "\n"


def _dynamic_batching() -> str:
    """As our own queues: what waits is run at once, refused where too much waits, and given up at its deadline."""
    settings = Settings()
    return (
        "dynamic_batching { default_queue_policy { timeout_action: REJECT "
        f"default_timeout_microseconds: {round(settings.deadline * 1e6)} allow_timeout_override: true max_queue_size: {settings.max_waiting} }} }}"
    )


def _tensor(kind: str, spec: TensorSpec, together: bool, *, labelled: bool = False) -> str:
    dims = ", ".join(map(str, spec.shape if together else (1, *spec.shape)))
    label = f" label_filename: {_quoted(_LABELS)}" if labelled else ""
    return f"{kind} [ {{ name: {_quoted(spec.name)} data_type: TYPE_{spec.dtype} dims: [ {dims} ]{label} }} ]"


def _parameters(manifest: Manifest, version: str) -> Iterator[tuple[str, str]]:
    """The backend's threads, as in our sessions, and what /v2/models/NAME/config then says of where the model is from."""
    if manifest.threads:
        yield "intra_op_thread_count", str(manifest.threads)
    yield "inter_op_thread_count", "1"
    yield "maasflow.version", version
    yield "maasflow.variant", manifest.chosen
    yield "maasflow.sha256", manifest.variant().sha256


def _check(manifest: Manifest, name: str) -> None:
    """Raises MaasflowError for what config.pbtxt, or Triton's file of labels, cannot say."""
    why = ""
    if not _NAME.fullmatch(name):
        why = "its name has other signs than letters, digits, '.', '_' and '-'"
    elif scalar := next((spec.name for spec in chain(manifest.inputs, manifest.outputs) if not spec.shape), None):
        why = f"'{scalar}' has no dimension beside the rows"
    elif broken := [label for label in manifest.labels if len(label.splitlines()) != 1]:
        why = f"the class {broken[0]!r} is not one line"
    if why:
        raise MaasflowError(f"model '{name}' cannot be written for Triton: {why}")


def _may_replace(model: Path) -> bool:
    """Whether there is nothing, an empty folder, or what was written here before."""
    if not model.exists() or (model.is_dir() and not any(model.iterdir())):
        return True
    try:
        return (model / "config.pbtxt").read_text(encoding="utf-8").startswith(_MARK)
    except (OSError, UnicodeDecodeError):
        return False


def _write(bundle: Bundle, name: str, version: str, model: Path) -> None:
    manifest = bundle.manifest
    _copy(bundle.folder, manifest.variant(), model / "1")
    if manifest.labels:
        (model / _LABELS).write_text("".join(f"{label}\n" for label in manifest.labels), encoding="utf-8")
    (model / "config.pbtxt").write_text(config(manifest, name, version), encoding="utf-8")


def _copy(folder: Path, variant: Variant, target: Path) -> None:
    """The variant's files. Those with weights keep their names, by which the model knows them, and lie beside it."""
    model = target / "model.onnx" / "model.onnx" if variant.external else target / "model.onnx"
    model.parent.mkdir(parents=True)
    shutil.copyfile(folder / variant.file, model)
    for file in variant.external:
        shutil.copyfile(folder / file, model.with_name(Path(file).name))


def _quoted(text: str) -> str:
    """A string of protobuf's text format, which escapes as JSON does."""
    return json.dumps(text, ensure_ascii=False)
