"""One request as OpenTelemetry has it: a span with what was asked and answered, and one below it for each stage.

Names are those of its semantic conventions for HTTP and for RPC, and `maasflow.…` for what these do not know.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from opentelemetry.trace import SpanKind, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from deploy.serving.calls import Answer, Call, Stream
from deploy.serving.grpc_codes import MEDIA_TYPE, grpc_code
from deploy.serving.model import Model
from deploy.serving.work import Work

_PROPAGATOR = TraceContextTextMapPropagator()


class Trace:
    """From when a request was read until it is answered; a stream, until its end. It continues the client's, where it names one
    in `traceparent` (https://www.w3.org/TR/trace-context/).
    """

    __slots__ = ("_call", "_context", "_rpc", "_span", "_tracer", "_zero")

    def __init__(self, tracer: Tracer, call: Call) -> None:
        # Stages are timed by perf_counter.
        self._zero = time.time_ns() - time.perf_counter_ns()
        self._tracer = tracer
        self._call = call
        self._rpc = call.operation is not None and call.operation.reply == MEDIA_TYPE
        name, attributes = _of_procedure(call) if self._rpc else _of_request(call)
        sent = {name: call.header(name.encode()) for name in _PROPAGATOR.fields if name.encode() in call.headers}
        self._span = tracer.start_span(name, _PROPAGATOR.extract(sent), SpanKind.SERVER, attributes)
        self._context = set_span_in_context(self._span)

    @property
    def id(self) -> str:
        """That of the whole trace, as 32 hexadecimal digits."""
        return format_trace_id(self._span.get_span_context().trace_id)

    def note_model(self, model: Model) -> None:
        """What answers it."""
        self._span.set_attributes(
            {
                "maasflow.model": model.name,
                "maasflow.version": model.version,
                "maasflow.variant": model.predictor.variant.name,
            }
        )

    def note_work(self, model: Model, work: Work, start: float) -> None:
        """What was done for it from `start`, of perf_counter, until now."""
        if not self._span.is_recording():
            return
        self.note_model(model)
        self._span.set_attribute("maasflow.rows", work.rows)
        times = (start, work.queued, work.begun, work.ended, time.perf_counter())
        for name, begin, end in zip(("preprocess", "queue", "infer", "postprocess"), times, times[1:], strict=False):
            self._tracer.start_span(name, self._context, start_time=self._at(begin)).end(self._at(end))

    def end(self, answer: Answer | Stream) -> None:
        """To be called once it is known what goes back."""
        status = answer.status
        self._span.set_attribute("maasflow.request_id", self._call.request_id)
        if self._rpc:
            self._span.set_attribute("rpc.response.status_code", grpc_code(status))
        else:
            self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_attribute("error.type", grpc_code(status) if self._rpc else str(status))
            self._span.set_status(StatusCode.ERROR)
        if isinstance(answer, Stream):
            answer.pieces = self._followed(answer.pieces)
        else:
            self._span.end()

    def abandon(self) -> None:
        """The client went away."""
        self._span.set_attributes({"maasflow.request_id": self._call.request_id, "error.type": "cancelled"})
        self._span.end()

    async def _followed(self, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        except BaseException:
            self._span.set_attribute("error.type", "cancelled")
            raise
        finally:
            self._span.end()

    def _at(self, moment: float) -> int:
        """From seconds of perf_counter to nanoseconds since the epoch."""
        return self._zero + int(moment * 1e9)


def _of_request(call: Call) -> tuple[str, dict[str, AttributeValue]]:
    """The span's name and first attributes. What is no request at all has neither method nor path."""
    method = call.method or "_OTHER"
    attributes: dict[str, AttributeValue] = {
        "http.request.method": method,
        "url.path": call.path,
        "client.address": call.client,
    }
    if agent := call.header(b"user-agent"):
        attributes["user_agent.original"] = agent
    if call.operation is None:
        return call.method or "HTTP", attributes
    return f"{method} {call.operation.path}", attributes | {"http.route": call.operation.path}


def _of_procedure(call: Call) -> tuple[str, dict[str, AttributeValue]]:
    name = call.path.lstrip("/")
    return name, {"rpc.system.name": "grpc", "rpc.method": name, "client.address": call.client}
