"""The variants that the searches found beside Olive's int8 models of the same fp32 file: on the same rows, timed in turns.

Olive lives in an environment of its own, made on first use: its ONNX Runtime cannot stand beside maasflow's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from tasks.compression.invariance import check_invariance
from tasks.compression.measure import Requests, requests
from tasks.core.bundle import Batch, Bundle, Parallel
from tasks.core.encoded import Encoded
from tasks.core.errors import MaasflowError
from tasks.core.language import Run
from tasks.core.machine import usable_cores
from tasks.core.metrics import drop
from tasks.core.predictor import open_session, run_session
from tasks.core.recipe import Recipe
from tasks.core.scoring import score_split
from tests.benchmarks.turns import take_turns

VERSIONS = (
    "olive-ai==0.13.0",
    "onnxruntime==1.31.1",
    "onnx==1.23.2",
    "onnxoptimizer==0.4.2",
    "torch==2.13.0",
    "transformers==5.23.0",
    "numpy==2.4.6",
    # Olive imports it and does not ask for it.
    "requests==2.34.2",
)
CALIBRATION = 512
"""Training rows that Olive is given, as many as maasflow's own calibration takes."""
SESSIONS, ROUNDS, DRAWS = 6, 6, 2000
"""Of one file, one session may take half as long again as another, by how its threads come to lie on the cores: the best of several counts."""

Seconds = npt.NDArray[np.float64]
"""[sessions], the median over rounds"""


@dataclass(frozen=True)
class Contender:
    """A model that answers, and how much of the metric it loses on the validation split."""

    name: str
    path: Path
    batch: Batch
    drop: float
    parallel: Parallel = "ops"

    @classmethod
    def of(cls, name: str, path: Path, batch: Batch, drop: float) -> "list[Contender]":
        """A model in each way in which its threads may share the work: nothing but the file is held against the other's."""
        return [cls(f"{name}{' by rows' if way == 'rows' else ''}", path, batch, drop, way) for way in get_args(Parallel)]

    def open(self, threads: int) -> Run:
        return run_session(open_session(self.path, threads, parallel=self.parallel), self.batch)

    @property
    def lost(self) -> float:
        """What answers a row or two more by luck has lost nothing, and is no better than what answers as fp32."""
        return max(0.0, self.drop)


@dataclass(frozen=True)
class Pair:
    """One of Olive's models, and the fastest of ours that loses no more."""

    ours: Contender
    theirs: Contender
    ratio: float
    """Of our time to theirs, each in its best session."""
    low: float
    high: float

    @classmethod
    def of(cls, ours: Contender, theirs: Contender, taken: Mapping[str, Seconds]) -> "Pair":
        """With the bootstrap's 95 % interval over sessions."""
        here, there = taken[ours.name], taken[theirs.name]
        draws = np.random.default_rng(0).integers(0, len(here), (2, DRAWS, len(here)))
        low, high = np.percentile(here[draws[0]].min(1) / there[draws[1]].min(1), [2.5, 97.5])
        return cls(ours, theirs, float(here.min() / there.min()), float(low), float(high))


def environment(folder: Path) -> Path:
    """The interpreter of Olive's environment, made or mended where it is not whole."""
    python, mark = folder.absolute() / "bin" / "python", folder / ".installed"
    wanted = "\n".join(VERSIONS)
    if not mark.is_file() or mark.read_text(encoding="utf-8") != wanted:
        print(f"installing Olive into {folder}, which takes a few minutes", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *VERSIONS], check=True)
        mark.write_text(wanted, encoding="utf-8")
    return python


