"""What the search for variants finds: `MAASFLOW_MIRROR=… python -m tests.benchmarks.compression [--workspace FOLDER] [--olive FOLDER] [RECIPE …]`.

Each recipe is run as a person runs it, then searched with the budgets below; the variants are timed beside torch in turns, on the same
real rows, and in the end beside what Olive makes of the same file. Exits 1 where one falls short of its bar, or of Olive. A workspace that
is given keeps what was trained and made, an environment for Olive what was installed.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks import versioning
from tasks.compress import CompressResult, compress
from tasks.compression.measure import requests
from tasks.core.bundle import Bundle
from tasks.core.encoded import Encoded
from tasks.core.errors import MaasflowError
from tasks.core.language import Run
from tasks.core.machine import Device, cuda_device, device_for, this_machine, usable_cores
from tasks.core.predictor import open_session, run_session
from tasks.core.recipe import LOWER_IS_BETTER, Compression, Recipe
from tasks.export import BUNDLE
from tasks.plan import Plan
from tasks.train import load
from tasks.training.forward import run_module
from tests.benchmarks.beside_olive import DRAWS, Seconds, beside_olive, environment
from tests.benchmarks.turns import take_turns

ROUNDS, QUICK_ROUNDS = 12, 100
"""Small models take so little time that a few requests would tell them apart by luck."""
INT8 = [
    {"kind": "int8_rows"},
    {"kind": "int8_dynamic"},
    {"kind": "int8_dynamic", "per_channel": False},
    {"kind": "int8_static", "method": "percentile"},
]
SMALL = [{"kind": kind} for kind in ("graph", "int8_dynamic", "int8_rows", "int8_static", "int8_weights", "int4_weights")]

PRUNE = {"kind": "prune", "heads": 0.55, "neurons": 0.68, "epochs": 18, "learning_rate": 2e-4}


@dataclass(frozen=True)
class Bar:
    """What some variant of a search must reach: times torch's speed, or fp32 ONNX's; file beside fp32's; loss on the test split.

    On a CUDA device `torch fp16` is there to be held against too.
    """

    what: str
    faster: float
    size: float
    drop: float
    beside: str = "torch"


@dataclass(frozen=True)
class Budget:
    """A search, and the bars that its choice is held against."""

    recipe: str
    compression: dict[str, Any]
    bars: tuple[Bar, ...]
    rows: int = 32
    rounds: int = ROUNDS
    device: Device = "cpu"

    @property
    def unfit(self) -> str | None:
        """Why it cannot be run on this machine."""
        if self.device == "cpu":
            return None
        return "there is no CUDA device" if cuda_device() is None else None if torch.cuda.is_available() else "torch sees no CUDA device"


def smaller(name: str, drop: float = 0.005) -> Budget:
    """Smaller, and not slower than fp32 ONNX."""
    compression = {"compressors": SMALL, "objective": "throughput", "limits": {"size_ratio": 0.5}}
    return Budget(name, compression, (Bar("best variant", 1.0, 0.999, drop, "fp32"),), rounds=QUICK_ROUNDS)


def on_cuda(name: str, rows: int) -> Budget:
    """fp16 on a CUDA device, beside fp32 and torch in both. What has no kernel there is listed as not applicable."""
    compression = {"compressors": [{"kind": "fp16"}, {"kind": "int8_static"}], "objective": "throughput"}
    return Budget(name, compression, (Bar("on CUDA", 1.0, 0.6, 0.005, "torch fp16"),), rows, device="cuda")


BUDGETS = (
    Budget("sst2-bert", {"compressors": INT8, "objective": "throughput"}, (Bar("int8 only", 2.5, 0.26, 0.005),), rows=8),
    Budget(
        "sst2-bert",
        {
            "compressors": [[PRUNE, kind] for kind in INT8],
            "objective": "throughput",
            "limits": {"metric_drop": 0.015, "size_ratio": 0.18},
        },
        (Bar("pruned or distilled", 5.0, 0.18, 0.015),),
        rows=8,
    ),
    Budget(
        "mnist-resnet",
        {
            "compressors": [{"kind": "int8_static", "method": method} for method in ("minmax", "percentile")],
            "objective": "throughput",
            "limits": {"size_ratio": 0.27},
        },
        (Bar("static int8", 2.5, 0.27, 0.003),),
    ),
    replace(smaller("imdb-gpt2"), rounds=ROUNDS),
    smaller("hotel-zh-bow"),
    smaller("shakespeare-lstm", 0.03),
    smaller("titanic-mlp"),
    on_cuda("sst2-bert", 8),
    on_cuda("imdb-gpt2", 8),
    on_cuda("mnist-resnet", 32),
)
BESIDE_OLIVE = {"sst2-bert": 8, "mnist-resnet": 32}
"""Recipes whose variants are held against Olive's, and the rows of a request."""


