"""What a person sees of a training."""

import io
import logging
import sys

import pytest

from tasks.training import progress
from tasks.training.progress import Progress
from tests.training.conftest import MakeLoop


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_in_a_terminal_the_last_epoch_is_a_plain_line(make_loop: MakeLoop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maasflow.train")
    loop = make_loop(epochs=3)
    last = loop.run(lambda _: None)[-1]
    (line,) = caplog.messages
    validation = last.validation
    assert line == (
        f"epoch 3/3  train loss {last.train_loss:.4f}  "
        f"validation log loss {validation['log_loss']:.4f}  validation accuracy {validation['accuracy']:.4f}"
    )


def test_a_long_epoch_is_told_of_while_it_lasts(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "maasflow.train")
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    with Progress(10, done=4) as shown:
        shown.step()
        shown.epoch(1, 2, {"train loss": 0.5}, last=False)
    assert caplog.messages == ["step 5/10", "epoch 1/2  train loss 0.5000"]


def test_lines_do_not_crowd(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "maasflow.train")
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 1e9)
    with Progress(10) as shown:
        shown.step()
        shown.epoch(1, 2, {}, last=False)
    assert caplog.messages == []


def test_a_terminal_gets_a_bar_and_no_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "maasflow.train")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(10, done=4) as shown:
        shown.step()
        shown.epoch(1, 2, {"train loss": 0.5}, last=True)
    assert "/10" in terminal.getvalue()
    assert "epoch 1/2  train loss 0.5000" in terminal.getvalue()
    assert caplog.messages == []
