"""Optimizers and schedules, by the values that they give."""

from typing import Any

import pytest
import torch
from torch import nn

from tasks.core.recipe import Training
from tasks.training.optimizer import learning_rate_factor, make_optimizer


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def factors(steps: int, **training: Any) -> list[float]:
    factor = learning_rate_factor(Training.parse(training), steps)
    return [factor(step) for step in range(steps)]


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_each_optimizer_is_torchs(name: str, kind: type[torch.optim.Optimizer]) -> None:
    made = make_optimizer(net(), Training.parse({"optimizer": name, "learning_rate": 0.25, "momentum": 0.75}))
    assert isinstance(made, kind)
    assert {group["lr"] for group in made.param_groups} == {0.25}
    assert made.defaults.get("momentum", 0.75) == 0.75


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_weight_decay_falls_on_weights_alone(name: str) -> None:
    made = make_optimizer(net(), Training.parse({"optimizer": name, "weight_decay": 0.5}))
    decay = {tuple(parameter.shape): group["weight_decay"] for group in made.param_groups for parameter in group["params"]}
    assert decay == {(3, 4): 0.5, (2, 3): 0.5, (3,): 0.0, (2,): 0.0}


def test_frozen_parameters_are_left_alone() -> None:
    module = net()
    frozen = next(module.parameters())
    frozen.requires_grad = False
    made = make_optimizer(module, Training())
    assert all(parameter is not frozen for group in made.param_groups for parameter in group["params"])


def test_a_module_of_weights_alone_has_one_group() -> None:
    assert len(make_optimizer(nn.Linear(2, 2, bias=False), Training()).param_groups) == 1


def test_constant() -> None:
    assert factors(3) == [1, 1, 1]


def test_linear_falls_towards_zero_after_the_last_step() -> None:
    assert factors(4, schedule="linear") == [1, 0.75, 0.5, 0.25]


def test_cosine_is_half_way_in_the_middle() -> None:
    assert factors(4, schedule="cosine") == pytest.approx([1, 0.8536, 0.5, 0.1464], abs=1e-4)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_rises_in_equal_parts_to_the_full_rate(schedule: str) -> None:
    found = factors(10, schedule=schedule, warmup=0.4)
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert found[4:] == pytest.approx(factors(6, schedule=schedule))


def test_all_warm_up_has_no_schedule_left() -> None:
    assert factors(2, schedule="linear", warmup=1.0) == [0.5, 1]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_steps_beyond_the_last_have_no_rate(schedule: str) -> None:
    assert learning_rate_factor(Training.parse({"schedule": schedule}), 5)(7) == pytest.approx(0)
