"""Too little memory for a batch. It is simulated: a module that raises torch's error for more than so many rows."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tasks.core.errors import MaasflowError
from tasks.training.loop import Epoch, Loop
from tests.tiny import encode_tiny
from tests.training import test_language_modelling as language
from tests.training.conftest import MakeLoop


class Small(nn.Module):
    """A module on a device that holds no more than so many rows in training."""

    def __init__(self, module: nn.Module, rows: int) -> None:
        super().__init__()
        self.inner, self.rows = module, rows

    def forward(self, **inputs: torch.Tensor) -> Any:
        if self.training and len(next(iter(inputs.values()))) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB (simulated)")
        return self.inner(**inputs)


def on_small(loop: Loop, rows: int) -> Loop:
    loop.module = Small(loop.module, rows)
    return loop


def trained(loop: Loop) -> list[Epoch]:
    return loop.run(lambda _: None)


def vector(loop: Loop) -> torch.Tensor:
    return nn.utils.parameters_to_vector(loop.plain.parameters()).detach()


def test_simulated_batches_that_do_not_fit_go_through_in_parts(make_loop: MakeLoop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "maasflow.train")
    small = on_small(make_loop(folder="small", batch_size=32, epochs=2), 10)
    whole, parts = make_loop(folder="whole", batch_size=32, epochs=2), make_loop(folder="parts", batch_size=8, accumulation=4, epochs=2)
    for loop in (small, whole, parts):
        trained(loop)
    assert small.part == 8
    assert torch.equal(vector(small), vector(parts))
    torch.testing.assert_close(vector(small), vector(whole), rtol=1e-3, atol=1e-4)
    assert [message.partition(" of ")[2][:2] for message in caplog.messages if "out of memory" in message] == ["me", "me"]


def test_simulated_the_size_that_fitted_is_kept_for_a_resumed_training(make_loop: MakeLoop) -> None:
    trained(on_small(make_loop(batch_size=32, epochs=1), 10))
    again = make_loop(batch_size=32, epochs=1)
    trained(again)
    assert again.part == 8


def test_simulated_where_not_even_one_row_fits_it_is_told(make_loop: MakeLoop) -> None:
    with pytest.raises(MaasflowError, match="the device's memory does not suffice for batches of 1") as caught:
        trained(on_small(make_loop(batch_size=4, epochs=1), 0))
    assert "lower training.batch_size" in caught.value.do


def test_another_error_of_the_module_is_not_taken_for_memory(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop()
    monkeypatch.setattr(loop.module, "forward", lambda **_: torch.zeros(2, 3) @ torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        loop._step(loop.objective.batches(0)[0], 32)


def test_simulated_a_language_models_lanes_go_through_in_parts(tmp_path: Path) -> None:
    running = encode_tiny(tmp_path / "running", "running")
    small = on_small(language.make_loop(running, tmp_path / "small", batch_size=12), 5)
    parts = language.make_loop(running, tmp_path / "parts", batch_size=3, accumulation=4)
    assert [epoch.validation for epoch in trained(small)] == [epoch.validation for epoch in trained(parts)]
    assert small.part == 3
    assert torch.equal(vector(small), vector(parts))
