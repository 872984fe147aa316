"""Olive's int8 models of an fp32 ONNX file: `python -P olive_passes.py FP32.onnx ROWS.npz OUT FAMILY`, with Olive's own environment.

ROWS holds training rows to calibrate on, as arrays by the names of the model's inputs. OUT gets NAME.onnx of each route that Olive took,
and `failed.json`, which says why the others ended. It imports nothing of maasflow.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read at Olive's first import, at which it would otherwise report home.
os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"

import numpy as np
import torch
from olive import run  # type: ignore[import-not-found]
from olive.data.registry import Registry  # type: ignore[import-not-found]

ROWS = {"MinMax": 512, "Entropy": 128, "Percentile": 128}
"""The methods that keep all activations until they have seen the last take a GB for every hundred sentences."""
ACTIVATIONS = {"QDQ": ("int8", "uint8"), "QOperator": ("uint8",)}
"""S8S8 is Olive's default; U8S8 is what ONNX Runtime advises on x86, and Olive warns of S8S8 in QOperator form."""
FLOAT = {"extra_options": {"DefaultTensorType": 1}}
"""Without it ONNX Runtime cannot quantise what comes of fused nodes, whose types it cannot infer."""

Passes = list[dict[str, Any]]


class Rows(torch.utils.data.Dataset[tuple[dict[str, Any], int]]):
    """Rows of a file, spread evenly, with labels that no calibration looks at."""

    def __init__(self, path: str, count: int) -> None:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        total = len(next(iter(arrays.values())))
        chosen = np.linspace(0, total - 1, min(count, total)).astype(np.int64)
        self._arrays = {name: values[chosen] for name, values in arrays.items()}

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, row: int) -> tuple[dict[str, Any], int]:
        return {name: values[row] for name, values in self._arrays.items()}, 0


def routes(rows: Path, family: str) -> Iterator[tuple[str, Passes]]:
    """The passes that lead to int8 on a CPU, by name: dynamic, and static with each method and form."""
    fuse: Passes = [{"type": "OrtTransformersOptimization", "model_type": family, "opt_level": 0}] if family == "bert" else []
    for weights in ("tensor", "channel"):
        dynamic = {"type": "OnnxDynamicQuantization", "precision": "int8", "per_channel": weights == "channel", **FLOAT}
        yield f"dynamic-{weights}", [*fuse, dynamic]
        # What `olive auto-opt --precision int8` does with an ONNX file.
        yield f"auto-opt-{weights}", [{"type": "OnnxPeepholeOptimizer"}, *fuse, dynamic]
    for method, count in ROWS.items():
        calibrated = {"type": "OnnxStaticQuantization", "data_config": data(rows, count), "calibrate_method": method, **FLOAT}
        static = {**calibrated, "precision": "int8", "per_channel": True}
        for form, activations in ACTIVATIONS.items():
            for activation in activations:
                yield (
                    f"static-{method.lower()}-{form.lower()}-{activation}",
                    [*fuse, {**static, "quant_format": form, "activation_type": activation}],
                )
        # A transformer loses least where its products alone are quantised.
        products = {**static, "activation_type": "uint8", "prepare_qdq_config": False, "op_types_to_quantize": ["MatMul", "Gemm"]}
        if family == "bert":
            yield f"static-{method.lower()}-products", [*fuse, products]


def data(rows: Path, count: int) -> dict[str, Any]:
    """Olive's description of the rows to calibrate on."""
    return {
        "name": f"rows_{count}",
        "type": "DataContainer",
        "load_dataset_config": {"type": "rows", "params": {"path": str(rows), "count": count}},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "dataloader_config": {"type": "default_dataloader", "params": {"batch_size": 32}},
    }


def optimized(fp32: Path, passes: Passes, scratch: Path) -> Path:
    """The file that Olive makes of another. Raises whatever a pass raises, RuntimeError where Olive gives nothing back."""
    found = run(
        {
            "input_model": {"type": "ONNXModel", "model_path": str(fp32)},
            "systems": {
                "here": {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}
            },
            "host": "here",
            "target": "here",
            "passes": {f"pass{number}": each for number, each in enumerate(passes)},
            "output_dir": str(scratch / "out"),
            "cache_dir": str(scratch / "cache"),
            "log_severity_level": 4,
        }
    )
    if not found.has_output_model():
        raise RuntimeError("it gave no model back, and no reason")
    return Path(found.get_best_candidate().model_path)


def main() -> None:
    fp32, rows, out, family = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    Registry.register_dataset("rows")(lambda path, count, **_: Rows(path, count))
    failed = {}
    for name, passes in routes(rows, family):
        try:
            optimized(fp32, passes, out / name).replace(out / f"{name}.onnx")
        except Exception as error:  # a pass may fail in any way, and the others still count
            reason = error.__cause__ or error
            failed[name] = f"{type(reason).__name__}: {(str(reason).splitlines() or ['no message'])[0]}"
    (out / "failed.json").write_text(json.dumps(failed), encoding="utf-8")


if __name__ == "__main__":
    main()
