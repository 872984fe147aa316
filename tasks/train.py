"""Train: the recipe's model on the training split, keeping the weights that are best on the validation split.

`accelerate launch -m tasks.train RECIPE`, and `torchrun -m tasks.train RECIPE`, train on several GPUs or machines, and leave
the training where `maasflow run RECIPE` finds it done. Machines share the workspace by a network file system.
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file
from torch import nn

from tasks import versioning
from tasks.core.command import report
from tasks.core.encoded import Encoded
from tasks.core.recipe import LOWER_IS_BETTER, Base, Recipe
from tasks.core.stages import StageResult
from tasks.encode import EncodeResult, encode
from tasks.models import HEAD, Family, build_family
from tasks.plan import Plan
from tasks.training.adversary import Adversary
from tasks.training.augmentation import augmenter
from tasks.training.classification import Classification
from tasks.training.device import accelerator
from tasks.training.language_modelling import LanguageModelling
from tasks.training.loop import WEIGHTS, Epoch, Loop
from tasks.training.objective import Objective

_log = logging.getLogger("maasflow.train")


class TrainResult(StageResult):
    """What training ended with; the weights are those of `best`."""

    parameters: int
    device: str
    precision: str
    processes: int
    part: int
    """Rows that went through the model at once: the recipe's batch size, or less where memory was short."""
    best: Epoch
    history: tuple[Epoch, ...]

    @property
    def figure(self) -> str:
        where = f"{self.processes} × {self.device}" if self.processes > 1 else self.device
        name, value = list(self.best.headline.items())[-1 if "validation accuracy" in self.best.headline else 0]
        return f"{self.parameters:,} parameters on {where}, best epoch {self.best.epoch} of {len(self.history)}: {name} {value:.4f}"


def train(
    recipe: Recipe, classes: int, encoded: Encoded, out: Path, report: Callable[[Epoch], None] = lambda _: None, base: Path | None = None
) -> TrainResult:
    """Write the best epoch's weights to `out`; `base` is the folder of the training that this one starts from.

    Raises ConfigError for a model that does not fit, MaasflowError for a device.
    """
    torch.manual_seed(recipe.training.seed)
    family, module = build(recipe, encoded, classes)
    if recipe.base and base:
        start_from(module, recipe.base, load_file(base / WEIGHTS), recipe)
    _prepare(module, recipe)
    on = accelerator(recipe.training)
    loop = Loop(module, recipe.training, objective(recipe, family, module, encoded, on), on, out)
    history = loop.run(report)
    if on.is_main_process:
        loop.checkpoint.path.unlink(missing_ok=True)
    metric = recipe.training.keep_best
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return TrainResult(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        device=str(on.device),
        precision=on.mixed_precision if on.mixed_precision != "no" else "fp32",
        processes=on.num_processes,
        part=loop.part,
        best=min(history, key=lambda epoch: sign * epoch.validation[metric]),
        history=tuple(history),
    )


def build(recipe: Recipe, encoded: Encoded, classes: int) -> tuple[Family, nn.Module]:
    """The recipe's family and its module, newly initialised, with a logit for each class or each entry of the vocabulary."""
    family = build_family(recipe.model, encoded.task, recipe.origin.below("model"))
    inputs = encoded.transform.inputs
    return family, family.build(inputs, classes or inputs[0].vocabulary or 0)


def load(recipe: Recipe, encoded: Encoded, classes: int, trained: Path) -> tuple[Family, nn.Module]:
    """The family and the trained module, on the CPU and in evaluation mode."""
    family, module = build(recipe, encoded, classes)
    module.load_state_dict(load_file(trained / WEIGHTS))
    return family, module.eval()


def start_from(module: nn.Module, base: Base, weights: dict[str, torch.Tensor], recipe: Recipe) -> None:
    """Load another training's weights, the head's only where the recipe keeps it. Raises ConfigError where they do not fit."""
    wanted = {name: value for name, value in module.state_dict().items() if base.head == "keep" or not name.startswith(HEAD)}
    taken = {name: value for name, value in weights.items() if base.head == "keep" or not name.startswith(HEAD)}
    for name in sorted(wanted.keys() | taken.keys()):
        here, there = (list(side[name].shape) if name in side else None for side in (wanted, taken))
        if here != there:
            advice = "set base.head to new" if name.startswith(HEAD) else "give both recipes the same model and transform"
            raise recipe.origin.error(
                ("base", "recipe"), f"the weights of '{base.recipe}' do not fit: {name} has the shape {there} there and {here} here", advice
            )
    module.load_state_dict(taken, strict=False)


