"""Export: the trained model as fp32 ONNX in a bundle, held against torch on real rows."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import nn

from tasks.core.bundle import Bundle, DatasetVersion, Lineage, Manifest, describe_variant
from tasks.core.dataset import Dataset
from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.language import Run, first_state, next_name
from tasks.core.predictor import open_session, run_session, this_place
from tasks.core.recipe import Recipe
from tasks.core.stages import StageResult, link_file
from tasks.core.transforms import Tensors, TensorSpec
from tasks.fusion import fuse_attention
from tasks.models import Family
from tasks.train import load
from tasks.training.forward import as_tensors, run_module

BUNDLE = "bundle"
_BATCHES: Final = (1, 2, 7, 32)
_LENGTHS: Final = (1, 2, 17, 64)
"""Of a running text; texts are taken at their own lengths, and beside a long one, which pads them."""
LARGEST_FILE: Final = 2**31 - 2**20
"""Bytes of weights from which they go into a file beside the ONNX one, which cannot be larger than 2 GiB."""


class ExportResult(StageResult):
    """The fp32 file, and the largest absolute difference of its logits from torch's over real test rows."""

    parity: float
    bytes: int
    fused: dict[str, int] = {}
    """Nodes that several were fused into, by kind."""

    @property
    def figure(self) -> str:
        attention = f", {count} attention layers fused" if (count := self.fused.get("Attention", 0)) else ""
        return f"fp32 ONNX {self.bytes / 1e3:,.0f} kB{attention}, largest difference from torch {self.parity:.1e}"


def export(
    recipe: Recipe, name: str, dataset: Dataset, version: DatasetVersion, encoded: Encoded, trained: Path, out: Path
) -> ExportResult:
    """Write `bundle/` with the variant fp32 to `out`."""
    family, module = load(recipe, encoded, len(dataset.classes), trained)
    folder = out / BUNDLE
    (folder / "variants").mkdir(parents=True, exist_ok=True)
    path = folder / "variants" / "fp32.onnx"
    test = encoded.split("test")
    fused = write_onnx(family, module, test, path)
    parity = largest_difference(family, module, test, path)
    for file in encoded.transform.files:
        link_file(encoded.folder / file, folder / file)
    variant = describe_variant(folder, "fp32")
    manifest = Manifest(
        name=name,
        task=dataset.task,
        description=recipe.description,
        columns=dataset.features,
        inputs=(*encoded.transform.inputs, *family.state),
        outputs=_outputs(family, dataset, encoded),
        state={spec.name: next_name(spec.name) for spec in family.state},
        labels=dataset.class_names,
        transform=encoded.transform,
        variants=(variant,),
        chosen="fp32",
        threads=recipe.serving.threads,
        device=recipe.serving.device,
        parity=parity,
        parity_place=this_place(),
        recipe=recipe.model_dump(mode="json"),
        lineage=Lineage(dataset=version),
    )
    Bundle(folder, manifest).write()
    return ExportResult(parity=parity, bytes=variant.bytes, fused=fused)


def write_onnx(family: Family, module: nn.Module, rows: EncodedSplit, path: Path, largest: int = LARGEST_FILE) -> dict[str, int]:
    """Export with dynamic batch and length, and fuse attention; how many nodes were fused, by kind.

    By tracing, not by torch.export: on the same torch it takes a thirtieth of the time, its graphs quantise without
    repair, and it is the form in which ONNX Runtime's optimizer finds attention to fuse. torch, which calls it legacy,
    is pinned, and what it writes is held against torch.
    """
    # Two rows: a dimension of one is taken for a constant.
    inputs = next(_calls(family, rows, (2,)))
    outputs = ["logits", *(next_name(spec.name) for spec in family.state)]
    dynamic = {name: {0: "batch"} for name in (*inputs, *outputs)}
    for spec in rows.transform.inputs:
        dynamic[spec.name] |= {place: "length" for place, size in enumerate(spec.shape, 1) if size < 0}
    if family.state:
        dynamic["logits"][1] = "length"
    child: Any
    for child in module.modules():
        if hasattr(child, "set_attn_implementation"):
            # The form that the optimizer knows.
            child.set_attn_implementation("eager")
            break
    weights = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    with warnings.catch_warnings():
        # The tracer's remarks on what it takes for constant; parity is measured below.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(as_tensors(inputs).values()),
            str(path),
            dynamo=False,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=dynamic,
            external_data=weights > largest,
        )
    attention = family.attention(module)
    fused = fuse_attention(path, attention) if attention else {}
    if weights > largest:
        _gather_external(path)
    return fused


def largest_difference(family: Family, module: nn.Module, rows: EncodedSplit, path: Path, batches: tuple[int, ...] = _BATCHES) -> float:
    """The largest absolute difference between torch's and ONNX Runtime's outputs, each call on rows of its own.

    Raises MaasflowError where there is none to take, because either has no finite answer.
    """
    sides: tuple[Run, Run] = (run_module(module, family.state), run_session(open_session(path)))
    worst = 0.0
    for inputs in _calls(family, rows, batches):
        expected, found = (side(inputs) for side in sides)
        for name in expected:
            if not (np.isfinite(expected[name]).all() and np.isfinite(found[name]).all()):
                raise MaasflowError(
                    f"the model has no finite answer for some of the {len(expected[name])} test rows that it was compared on",
                    "look for extreme values in the data",
                )
            worst = max(worst, float(np.abs(expected[name] - found[name]).max()))
    return worst


def _calls(family: Family, rows: EncodedSplit, batches: tuple[int, ...]) -> Iterator[Tensors]:
    """Real inputs: each number of rows, for texts as they come and again beside the longest, for running texts at every length."""
    start = 0
    if family.state:
        random = np.random.default_rng(0)
        for batch in batches:
            state = first_state(family.state, batch)
            for length in _LENGTHS:
                ids = rows.tokens[(start + np.arange(batch * length)) % len(rows.tokens)].astype(np.int64).reshape(batch, length)
                yield {"input_ids": ids, **state}
                start += batch * length
                state = {name: random.normal(size=value.shape, scale=0.5).astype(np.float32) for name, value in state.items()}
        return
    longest = int(rows.lengths.argmax()) if rows.lengths is not None else None
    for batch in batches:
        chosen = np.arange(start, start + batch) % len(rows)
        start += batch
        yield rows.tensors(chosen)
        if longest is not None:
            yield rows.tensors(np.append(chosen[1:], longest))


def _outputs(family: Family, dataset: Dataset, encoded: Encoded) -> tuple[TensorSpec, ...]:
    if not family.state:
        return (TensorSpec(name="logits", dtype="FP32", shape=(len(dataset.classes),)),)
    vocabulary = encoded.transform.inputs[0].vocabulary
    assert vocabulary
    following = (spec.model_copy(update={"name": next_name(spec.name)}) for spec in family.state)
    return (TensorSpec(name="logits", dtype="FP32", shape=(-1, vocabulary)), *following)


def _gather_external(path: Path) -> None:
    """Put the weights, which the exporter writes one file each, into one file beside the model's."""
    model = onnx.load(path)
    for file in path.parent.iterdir():
        if not file.name.endswith(".onnx"):
            file.unlink()
    path.unlink()
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=f"{path.name}.data", size_threshold=1024
    )