def olive_models(python: Path, fp32: Path, encoded: Encoded, family: str, out: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Olive's files by the name of their route, and why other routes ended without one."""
    train = encoded.split("train")
    # Of one length, which Olive's entropy and percentile calibrations need.
    chosen = np.linspace(0, len(train) - 1, min(CALIBRATION, len(train))).astype(np.int64)
    np.savez(out / "rows.npz", **train.tensors(chosen))  # type: ignore[arg-type]
    script = Path(__file__).with_name("olive_passes.py")
    # Not beside the script's siblings, whose names may be those of packages.
    command = [str(part) for part in (python, "-P", script, fp32, out / "rows.npz", out, family)]
    with (out / "log").open("w") as log:
        done = subprocess.run(command, cwd=out, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": ""}, check=False)
    if done.returncode:
        raise MaasflowError(f"Olive ended with {done.returncode}: {(out / 'log').read_text(encoding='utf-8', errors='replace')[-2000:]}")
    return {path.stem: path for path in sorted(out.glob("*.onnx"))}, json.loads((out / "failed.json").read_text(encoding="utf-8"))


def found_variants(recipe: Recipe, bundles: Sequence[Bundle]) -> Iterator[Contender]:
    """What the searches found, each run as it is served; fp32 once."""
    for number, bundle in enumerate(bundles):
        for variant in bundle.manifest.variants:
            if variant.name == "fp32" and number:
                continue
            lost = drop(recipe.evaluation.metric, reached(bundle, variant.name, recipe), reached(bundle, "fp32", recipe))
            name = f"{variant.name}{f' of search {number + 1}' if number else ''}"
            yield from Contender.of(name, bundle.file(variant.name), variant.batch, lost)


def reached(bundle: Bundle, name: str, recipe: Recipe) -> float:
    """A variant's metric on the validation split, as it was measured when it was made."""
    measured = bundle.manifest.variant(name).measurements
    assert measured
    return measured.metrics["validation"][recipe.evaluation.metric]


def olive_contenders(recipe: Recipe, encoded: Encoded, files: Mapping[str, Path], fp32: float, threads: int) -> Iterator[Contender]:
    """Olive's models in the same kind of session, on the same validation rows, of whose metric `fp32` is reached by fp32."""
    metric = recipe.evaluation.metric
    for name, path in files.items():
        run = run_session(open_session(path, threads))
        value = score_split(run, encoded.split("validation"), bins=recipe.evaluation.calibration_bins).metrics()[metric]
        yield from Contender.of(f"Olive's {name}", path, "any", drop(metric, value, fp32))


def best_times(contenders: Sequence[Contender], torch: Run, request: Requests, threads: int) -> dict[str, Seconds]:
    """Seconds for a request by name, of each session."""
    medians: dict[str, list[float]] = {"torch": [], **{each.name: [] for each in contenders}}
    for _ in range(SESSIONS):
        runs = {"torch": torch, **{each.name: each.open(threads) for each in contenders}}
        for name, seconds in take_turns(runs, request, ROUNDS).items():
            medians[name].append(float(np.median(seconds)))
    return {name: np.array(found) for name, found in medians.items()}


def pairs(ours: Sequence[Contender], theirs: Sequence[Contender], taken: Mapping[str, Seconds]) -> list[Pair]:
    """For each of Olive's the pair that decides, the closest first. fp32 loses nothing, so there is one."""
    found = [min((Pair.of(one, other, taken) for one in ours if one.lost <= other.lost), key=lambda pair: pair.ratio) for other in theirs]
    return sorted(found, key=lambda pair: -pair.low)


def beside_olive(recipe: Recipe, encoded: Encoded, bundles: Sequence[Bundle], torch: Run, rows: int, python: Path) -> bool:
    """Print all of Olive's models beside all of ours; whether for each of them one of ours is as fast and loses as little.

    `bundles` are what the searches found, of one fp32 file; `rows` is the size of the requests, beside single rows.
    """
    name, threads = bundles[0].manifest.name, recipe.serving.threads or usable_cores()
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        files, failed = olive_models(python, bundles[0].file("fp32"), encoded, str(recipe.model["family"]), Path(scratch))
        print(f"\n{name} beside Olive: {len(files)} models in {time.perf_counter() - start:.0f} s", flush=True)
        ours = list(found_variants(recipe, bundles))
        theirs = list(olive_contenders(recipe, encoded, files, reached(bundles[0], "fp32", recipe), threads))
        for route, reason in failed.items():
            print(f"  {route}: {reason}", flush=True)
        if not theirs:
            print(f"FAILS  {name}: beside Olive: it made no model", flush=True)
            return False
        return compared(name, encoded, ours, theirs, torch, (rows, 1), threads)


def compared(
    name: str, encoded: Encoded, ours: Sequence[Contender], theirs: Sequence[Contender], torch: Run, sizes: Sequence[int], threads: int
) -> bool:
    """Print the times of all for requests of each size; whether none of Olive's is ahead in any."""
    taken = {size: best_times((*ours, *theirs), torch, requests(encoded.split("test"), (), size), threads) for size in sizes}
    print(table(taken, (*ours, *theirs)), flush=True)
    closest = {size: pairs(ours, theirs, found)[0] for size, found in taken.items()}
    holds = [verdict(name, size, pair, taken[size], len(theirs)) for size, pair in closest.items()]
    winner = closest[sizes[0]].theirs
    invariance = check_invariance(winner.open(threads), encoded.split("validation"))
    print(f"       {winner.name}: {invariance.changed} of {invariance.rows} labels change by their neighbours, which Olive does not ask")
    return all(holds)


def table(taken: Mapping[int, Mapping[str, Seconds]], contenders: Sequence[Contender]) -> str:
    """The times of all in the best of their sessions, the fastest in the larger requests first."""
    drops = {each.name: f"{each.drop:+.4f}" for each in contenders}
    first = next(iter(taken.values()))
    names = sorted(first, key=lambda name: float(first[name].min()))
    width = max(map(len, names))
    lines = [f"  {'':{width}}  " + "  ".join(f"{f'ms, {size} rows' if size > 1 else 'ms, 1 row':>11}" for size in taken) + "     drop"]
    for name in names:
        cells = "  ".join(f"{found[name].min() * 1e3:11.3f}" for found in taken.values())
        lines.append(f"  {name:{width}}  {cells}  {drops.get(name, ''):>7}")
    return "\n".join(lines)


def verdict(recipe: str, size: int, pair: Pair, taken: Mapping[str, Seconds], models: int) -> bool:
    """Print the pair in which Olive comes closest; whether ours is as fast, or slower by no more than the rounds differ."""
    holds = pair.low <= 1
    ours, theirs = (f"{each.name} p50 {taken[each.name].min() * 1e3:.3f} ms at drop {each.drop:+.4f}" for each in (pair.ours, pair.theirs))
    print(
        f"{'holds' if holds else 'FAILS':6} {recipe}: beside Olive, batches of {size}: {ours} vs {theirs}: {pair.ratio:.3f} × its time "
        f"[{pair.low:.3f}, {pair.high:.3f}], the closest of {models}",
        flush=True,
    )
    return holds
