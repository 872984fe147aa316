"""Golden rows: a few real inputs with what each variant answered when it was released, which it is held against before it is served.

Digests say that the files are those of the release; golden rows say that they answer as then, on this processor and ONNX Runtime.
"""

from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from tasks.core.bundle import GOLDEN, Bundle
from tasks.core.config import Config
from tasks.core.cuda import PROVIDER as CUDA
from tasks.core.errors import BundleError, InputError
from tasks.core.generator import Generator
from tasks.core.machine import Place, this_machine
from tasks.core.predictor import Predictor, probabilities, runtime_of, unanswered

_OUTCOMES: Final = 8
"""Of an answer that are kept, the most probable ones."""
_HERE: Final = 1e-4
_ELSEWHERE: Final = 0.25

Answer = tuple[tuple[int, float], ...]
"""The most probable labels, or next tokens, by their number, each with its probability."""


class Golden(Config):
    """What lies in the bundle as GOLDEN."""

    rows: tuple[Any, ...]
    """As a client sends them; of a language model token ids, of which the next is asked for."""
    answers: dict[str, tuple[Answer, ...]]
    """By variant, one for each row."""

    @classmethod
    def read(cls, bundle: Bundle) -> Self | None:
        """Those of a bundle whose files were verified, if it has any. Raises BundleError."""
        if bundle.manifest.golden is None:
            return None
        try:
            return cls.model_validate_json((bundle.folder / GOLDEN).read_bytes())
        except (OSError, ValueError) as error:
            raise BundleError(f"bundle '{bundle.manifest.name}': {GOLDEN} cannot be read", "export the model again") from error

    def otherwise(self, predictor: Predictor) -> list[int]:
        """The rows that are answered otherwise than when the variant was released.

        Two answers differ by the share of the probability that moved from the outcomes of one to others: the total variation
        distance, where all outcomes are kept. Where the variant was measured in this very place (processor, threads, ONNX Runtime) its
        kernels are the same, and so are its answers, but for the last digits. Elsewhere they add in another order, and int8 ones may
        even saturate (on processors without VNNI): how good a variant is there is for `tasks.remeasure` to say, with all rows, and
        what is looked for here is a variant that is not itself. So a quarter may move, by which no label changes that led by half. So
        too on a CUDA device, whose libraries choose their kernels anew by how fast they are.
        """
        variant, runtime = predictor.variant, runtime_of(predictor.session)
        here = variant.place == Place(machine=this_machine(), runtime=runtime) and runtime.provider != CUDA
        most = _HERE if here else _ELSEWHERE
        pairs = zip(self.rows, self.answers[variant.name], strict=True)
        return [number for number, (row, given) in enumerate(pairs) if _moved(predictor, row, given) > most]


def answer(predictor: Predictor, row: Any) -> Answer:
    """What a variant answers to a row alone. Raises InputError where it has no finite answer."""
    found = _distribution(predictor, row)
    order = np.argsort(-found, kind="stable")[:_OUTCOMES].tolist()
    return tuple((index, float(found[index])) for index in order)


def _moved(predictor: Predictor, row: Any, given: Answer) -> float:
    """The share of an answer's probability that is elsewhere now: 0 where it answers as it did, 1 where it has no finite answer."""
    try:
        found = _distribution(predictor, row)
    except InputError:
        return 1.0
    kept = sum(min(probability, float(found[index])) for index, probability in given)
    return 1 - kept / sum(probability for _, probability in given)


def _distribution(predictor: Predictor, row: Any) -> npt.NDArray[np.float64]:
    """float64 [labels or vocabulary]. Raises InputError."""
    if predictor.manifest.task == "language_modelling":
        generator, ids = Generator(predictor), np.array(row, np.int64)
        # In two calls, so that the state is carried from one to the other.
        state = generator.read(ids[: len(ids) // 2], generator.begin())
        after, _ = generator.follow(ids[len(ids) // 2 :], state)
        return probabilities(after.astype(np.float32))
    logits = predictor.logits(predictor.tensors([row]))
    if unanswered(logits):
        raise InputError("the model has no finite answer for it")
    (found,) = probabilities(logits)
    return np.asarray(found)
