"""Export: the trained model as fp32 ONNX in a bundle, held against torch on real rows."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tasks.core.bundle import Bundle, DatasetVersion, Lineage, Manifest, describe_variant
from tasks.core.dataset import Dataset
from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.predictor import open_session, unanswered
from tasks.core.recipe import Recipe
from tasks.core.stages import StageResult
from tasks.core.transforms import TensorSpec
from tasks.train import load

BUNDLE = "bundle"
PARITY_BATCHES = (1, 2, 7, 32)


class ExportResult(StageResult):
    """The fp32 file, and the largest absolute difference of its logits from torch's over real test rows."""

    parity: float
    bytes: int

    @property
    def figure(self) -> str:
        return f"fp32 ONNX {self.bytes / 1e3:,.0f} kB, largest difference from torch {self.parity:.1e}"


def export(
    recipe: Recipe, name: str, dataset: Dataset, version: DatasetVersion, encoded: Encoded, trained: Path, out: Path
) -> ExportResult:
    """Write `bundle/` with the variant fp32 to `out`."""
    module = load(recipe, encoded, len(dataset.classes), trained)
    folder = out / BUNDLE
    (folder / "variants").mkdir(parents=True, exist_ok=True)
    path = folder / "variants" / "fp32.onnx"
    test = encoded.split("test")
    write_onnx(module, test, path)
    parity = largest_difference(module, test, path, PARITY_BATCHES)
    variant = describe_variant(folder, "fp32")
    manifest = Manifest(
        name=name,
        description=recipe.description,
        columns=dataset.features,
        inputs=encoded.transform.inputs,
        outputs=(TensorSpec(name="logits", dtype="FP32", shape=(len(dataset.classes),)),),
        labels=dataset.class_names,
        transform=encoded.transform,
        variants=(variant,),
        chosen="fp32",
        threads=recipe.serving.threads,
        parity=parity,
        recipe=recipe.model_dump(mode="json"),
        lineage=Lineage(dataset=version),
    )
    Bundle(folder, manifest).write()
    return ExportResult(parity=parity, bytes=variant.bytes)


def write_onnx(module: nn.Module, rows: EncodedSplit, path: Path) -> None:
    """Export with a dynamic batch dimension.

    By tracing, not by torch.export: on the same torch it takes a thirtieth of the time, its graphs quantise without
    repair, and it is the form in which ONNX Runtime's optimizer finds attention to fuse. torch, which calls it legacy,
    is pinned, and what it writes is held against torch below.
    """
    # Two rows: a dimension of one is taken for a constant.
    tensors = {name: torch.from_numpy(array) for name, array in rows.tensors(np.arange(2) % len(rows)).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            tuple(tensors.values()),
            str(path),
            dynamo=False,
            input_names=list(tensors),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch"} for name in (*tensors, "logits")},
        )


def largest_difference(module: nn.Module, rows: EncodedSplit, path: Path, batches: Sequence[int]) -> float:
    """The largest absolute difference between torch's and ONNX Runtime's logits, each batch size on rows of its own.

    Raises MaasflowError where there is none to take, because either has no finite answer.
    """
    session = open_session(path)
    worst, start = 0.0, 0
    for size in batches:
        tensors = rows.tensors(np.arange(start, start + size) % len(rows))
        start += size
        with torch.inference_mode():
            expected = module(**{name: torch.from_numpy(array) for name, array in tensors.items()}).numpy()
        (found,) = session.run(["logits"], tensors)
        if lost := unanswered(expected) or unanswered(found):
            raise MaasflowError(
                f"the model has no finite answer for {len(lost)} of the {size} test rows that it was compared on",
                "look for extreme values in the data",
            )
        worst = max(worst, float(np.abs(expected - found).max()))
    return worst
