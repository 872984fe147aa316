"""What the batches of a model take, learnt from those that were run."""

from collections.abc import Iterable
from typing import Final

_KEPT: Final = 0.98
"""The weight of each batch beside the one after it: about the last fifty count."""
_SURPRISE: Final = 4.0
_FIRST: Final = 0.2
"""The weight of what was known before them, which keeps the line in place where all batches are of one size."""


class Cost:
    """Seconds = `call` + `token` × tokens, by least squares. Tokens are rows where rows do not differ in length, and padding counts."""

    def __init__(self, first: Iterable[tuple[int, float]]) -> None:
        """From the tokens and seconds of batches of at least two sizes."""
        self._first = tuple(_FIRST * sum(sums) for sums in zip(*(_sums(*batch) for batch in first), strict=True))
        self._later = (0.0,) * len(self._first)
        self._fit()

    def seconds(self, tokens: int) -> float:
        """What a batch of so many takes."""
        return self.call + self.token * tokens

    def note(self, tokens: int, seconds: float) -> None:
        """A batch that was run. One that took very long, as something else had the processor meanwhile, counts as a little slow."""
        seconds = min(seconds, _SURPRISE * self.seconds(tokens))
        self._later = tuple(_KEPT * old + new for old, new in zip(self._later, _sums(tokens, seconds), strict=True))
        self._fit()

    def _fit(self) -> None:
        weight, tokens, squares, seconds, products = map(sum, zip(self._first, self._later, strict=True))
        self.token = max((weight * products - tokens * seconds) / (weight * squares - tokens * tokens), 0.0)
        # At least a token's, so that two texts of one length are never better off apart.
        self.call = max((seconds - self.token * tokens) / weight, self.token)
        self.each = seconds / tokens
        """Seconds for a token, in batches as they come."""
        self.batch = seconds / weight
        """Seconds for a batch."""


def _sums(tokens: int, seconds: float) -> tuple[float, ...]:
    """Of one batch, what the sums for a straight line are made of."""
    return 1.0, tokens, tokens * tokens, seconds, seconds * tokens
