"""What the shipped recipes reach: `python -m tests.benchmarks.results FILE` runs them all and writes the page (`make results`).

Each in a new workspace, by the command that users type, with three seeds unless one takes too long. MAASFLOW_MIRROR stands in for
the hub. A recipe whose gates fail ends it. With `--workspace FOLDER` what was run before, and how long it took, stays for the next time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks import versioning
from tasks.compress import CompressResult
from tasks.core.git import current_commit
from tasks.core.machine import this_machine
from tasks.core.metrics import Interval
from tasks.core.stages import StageResult, code_key, library_versions, write_text
from tasks.core.workspace import Workspace
from tasks.cross_validate import CrossValidateResult
from tasks.evaluate import EvaluateResult
from tasks.plan import Plan
from tasks.train import TrainResult

SEEDS = 3
LONGEST = 240.0
"""Seconds of a run from which on one seed has to do."""
RECIPES = (
    "digits-mlp",
    "mnist-mlp",
    "hotel-zh-bow",
    "titanic-mlp",
    "sst2-bert",
    "imdb-gpt2",
    "shakespeare-lstm",
    "mnist-resnet",
    "digits-transfer",
)
SCRATCH = ("base=null", "gates=[]", "release.name=digits-scratch")
"""digits-transfer on the same examples, from new weights."""


@dataclass(frozen=True)
class Outcome:
    """One run of a recipe: how long the command took, and what its stages found."""

    plan: Plan
    version: str
    rows: dict[str, int]
    seconds: float
    trained: TrainResult
    evaluated: EvaluateResult
    compressed: CompressResult
    folds: CrossValidateResult | None

    @property
    def metric(self) -> str:
        return self.plan.recipe.evaluation.metric

    @property
    def torch(self) -> Interval:
        return self.evaluated.metrics[self.metric]

    @property
    def served(self) -> float:
        return self.compressed.choice.test


def outcome(workspace: Workspace, recipe: str, settings: tuple[str, ...]) -> Outcome:
    """Run a recipe as a person does, and read what its stages left."""
    command = [sys.executable, "-m", "flows.cli", "run", recipe, *(part for setting in settings for part in ("--set", setting))]
    times = workspace.state / "results.json"
    taken = json.loads(times.read_text()) if times.is_file() else {}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, check=False)
    # A command that finds all of it done takes a second, which says nothing.
    seconds = taken.setdefault(" ".join([code_key(), *command[3:]]), time.perf_counter() - start)
    if done.returncode:
        sys.exit(f"{' '.join(command[3:])} ended with {done.returncode}:\n{done.stderr}")
    write_text(times, json.dumps(taken))
    plan = Plan.open(recipe, settings, root=workspace.root)
    version = versioning.version(workspace, plan.recipe.dataset)
    assert version
    keys = plan.keys(version)

    def found(stage: str, key: str, kind: type[StageResult]) -> StageResult | None:
        done = plan.store.find(stage, key, kind)
        return done.result if done else None

    trained, evaluated = found("train", keys.train, TrainResult), found("evaluate", keys.evaluate, EvaluateResult)
    compressed, folds = found("compress", keys.compress, CompressResult), found("cross_validate", keys.cross_validate, CrossValidateResult)
    assert isinstance(trained, TrainResult)
    assert isinstance(evaluated, EvaluateResult)
    assert isinstance(compressed, CompressResult)
    assert folds is None or isinstance(folds, CrossValidateResult)
    print(f"{recipe} {' '.join(settings)}: {evaluated.figure}, {seconds:.0f} s", flush=True)
    return Outcome(plan, version.digest, version.rows, seconds, trained, evaluated, compressed, folds)


def outcomes(workspace: Workspace, recipe: str, *settings: str) -> list[Outcome]:
    found = [outcome(workspace, recipe, settings)]
    if found[0].seconds <= LONGEST:
        # Released by other names, so that none has to be as good as the one before it.
        found += [
            outcome(workspace, recipe, (*settings, f"training.seed={seed}", f"release.name={recipe}-seed-{seed}"))
            for seed in range(1, SEEDS)
        ]
    return found


def row(recipe: str, found: list[Outcome]) -> str:
    first = found[0]
    served = [each.served for each in found]
    spread = f" ± {np.std(served, ddof=1):.4f}" if len(found) > 1 else ""
    cells = [
        f"`{recipe}`",
        f"{first.plan.recipe.dataset} `{first.version[:8]}`",
        f"{first.metric.replace('_', ' ')}",
        f"{first.torch.value:.4f} [{first.torch.low:.4f}, {first.torch.high:.4f}]",
        f"{np.mean(served):.4f}{spread} ({len(found)})",
        f"{first.compressed.chosen}, {first.compressed.choice.bytes / 1e3:,.0f} kB ({first.compressed.choice.size_ratio:.2f} ×)",
        f"{first.trained.parameters:,}",
        first.trained.precision,
        f"{first.seconds:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| recipe | dataset | metric | torch, test split [95 %] | served, mean over seeds (seeds) | variant | parameters | precision | seconds |\n"
    "| --- | --- | --- | --- | --- | --- | ---: | --- | ---: |"
)


def remarks(found: dict[str, list[Outcome]], scratch: list[Outcome]) -> list[str]:
    hotel, titanic = found["hotel-zh-bow"][0].evaluated.metrics["balanced_accuracy"], found["titanic-mlp"]
    folds = [each.folds for each in titanic if each.folds]
    lstm = found["shakespeare-lstm"][0].evaluated.metrics
    accuracies = [[each.torch.value for each in runs] for runs in (found["digits-transfer"], scratch)]
    transfer, alone = (f"{np.mean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})" for values in accuracies)
    return [
        f"- `hotel-zh-bow`: balanced accuracy {hotel.value:.4f} [{hotel.low:.4f}, {hotel.high:.4f}]; 69 % of the reviews are positive.",
        f"- `titanic-mlp`: {len(folds[0].folds)}-fold cross-validated accuracy by seed: "
        + ", ".join(f"{each.mean('accuracy'):.4f} ± {each.deviation('accuracy'):.4f}" for each in folds)
        + ".",
        f"- `shakespeare-lstm`: {lstm['nats'].value:.4f} nats or {lstm['bits'].value:.4f} bits a character, perplexity {lstm['perplexity'].value:.3f}.",
        (
            f"- `digits-transfer`: 20 examples of each of the digits 5–9. From `digits-low`'s weights {transfer} of the test rows are right, "
            f"from new weights, with the same model, examples and steps, {alone}. It is a head start: trained for longer, new weights catch up."
        ),
    ]


def page(found: dict[str, list[Outcome]], scratch: list[Outcome], workspace: Workspace) -> str:
    machine, commit = this_machine(), current_commit(workspace.root)
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items() if name != "maasflow")
    return "\n".join(
        [
            "# What the recipes reach",
            "",
            "Made by `make results`; not edited by hand. Every run is the command `maasflow run RECIPE` in a new workspace, from the data to",
            "the served bundle; its seconds are those of the whole command with the first seed. The interval is a bootstrap's over test rows,",
            "the spread is the standard deviation over seeds.",
            "",
            HEADER,
            *(row(recipe, runs) for recipe, runs in found.items()),
            "",
            *remarks(found, scratch),
            "",
            (
                f"{machine.processor}, {machine.cores} cores ({', '.join(machine.instructions)}), no GPU. {versions}. "
                f"Commit {commit.digest or 'none'}{', with changes' if commit.dirty else ''}, {datetime.now(UTC):%Y-%m-%d}."
            ),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, metavar="FILE")
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="some only, of which rows are printed and no page is written")
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    here = Workspace.current()
    with tempfile.TemporaryDirectory() as scratch_folder:
        workspace = Workspace((options.workspace or Path(scratch_folder)).resolve())
        if not (workspace.root / "dvc.yaml").is_file():
            subprocess.run([sys.executable, "-m", "flows.cli", "init", str(workspace.root)], check=True, capture_output=True)
        os.environ["MAASFLOW_WORKSPACE"] = str(workspace.root)
        chosen = tuple(options.recipes) or RECIPES
        found = {recipe: outcomes(workspace, recipe) for recipe in chosen}
        if chosen != RECIPES:
            print("\n".join([HEADER, *(row(recipe, runs) for recipe, runs in found.items())]))
            return
        scratch = outcomes(workspace, "digits-transfer", *SCRATCH)
        options.target.write_text(page(found, scratch, here), encoding="utf-8")


if __name__ == "__main__":
    main()