class Half(nn.Module):
    """A module with its weights and its inputs in fp16."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).half()

    def forward(self, **inputs: Tensor) -> Any:
        return self.module(**{name: values.half() if values.is_floating_point() else values for name, values in inputs.items()})


def trained(workspace: Path, name: str) -> tuple[Plan, Encoded, Path, Path]:
    """A recipe that was run: its plan, its rows, and the folders of its weights and of its export."""
    done = subprocess.run([sys.executable, "-m", "flows.cli", "run", name], cwd=workspace, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"maasflow run {name} ended with {done.returncode}:\n{done.stderr}")
    plan = Plan.open(name, root=workspace)
    version = versioning.version(plan.workspace, plan.recipe.dataset)
    assert version
    keys = plan.keys(version)
    return (
        plan,
        Encoded(plan.store.folder("encode", keys.encode)),
        plan.store.folder("train", keys.train),
        plan.store.folder("export", keys.export),
    )


def eager(recipe: Recipe, encoded: Encoded, weights: Path, bundle: Bundle) -> dict[str, Run]:
    """The trained module in torch, with the device and the threads of its variants; on a CUDA device in fp16 too."""
    family, module = load(recipe, encoded, len(bundle.manifest.labels), weights)
    torch.set_num_threads(recipe.serving.threads or usable_cores())
    device = torch.device(device_for(bundle.manifest.device))
    module = module.to(device)
    runs = {"torch": run_module(module, family.state, device)}
    if device.type == "cuda":
        runs["torch fp16"] = run_module(Half(module), family.state, device)
    return runs


def timed(recipe: Recipe, encoded: Encoded, weights: Path, bundle: Bundle, budget: Budget) -> dict[str, Seconds]:
    """Seconds for each request of torch and of every variant, in turns on the same requests."""
    manifest = bundle.manifest
    runs = eager(recipe, encoded, weights, bundle)
    threads = recipe.serving.threads or usable_cores()
    for variant in manifest.variants:
        session = open_session(bundle.file(variant.name), threads, manifest.device, manifest.inputs, variant.parallel)
        runs[variant.name] = run_session(session, variant.batch)
    request = requests(encoded.split("test"), manifest.state_inputs, budget.rows)
    return {name: np.array(seconds) for name, seconds in take_turns(runs, request, budget.rounds).items()}


def times_as_fast(here: Seconds, there: Seconds) -> tuple[float, float, float]:
    """By medians over the same requests, with the bootstrap's 95 % interval over requests."""
    draws = np.random.default_rng(0).integers(0, len(here), (DRAWS, len(here)))
    low, high = np.percentile(np.median(there[draws], axis=1) / np.median(here[draws], axis=1), [2.5, 97.5])
    return float(np.median(there) / np.median(here)), float(low), float(high)


