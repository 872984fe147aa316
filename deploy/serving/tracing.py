"""Where traces of requests go: a collector that speaks OTLP over HTTP. Imported only where one is configured.

All of it is set by OpenTelemetry's own variables (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/):
where the collector is, what the server is called there, which requests are kept, and how many spans may wait.
"""

import logging
import os
from collections.abc import Sequence
from importlib import metadata
from threading import Thread
from typing import Final

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from deploy.serving.calls import Call
from deploy.serving.trace import Trace
from tasks.core.errors import MaasflowError

_PROTOCOL: Final = "http/protobuf"
_FAREWELL: Final = 3.0
"""Seconds for what is left to be sent when the server ends."""

logger = logging.getLogger(__name__)


class Tracing:
    """Spans wait in a queue of so many and are sent by a thread of its own; those for which there is no room are lost."""

    def __init__(self) -> None:
        """Raises MaasflowError for settings that cannot be kept."""
        _check_protocol()
        try:
            # It would wait for half a minute at the end where the collector is away.
            self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        except ValueError as error:
            raise MaasflowError(f"OpenTelemetry's variables cannot be used: {error}", "correct the one that begins with OTEL_") from None
        self._tracer = self._provider.get_tracer("maasflow", metadata.version("maasflow"))

    def begin(self, call: Call) -> Trace:
        """That of a request that was read."""
        return Trace(self._tracer, call)

    def close(self) -> None:
        """Send what is left, unless it takes long."""
        last = Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(_FAREWELL)


class _Exporter(trace_exporter.OTLPSpanExporter):
    """Says once why a collector cannot be reached, and once that it is: the library would tell of every try."""

    def __init__(self) -> None:
        super().__init__()
        self._away = False
        logging.getLogger(trace_exporter.__name__).addFilter(self._is_news)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if self._away and result is SpanExportResult.SUCCESS:
            logger.info("the collector of traces is back")
        self._away = result is not SpanExportResult.SUCCESS
        return result

    def _is_news(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR and not self._away


def _check_protocol() -> None:
    """Raises MaasflowError for one that is not spoken."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := os.environ.get(name):
            if protocol != _PROTOCOL:
                raise MaasflowError(f"{name} is {protocol!r}, and traces are sent by {_PROTOCOL} alone", f"set it to {_PROTOCOL}")
            return


def _resource() -> Resource:
    """Who sends them: this server, under the name that the environment gives it if any."""
    found = Resource.create()
    ours = {SERVICE_VERSION: metadata.version("maasflow")}
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        ours[SERVICE_NAME] = "maasflow"
    return found.merge(Resource(ours))
