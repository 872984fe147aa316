"""The first calls of a model, before anybody waits for one: they take memory, and on a device kernels, that later ones find there."""

import math
import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from deploy.serving.cost import Cost
from deploy.serving.instances import example_instance
from deploy.serving.tensors import example_tensors
from deploy.serving.waiting import MOST_ROWS, MOST_TOKENS
from tasks.core.bundle import Manifest
from tasks.core.errors import MaasflowError
from tasks.core.language import WINDOW
from tasks.core.predictor import Predictor
from tasks.core.transforms import Tensors, TextTransform

_FIRST: Final = 5
_MANY: Final = 32
_SECONDS: Final = 0.3
"""For all larger calls of a model: it goes on while older versions and other models answer, on the same cores."""


class UnfitError(MaasflowError):
    """A model that runs, and gives no answers that could be sent. Its text is safe to send to a client."""


def warm_up(predictor: Predictor) -> Cost:
    """What its batches take, by a few runs of one row and of many. Raises UnfitError, and whatever ONNX Runtime raises."""
    manifest = predictor.manifest
    if isinstance(manifest.transform, TextTransform):
        # The tokenizer is read when it is first needed.
        manifest.transform.encode(manifest.transform.columns([example_instance(manifest.transform)]))
    outputs, least = _time(predictor, 1, 1)
    _check(manifest, outputs)
    longest = min(spec.longest or _MANY for spec in manifest.inputs)
    rows, length = (1, min(_MANY, longest)) if predictor.dynamic else (_MANY, 1)
    _, most = _time(predictor, rows, length)
    cost, end = Cost([(1, least), (rows * length, most)]), time.perf_counter() + _SECONDS
    for rows, length in _sizes(predictor):
        if time.perf_counter() + cost.seconds(rows * length) > end:
            break
        _run(predictor, rows, length)
    return cost


def _time(predictor: Predictor, rows: int, length: int) -> tuple[Tensors, float]:
    """The outputs for so many rows, and the seconds that the fastest of a few runs took."""
    fastest = math.inf
    for _ in range(_FIRST):
        start = time.perf_counter()
        outputs = _run(predictor, rows, length)
        fastest = min(fastest, time.perf_counter() - start)
    return outputs, fastest


def _run(predictor: Predictor, rows: int, length: int) -> Tensors:
    """All outputs for example tensors, by one thread, as batches are run."""
    names = [spec.name for spec in predictor.manifest.outputs]
    return dict(zip(names, predictor.run(names, example_tensors(predictor.manifest.inputs, rows, length), spread=False), strict=True))


def _sizes(predictor: Predictor) -> Iterator[tuple[int, int]]:
    """Rows and lengths of the calls that the batcher makes, in powers of two, from few tokens to many."""
    manifest, longest = predictor.manifest, 1
    # Each generation is a row of its own, and a longer call would give the whole vocabulary at each of its tokens.
    most_rows = 1 if predictor.variant.batch == "one" or manifest.state else MOST_ROWS
    most_tokens = WINDOW if manifest.state else MOST_TOKENS
    if predictor.dynamic:
        longest = min(most_tokens, *(spec.longest or most_tokens for spec in manifest.inputs))
    sizes = [(rows, length) for rows in _powers(most_rows) for length in _powers(longest) if rows * length <= most_tokens]
    yield from sorted(sizes, key=math.prod)[1:]


def _powers(most: int) -> Iterator[int]:
    """1, 2, 4 … and the most."""
    yield from (1 << power for power in range((most - 1).bit_length()))
    yield most


def _check(manifest: Manifest, outputs: Tensors) -> None:
    """Raises UnfitError for what one row of one token is answered with, where the manifest says otherwise or it is no number."""
    expected = {spec.name: (1, *(max(size, 1) for size in spec.shape)) for spec in manifest.outputs}
    if manifest.labels:
        expected["logits"] = (1, len(manifest.labels))
    for name, output in outputs.items():
        if output.shape != expected[name]:
            raise UnfitError(f"its output '{name}' has the shape {list(output.shape)}, expected {list(expected[name])}")
        if not np.isfinite(output).all():
            raise UnfitError(f"its output '{name}' is not finite")