def held(budget: Budget, found: CompressResult, taken: dict[str, Seconds], metric: str) -> bool:
    """Print a line for each bar; whether all are reached by the variant that was chosen."""
    choice, fp32 = found.choice, found.candidates[0]
    drop = (choice.test - fp32.test) * (1 if metric in LOWER_IS_BETTER else -1)
    reached = True
    for bar in budget.bars:
        faster, low, high = times_as_fast(taken[choice.name], taken[bar.beside])
        # What is to be as fast may be measured a little slower, where requests differ by more than that.
        fast_enough = high >= 1 if bar.faster == 1 else faster >= bar.faster
        holds = fast_enough and choice.size_ratio <= bar.size and drop <= bar.drop
        reached &= holds
        print(
            f"{'holds' if holds else 'FAILS':6} {budget.recipe}: {bar.what}: {choice.name} {faster:.2f} × {bar.beside} "
            f"[{low:.2f}, {high:.2f}] (at least {bar.faster:g}), "
            f"file {choice.size_ratio:.3f} × (at most {bar.size:g}), test {metric} {drop:+.4f} worse (at most {bar.drop:g}); "
            f"batches of {budget.rows}{', one row at a time' if choice.batch == 'one' else ''}{', a thread for each row' if choice.parallel == 'rows' else ''}",
            flush=True,
        )
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument(
        "--olive", type=Path, metavar="FOLDER", help="the environment with Olive, made where it is not; beside the workspace"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = (options.workspace or Path(scratch) / "workspace").resolve()
        if not (workspace / "dvc.yaml").is_file():
            subprocess.run([sys.executable, "-m", "flows.cli", "init", str(workspace)], check=True, capture_output=True)
        print(f"{this_machine().processor}, {usable_cores()} cores, {cuda_device() or 'no CUDA device'}", flush=True)
        reached = [
            search(workspace, budget, Path(scratch) / f"search-{number}")
            for number, budget in enumerate(BUDGETS)
            if wanted(budget.recipe, options.recipes)
        ]
        reached += [
            against_olive(
                workspace, name, found(name, Path(scratch)), rows, options.olive or workspace.with_name(f"{workspace.name}-olive")
            )
            for name, rows in BESIDE_OLIVE.items()
            if wanted(name, options.recipes)
        ]
    sys.exit(0 if all(reached) else 1)


def wanted(recipe: str, recipes: list[str]) -> bool:
    return not recipes or recipe in recipes


def found(recipe: str, scratch: Path) -> list[Bundle]:
    """The bundles of a recipe's searches for the CPU, of those that made one."""
    numbers = [number for number, budget in enumerate(BUDGETS) if budget.recipe == recipe and budget.device == "cpu"]
    folders = [scratch / f"search-{number}" / BUNDLE for number in numbers]
    return [Bundle.open(folder) for folder in folders if (folder / "bundle.json").is_file()]


def against_olive(workspace: Path, name: str, bundles: list[Bundle], rows: int, folder: Path) -> bool:
    if not bundles:
        print(f"\nFAILS  {name}: there is no variant to hold beside Olive's", flush=True)
        return False
    plan, encoded, weights, _ = trained(workspace, name)
    torch_run = eager(plan.recipe, encoded, weights, bundles[0])["torch"]
    try:
        return beside_olive(plan.recipe, encoded, bundles, torch_run, rows, environment(folder))
    except MaasflowError as error:
        print(f"FAILS  {name}: beside Olive: {error.what}", flush=True)
        return False


def search(workspace: Path, budget: Budget, out: Path) -> bool:
    if reason := budget.unfit:
        print(f"\n{budget.recipe} on CUDA: not applicable here: {reason}", flush=True)
        return True
    plan, encoded, weights, exported = trained(workspace, budget.recipe)
    serving = plan.recipe.serving.model_copy(update={"device": budget.device})
    recipe = plan.recipe.model_copy(update={"compression": Compression.parse(budget.compression), "serving": serving})
    out.mkdir()
    start = time.perf_counter()
    try:
        found = compress(recipe, encoded, exported, out, weights, plan.store)
    except MaasflowError as error:
        print(f"\nFAILS  {budget.recipe}: {error.what}", flush=True)
        return False
    seconds = time.perf_counter() - start
    print(f"\n{budget.recipe}: searched in {seconds:.0f} s\n{found.table()}", flush=True)
    taken = timed(recipe, encoded, weights, Bundle.open(out / BUNDLE), budget)
    rates = {name: budget.rows / float(np.median(seconds)) for name, seconds in taken.items()}
    print("  ".join(f"{name} {rate:,.0f}/s ({rate / rates['torch']:.2f} × torch)" for name, rate in rates.items()), flush=True)
    return held(budget, found, taken, recipe.evaluation.metric)


if __name__ == "__main__":
    main()
