"""Texts that a language model continues, for clients of OpenAI's completions."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.serving.body import read_object
from deploy.serving.calls import Answer, Call, Refusal, Stream
from deploy.serving.generations import OPTIONS, first_piece, read_flag, read_options, refuse_unknown, whole
from deploy.serving.guard import allow
from deploy.serving.lookup import answering_model
from deploy.serving.models import Models
from deploy.serving.routes import Operation
from deploy.serving.schemas import COMPLETION_TOKENS
from deploy.serving.settings import Settings
from deploy.serving.streams import event, event_stream
from deploy.serving.writers import Writers, generator_of
from tasks.core.generator import Generation

_NEUTRAL: Final[dict[str, Any]] = {"n": 1, "best_of": 1, "suffix": "", "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}}
"""What clients send and this server does not do: taken where it changes nothing."""
_KNOWN: Final = ("model", "prompt", *OPTIONS, "stream", "stream_options", "echo", *_NEUTRAL, "logprobs", "user")


@dataclass(frozen=True, kw_only=True)
class _Completion:
    """One request, and what each of its replies repeats."""

    model: str
    prompts: Sequence[str]
    generations: Sequence[Generation]
    echo: bool
    usage: bool
    """Whether a stream ends with the usage."""
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def reply(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model, "choices": choices, **more}

    def total(self) -> dict[str, int]:
        read = sum(generation.prompt_tokens for generation in self.generations)
        written = sum(generation.completion_tokens for generation in self.generations)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def begun(self, index: int) -> str:
        """What a choice begins with, before the model says anything."""
        return self.prompts[index] if self.echo else ""


class Completions:
    """`/v1/completions`."""

    def __init__(self, models: Models, writers: Writers, settings: Settings) -> None:
        self.models = models
        self.writers = writers
        self.settings = settings

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/completions",
                summary="A prompt in, its continuation out, as OpenAI's clients have it",
                handler=self.complete,
                request="CompletionRequest",
                reply="CompletionReply",
                events="CompletionEvent",
                refusals=(400, 404, 413, 415, 422, 503),
            )
        ]

    async def complete(self, call: Call) -> Answer | Stream:
        """Several prompts are continued one after the other."""
        # A key that is null is one that was not given.
        values = {key: value for key, value in (read_object(call, self.settings.max_body_bytes)).items() if value is not None}
        if type(values.get("model")) is not str:
            raise Refusal(400, "'model' is the name of a model; /v1/models lists them")
        allow(call.key, values["model"])
        model = answering_model(self.models, call, values["model"])
        generator = generator_of(model)
        if call.trace:
            call.trace.note_model(model)
        _check(values)
        prompts = self._prompts(values.get("prompt", ""))
        stream, options = read_flag(values, "stream"), read_options(values, self.settings.max_tokens, COMPLETION_TOKENS)
        if call.spend:
            await call.spend(len(prompts) * options.max_tokens)
        echo, usage = read_flag(values, "echo"), _usage_wanted(values)
        with ExitStack() as held:
            held.enter_context(self.writers.one())
            generations = await self.writers.begin(generator, prompts, options)
            completion = _Completion(model=model.name, prompts=prompts, generations=generations, echo=echo, usage=usage)
            first, *others = map(self.writers.pieces, generations)
            if stream:
                return event_stream(self._events(completion, await first_piece(first), first), held.pop_all(), model.told)
            texts = [await whole(pieces) for pieces in (first, *others)]
        choices = [
            _choice(index, completion.begun(index) + text, generation.finish_reason)
            for index, (text, generation) in enumerate(zip(texts, completion.generations, strict=True))
        ]
        return Answer(completion.reply(choices, usage=completion.total()), headers=model.told)

    async def _events(self, completion: _Completion, text: str, pieces: AsyncIterator[str]) -> AsyncGenerator[bytes]:
        for index, generation in enumerate(completion.generations):
            if index:
                text, pieces = "", self.writers.pieces(generation)
            if text := completion.begun(index) + text:
                yield event(completion.reply([_choice(index, text)]))
            async for piece in pieces:
                yield event(completion.reply([_choice(index, piece)]))
            yield event(completion.reply([_choice(index, "", generation.finish_reason)]))
        if completion.usage:
            yield event(completion.reply([], usage=completion.total()))
        yield b"data: [DONE]\n\n"

    def _prompts(self, given: Any) -> list[str]:
        prompts = given if type(given) is list else [given]
        if not prompts or any(type(prompt) is not str for prompt in prompts):
            raise Refusal(400, "'prompt' is a text, or a list of texts; token ids are not taken")
        if len(prompts) > self.settings.max_rows:
            raise Refusal(413, f"{len(prompts):,} prompts at once, the limit is {self.settings.max_rows:,}: send several requests")
        return prompts


def _choice(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


def _check(values: dict[str, Any]) -> None:
    """Raises Refusal for what this server does not know, or does not do."""
    refuse_unknown(values, _KNOWN)
    for key, neutral in _NEUTRAL.items():
        if values.get(key, neutral) != neutral:
            raise Refusal(400, f"'{key}' is not supported: leave it out")
    if "logprobs" in values:
        raise Refusal(400, "'logprobs' are not supported: leave them out")


def _usage_wanted(values: dict[str, Any]) -> bool:
    options = values.get("stream_options", {})
    if type(options) is not dict:
        raise Refusal(400, "'stream_options' is an object")
    return read_flag(options, "include_usage")
