"""Continuing a text with a language model's bundle."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from tasks.core.config import Config
from tasks.core.errors import BundleError, InputError, TooLargeError
from tasks.core.language import WINDOW, first_state
from tasks.core.pieces import Decoding, Stops
from tasks.core.predictor import Predictor
from tasks.core.transforms import Tensors, TextTransform

_CONTEXT: Final = 8
"""Tokens at the end of the prompt that are decoded with the first of the continuation."""

Reason = Literal["stop", "length"]
Ids = npt.NDArray[np.int64]
_NOTHING: Final[Ids] = np.empty(0, np.int64)


class Options(Config):
    """How a text is continued."""

    max_tokens: Annotated[int, Field(ge=1)] = 128
    """The most tokens that are sampled."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """0 takes the most probable token each time; 1 samples from the model's own probabilities, more from flatter ones."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Sample from this many of the most probable tokens."""
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Sample from the fewest most probable tokens, of those that `top_k` leaves, that have this probability together."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """The same seed gives the same text; without one, each text is another."""
    stop: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=4)] = ()
    """Texts, or one, before which the continuation ends."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value


class Generator:
    """A language model as a source of text. Safe to call from several threads.

    The model reads an empty prompt as the beginning of a line: it begins with a newline, which is no part of the text. Where
    its tokenizer knows none, the first token is drawn evenly from the vocabulary by the seed.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Raises BundleError unless the bundle is a language model's."""
        manifest = predictor.manifest
        transform = manifest.transform
        if manifest.task != "language_modelling" or not isinstance(transform, TextTransform):
            raise BundleError(f"bundle '{manifest.name}' is no language model: it cannot continue a text")
        self.predictor = predictor
        self.transform: TextTransform = transform
        self.state = manifest.state
        self.usual = np.ones(transform.vocabulary, np.bool_)
        """By id, whether it stands for a piece of a text."""
        self.usual[list(transform.special)] = False

    def generate(self, prompt: str, options: Options) -> "Generation":
        """A continuation that begins when it is iterated over. Raises InputError for a prompt that cannot be read."""
        return Generation(self, _NOTHING if prompt == "" else self.encode(prompt), options)

    def encode(self, text: Any) -> Ids:
        """Token ids of a text, int64 [length]. Raises InputError, and TooLargeError."""
        column = self.transform.column
        try:
            ids: Ids = self.transform.tensors(self.transform.encode({column: [text]}))["input_ids"][0]
        except TooLargeError:
            raise
        except InputError as error:
            raise InputError(f"the prompt cannot be read: {error.what.removeprefix('item 0: ')}") from None
        return ids

    def newline(self) -> Ids:
        """The id of a newline, or nothing where the tokenizer has none."""
        try:
            ids = self.encode("\n")
        except InputError:
            return _NOTHING
        return ids if self.usual[ids].all() else _NOTHING

    def begin(self) -> Tensors:
        """The state before anything was read."""
        return first_state(self.predictor.manifest.state_inputs, 1)

    def read(self, ids: Ids, state: Tensors) -> Tensors:
        """The state after the ids."""
        values = self.predictor.run(list(self.state.values()), self._inputs(ids, state))
        return dict(zip(self.state, values, strict=True))

    def follow(self, ids: Ids, state: Tensors) -> tuple[npt.NDArray[np.float64], Tensors]:
        """The logits [vocabulary] of what follows the ids, special ones −∞, and the state after them.

        Raises InputError where they are not finite.
        """
        logits, *values = self.predictor.run(["logits", *self.state.values()], self._inputs(ids, state))
        last = logits[0, -1].astype(np.float64)
        if not np.isfinite(last).all():
            raise InputError("the model has no finite answer after this text")
        return np.where(self.usual, last, -np.inf), dict(zip(self.state, values, strict=True))

    def _inputs(self, ids: Ids, state: Tensors) -> Tensors:
        return {"input_ids": ids[None], **state}


class Generation:
    """One continuation under way: an iterator over its pieces, of which some are empty, so that it can be left at any of them.

    The pieces together are the text. To stop it, stop iterating.
    """

    def __init__(self, generator: Generator, prompt: Ids, options: Options) -> None:
        self.prompt_tokens = len(prompt)
        self.completion_tokens = 0
        self.finish_reason: Reason | None = None
        """Why it ended, once it has: at one of the `stop` texts, or at `max_tokens`."""
        self._generator = generator
        self._prompt = prompt
        self._options = options
        self._random = np.random.default_rng(None if options.seed is None else options.seed % 2**64)
        context = prompt[generator.usual[prompt]][-_CONTEXT:]
        self._decoding = Decoding(generator.transform.decode, context.tolist())
        self._stops = Stops(options.stop)
        self._pieces = self._generate()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def _generate(self) -> Iterator[str]:
        state, ids = self._generator.begin(), self._prompt if self._prompt.size else self._generator.newline()
        while len(ids) > WINDOW:
            state, ids = self._generator.read(ids[:WINDOW], state), ids[WINDOW:]
            yield ""
        token = None if ids.size else int(self._random.choice(np.flatnonzero(self._generator.usual)))
        while self.finish_reason is None:
            if token is None:
                logits, state = self._generator.follow(ids, state)
                token = sample(logits, self._options, self._random)
            yield self._take(token)
            ids, token = np.array([token]), None

    def _take(self, token: int) -> str:
        """The piece of text that is certain with this token."""
        self.completion_tokens += 1
        piece, stopped = self._stops.push(self._decoding.push(token))
        if not stopped and self.completion_tokens == self._options.max_tokens:
            rest, stopped = self._stops.push(self._decoding.end())
            piece += rest + self._stops.end()
            self.finish_reason = "length"
        if stopped:
            self.finish_reason = "stop"
        return piece


def sample(logits: npt.NDArray[np.float64], options: Options, random: np.random.Generator) -> int:
    """An id by its logits [vocabulary], of which those that are −∞ are never taken."""
    if options.temperature == 0:
        return int(logits.argmax())
    with np.errstate(over="ignore"):
        weights = np.exp((logits - logits.max()) / options.temperature)
    ids: npt.NDArray[np.int64] | None = None
    if options.top_k or options.top_p < 1:
        ids = np.argsort(-weights, kind="stable")[: options.top_k]
        weights = weights[ids]
    sums = weights.cumsum()
    if options.top_p < 1:
        # Those before which less than top_p has come, and always the first.
        sums = sums[: max(1, int((sums - weights < options.top_p * sums[-1]).sum()))]
    # Below the last sum, which the product may be rounded to.
    place = int(sums.searchsorted(min(random.random() * sums[-1], np.nextafter(sums[-1], 0)), side="right"))
    return place if ids is None else int(ids[place])
