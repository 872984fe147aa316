"""The average of the last steps' weights."""

import torch
from torch import nn

from tasks.training.averaging import averaged


def test_it_follows_the_last_steps_and_forgets_the_first() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, -1000.0)
    average = averaged(module)
    seen = []
    for step in range(400):
        nn.init.constant_(module.weight, float(step))
        average.update_parameters(module)
        seen.append(float(average.module.state_dict()["weight"]))
    assert 399 - 200 < seen[-1] < 399 - 20
    assert seen == sorted(seen)


def test_weights_that_stay_are_their_average() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = averaged(module)
    for _ in range(5):
        average.update_parameters(module)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(average.module.state_dict()[name], value)
