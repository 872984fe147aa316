"""How training tells a person where it is: a bar in a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tqdm import tqdm

_log = logging.getLogger("maasflow.train")
_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts optimizer steps of `total`, `done` of which an earlier run did; where lines are printed, at most one in ten seconds."""

    def __init__(self, total: int, done: int = 0) -> None:
        self._total, self._done = total, done
        self._bar = tqdm(total=total, initial=done, unit="step", leave=False, dynamic_ncols=True) if sys.stderr.isatty() else None
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._due():
            self._line(f"step {self._done}/{self._total}")

    def epoch(self, epoch: int, epochs: int, figures: Mapping[str, float], *, last: bool) -> None:
        """Tell an epoch's figures; those of the last always."""
        text = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {epoch}/{epochs}  {text}")
        elif last or self._due():
            self._line(f"epoch {epoch}/{epochs}  {text}")

    def _due(self) -> bool:
        return time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES

    def _line(self, text: str) -> None:
        _log.info("%s", text)
        self._told = time.monotonic()
