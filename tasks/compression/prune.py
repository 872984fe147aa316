"""Structured pruning: what changes the loss least is taken out of the tensors, and the rest learns to do without."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field
from torch import Tensor

from tasks.compression import Compressor, Subject
from tasks.core.errors import MaasflowError
from tasks.recovery import Lesson, Trained, can_be_smaller
from tasks.units import Kept, Kind

Share = Annotated[float, Field(ge=0, lt=1)]

_ROUND: Final[dict[Kind, int]] = {"neurons": 16, "channels": 8, "units": 16}
"""Kept units are a multiple of this, as the kernels for matrices take so many at once."""


class Prune(Lesson, Compressor):
    """Take out heads, neurons, channels, LSTM units and layers by a first-order score, and train the rest on the whole model's answers.

    The score is that of Molchanov et al. (2019): gradient times weight, over training rows.
    """

    begins_trained: ClassVar[bool] = True

    heads: Share = 0.0
    """The share of attention heads that goes, over all layers together. Each layer keeps one."""
    neurons: Share = 0.5
    """The share of the neurons of dense and feed-forward layers that goes."""
    channels: Share = 0.5
    """The share of the channels within convolutional blocks that goes."""
    units: Share = 0.5
    """The share of the units of LSTM layers that goes."""
    layers: Share = 0.0
    """The share of layers that goes, whole. Those of an LSTM all stay: none adds to the features as if it could be passed by."""
    rows: Annotated[int, Field(ge=32)] = 1024
    """Training rows for the scores; of a running text, windows."""

    def unfit(self, subject: Subject) -> str | None:
        return can_be_smaller(subject.recipe, subject.trained)

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - it begins with the trained module
        assert subject.trained
        whole = Trained.open(subject.recipe, subject.encoded, subject.classes, subject.trained)
        kept, layers = self.kept(whole), whole.layers
        if not kept:
            raise MaasflowError("nothing would be left out", "raise a share, as neurons: 0.5")
        # Where layers add to the features that go through them, those stay as wide as they were.
        like = kept.get(layers.key, range(layers.count)) if layers and layers.scored else ()
        self.write_taught(whole, kept, like, target)

    def kept(self, whole: Trained) -> Kept:
        """The units that stay, by part: of each kind those of the largest effect, wherever they are."""
        shares: dict[Kind, float] = {
            "heads": self.heads,
            "neurons": self.neurons,
            "channels": self.channels,
            "units": self.units,
            "layers": self.layers,
        }
        effects, found = whole.effects(self.rows), dict[str, list[int]]()
        for kind, share in shares.items():
            parts = {part.key: effects[part.key] for part in whole.parts if part.kind == kind and part.scored}
            if share and parts:
                found |= strongest(parts, share, _ROUND.get(kind, 1))
        return found


def strongest(effects: Mapping[str, Tensor], share: float, multiple: int = 1) -> dict[str, list[int]]:
    """The units of each part that are left when a share of all goes; a multiple of so many in each, and never none."""
    ordered = sorted((float(value) for values in effects.values() for value in values), reverse=True)
    least = ordered[max(1, round(len(ordered) * (1 - share))) - 1]
    found = {}
    for key, values in effects.items():
        count = int((values >= least).sum())
        count = min(len(values), max(1, -(-count // multiple)) * multiple)
        found[key] = sorted(values.argsort(descending=True)[:count].tolist())
    return found