def _prepare(module: nn.Module, recipe: Recipe) -> None:
    """Freeze what is not trained, and keep less in memory where the recipe says so. Raises ConfigError."""
    if recipe.training.freeze_backbone:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.startswith(HEAD))
    if recipe.training.gradient_checkpointing:
        able: list[Any] = [child for child in module.modules() if getattr(child, "supports_gradient_checkpointing", False)]
        if not able:
            raise recipe.origin.error(
                ("training", "gradient_checkpointing"),
                f"the family '{recipe.model['family']}' cannot do it",
                "leave it out: bert and gpt2 can",
            )
        able[0].activation_checkpointing_enable()


def objective(recipe: Recipe, family: Family, module: nn.Module, encoded: Encoded, on: Accelerator) -> Objective:  # type: ignore[type-arg]
    """What the recipe's training minimises. Raises ConfigError for what fits neither the data nor the family."""
    training, validation = encoded.split("train"), encoded.split("validation")
    augment = augmenter(recipe.training.augmentation, encoded.transform, recipe.origin.below("training"))
    adversary = _adversary(recipe, family, module)
    if encoded.task == "language_modelling":
        return LanguageModelling(recipe.training, training, validation, on, family.state)
    return Classification(recipe.training, training, validation, on, augment, adversary)


def _adversary(recipe: Recipe, family: Family, module: nn.Module) -> Adversary | None:
    if not recipe.training.adversarial:
        return None
    embedding = family.token_embedding(module)
    if embedding is None:
        raise recipe.origin.error(
            ("training", "adversarial"), f"the family '{recipe.model['family']}' cannot do it", "leave it out: bert, gpt2 and text_pool can"
        )
    return Adversary(embedding, recipe.training.adversarial)


def train_together(plan: Plan) -> tuple[Path, Path]:
    """Train a plan in all processes that were launched together; the encoded and the trained folder. Raises MaasflowError."""
    state = PartialState(cpu=plan.recipe.training.device == "cpu" or not torch.cuda.is_available())
    with state.main_process_first():
        version = versioning.build(plan.workspace, plan.recipe.dataset, log=_log.info) if state.is_main_process else None
    version = version or versioning.version(plan.workspace, plan.recipe.dataset)
    assert version
    encoded_base, trained_base = train_together(plan.base) if plan.base else (None, None)
    keys, store, prepared = plan.keys(version), plan.store, plan.workspace.prepared(version.name)
    encoded = store.run(
        "encode", keys.encode, EncodeResult, lambda out: encode(plan.recipe, plan.dataset, prepared, out, encoded_base)
    ).folder

    def work(out: Path) -> TrainResult:
        return train(plan.recipe, len(plan.dataset.classes), Encoded(encoded), out, base=trained_base)

    # All must know whether there is anything to do before the first waits for the others in it.
    done = [store.find("train", keys.train, TrainResult) if state.is_main_process else None]
    broadcast_object_list(done)
    if done[0] is None and not state.is_main_process:
        work(store.partial("train", keys.train))
    if state.is_main_process:
        found = store.run("train", keys.train, TrainResult, work, resumable=True)
        _log.info("%s: %s%s", plan.recipe_name, found.result.figure, " (was done before)" if found.cached else "")
    state.wait_for_everyone()
    return encoded, store.folder("train", keys.train)


def main() -> int:
    """The exit code of `python -m tasks.train RECIPE`."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("maasflow").setLevel(logging.INFO if int(os.environ.get("RANK", "0")) == 0 else logging.ERROR)
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python -m tasks.train RECIPE\n       accelerate launch -m tasks.train RECIPE", file=sys.stderr)
        return 2
    try:
        train_together(Plan.open(sys.argv[1]))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last frame before the shell
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
