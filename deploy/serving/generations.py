"""Texts that a language model continues."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

from deploy.serving.body import read_object
from deploy.serving.calls import Answer, Call, Refusal, Stream
from deploy.serving.lookup import find_model
from deploy.serving.model import Model
from deploy.serving.models import Models
from deploy.serving.routes import Operation
from deploy.serving.settings import Settings
from deploy.serving.streams import event, event_stream
from deploy.serving.writers import Writers, generator_of
from tasks.core.errors import ConfigError, InputError
from tasks.core.generator import Generation, Options

OPTIONS: Final = tuple(Options.model_fields)


class Generations:
    """`/v1/models/{name}/generate`: a prompt in, its continuation out, whole or as it comes."""

    def __init__(self, models: Models, writers: Writers, settings: Settings) -> None:
        self.models = models
        self.writers = writers
        self.settings = settings

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/models/{name}/generate",
                summary="A prompt in, its continuation out; with stream, as it comes",
                handler=self.generate,
                request="GenerateRequest",
                reply="GenerateReply",
                events="GenerateEvent",
                refusals=(400, 404, 413, 415, 422, 503),
            )
        ]

    async def generate(self, call: Call) -> Answer | Stream:
        """`{"prompt": text, …options, "stream": false}`."""
        model = find_model(self.models, call)
        values = read_object(call, self.settings.max_body_bytes)
        generator = generator_of(model)
        if call.trace:
            call.trace.note_model(model)
        refuse_unknown(values, ("prompt", *OPTIONS, "stream"))
        prompt, stream = values.get("prompt"), read_flag(values, "stream")
        if type(prompt) is not str:
            raise Refusal(400, "'prompt' is a text, which may be empty")
        options = read_options(values, self.settings.max_tokens, Options().max_tokens)
        if call.spend:
            await call.spend(options.max_tokens)
        with ExitStack() as held:
            held.enter_context(self.writers.one())
            (generation,) = await self.writers.begin(generator, [prompt], options)
            pieces = self.writers.pieces(generation)
            if stream:
                # The first before anything is sent, so that a failure still has a status.
                first = await first_piece(pieces)
                return event_stream(_events(model, generation, first, pieces), held.pop_all())
            text = await whole(pieces)
        return Answer(_reply(model, generation, text))


async def _events(model: Model, generation: Generation, first: str, pieces: AsyncIterator[str]) -> AsyncGenerator[bytes]:
    if first:
        yield event({"text": first})
    async for piece in pieces:
        yield event({"text": piece})
    yield event(_reply(model, generation, ""))


def _reply(model: Model, generation: Generation, text: str) -> dict[str, Any]:
    usage = {"prompt_tokens": generation.prompt_tokens, "completion_tokens": generation.completion_tokens}
    return {"model": model.name, "version": model.version, "text": text, "finish_reason": generation.finish_reason, "usage": usage}


async def first_piece(pieces: AsyncIterator[str]) -> str:
    """The first of them, or an empty text. Raises Refusal (422)."""
    try:
        return await anext(pieces, "")
    except InputError as error:
        raise Refusal(422, error.what) from None


async def whole(pieces: AsyncIterator[str]) -> str:
    """All of them together. Raises Refusal (422)."""
    try:
        return "".join([piece async for piece in pieces])
    except InputError as error:
        raise Refusal(422, error.what) from None


def refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raises Refusal for a key that is none of the known ones."""
    if unknown := values.keys() - set(known):
        raise Refusal(400, f"unknown key '{min(unknown)}'; known: {', '.join(known)}")


def read_flag(values: Mapping[str, Any], key: str) -> bool:
    """A key that is true or false, and false where it is not given. Raises Refusal."""
    value = values.get(key, False)
    if type(value) is not bool:
        raise Refusal(400, f"'{key}' is true or false, found {value!r}")
    return value


def read_options(values: Mapping[str, Any], limit: int, usual: int) -> Options:
    """The options among a request's values, with `usual` tokens where they say no number. Raises Refusal."""
    given = {key: value for key, value in values.items() if key in OPTIONS}
    try:
        options = Options.parse({"max_tokens": min(usual, limit), **given})
    except ConfigError as error:
        raise Refusal(400, "; ".join(error.what.splitlines())) from None
    if options.max_tokens > limit:
        raise Refusal(400, f"max_tokens is {options.max_tokens:,}, this server's limit is {limit:,}: ask for fewer, and go on from there")
    return options
