"""Threads on the CPU: as many as one batch has work for."""

import torch
from torch import nn

from tasks.training.device import fitting_threads


def threads_for(width: int) -> int:
    with fitting_threads(nn.Linear(width, width), {"input": torch.ones(32, width)}):
        return torch.get_num_threads()


def test_small_work_stays_on_one_thread_and_large_work_takes_all() -> None:
    before = torch.get_num_threads()
    assert threads_for(8) == 1
    assert threads_for(8000 if before > 8 else 3000) == before


def test_the_number_of_before_comes_back() -> None:
    before = torch.get_num_threads()
    threads_for(8)
    assert torch.get_num_threads() == before


def test_counting_draws_no_random_numbers() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    state = torch.get_rng_state()
    with fitting_threads(module, {"input": torch.ones(2, 4)}):
        assert torch.equal(torch.get_rng_state(), state)
