"""Traces of requests, as a collector receives them."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from deploy.serving import open_inference_pb2 as pb
from deploy.serving.__main__ import main
from tests.serving.conftest import Running, Served, Start
from tests.serving.test_grpc import Stub, ask, heavy
from tests.texts import write_language_model

ROW = {"age": 40, "height": 1.7, "color": "blue"}
PREDICT: Final = "/v1/models/people/predict"
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT: Final = "00f067aa0ba902b7"
STAGES: Final = ["preprocess", "queue", "infer", "postprocess"]


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@dataclass
class Collector:
    """A server for OTLP over HTTP that answers with `status`, and what was sent to it."""

    status: int = 200
    refused: int = 0
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    port: int = 0

    def take(self, body: bytes) -> None:
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = attributes(part.resource)
            self.spans += [span for scope in part.scope_spans for span in scope.spans]

    def requests(self, count: int) -> list[Span]:
        """So many spans of requests, once they came."""
        deadline = time.monotonic() + 20
        while len(found := [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]) < count:
            assert time.monotonic() < deadline, self.spans
            time.sleep(0.02)
        return found

    def below(self, span: Span) -> list[Span]:
        return sorted((each for each in self.spans if each.parent_span_id == span.span_id), key=lambda each: each.start_time_unix_nano)


@contextmanager
def listening(collector: Collector) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            if collector.status == 200:
                collector.take(body)
            else:
                collector.refused += 1
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", collector.port), Handler) as server:
        collector.port = server.server_port
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    with listening(collector):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


def predict(running: Running, **headers: str) -> httpx.Response:
    return running.client.post(PREDICT, json={"instances": [ROW] * 3}, headers=headers)


def test_a_request_is_a_span_with_its_stages(collector: Collector, served: Served, start: Start) -> None:
    served.serve("people", "3")
    assert predict(start(), **{"X-Request-Id": "order-7", "User-Agent": "tests"}).status_code == 200
    (span,) = collector.requests(1)
    assert span.name == "POST /v1/models/{name}/predict"
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/v1/models/{name}/predict",
        "url.path": PREDICT,
        "client.address": "127.0.0.1",
        "user_agent.original": "tests",
        "http.response.status_code": 200,
        "maasflow.model": "people",
        "maasflow.version": "3",
        "maasflow.variant": "fp32",
        "maasflow.rows": 3,
        "maasflow.request_id": "order-7",
    }
    stages = collector.below(span)
    assert [each.name for each in stages] == STAGES
    moments = [span.start_time_unix_nano]
    for each in stages:
        assert each.trace_id == span.trace_id
        moments += [each.start_time_unix_nano, each.end_time_unix_nano]
    moments.append(span.end_time_unix_nano)
    assert moments == sorted(moments), "one after the other, within the request"
    assert abs(moments[0] / 1e9 - time.time()) < 60
    assert (collector.resource["service.name"], "service.version" in collector.resource) == ("maasflow", True)


def test_the_client_s_trace_is_continued_and_the_log_names_it(collector: Collector, served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    running = start("--access-log")
    predict(running, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
    predict(running, traceparent="00-nonsense")
    running.client.get("/v2")
    continued, broken, other = collector.requests(3)
    assert (continued.trace_id.hex(), continued.parent_span_id.hex(), continued.trace_state) == (TRACE, PARENT, "vendor=1")
    assert (broken.parent_span_id, other.parent_span_id) == (b"", b"")
    assert len({continued.trace_id, broken.trace_id, other.trace_id}) == 3
    assert running.stop() == 0
    lines = [json.loads(line[line.index("{") :]) for line in (tmp_path / "server.log").read_text().splitlines() if "{" in line]
    assert [line["trace_id"] for line in lines] == [span.trace_id.hex() for span in (continued, broken, other)]


def test_a_trace_that_the_client_does_not_keep_is_not_kept(collector: Collector, served: Served, start: Start) -> None:
    served.serve("people", "1")
    running = start()
    predict(running, traceparent=f"00-{TRACE}-{PARENT}-00")
    predict(running)
    (span,) = collector.requests(1)
    assert span.trace_id.hex() != TRACE


def test_a_refusal_is_no_error_and_a_failure_is_one(collector: Collector, served: Served, start: Start) -> None:
    (served.add("broken", "1") / "variants" / "fp32.onnx").unlink()
    served.point("broken", "1")
    running = start()
    for path in ("/nowhere", "/v2/models/broken"):
        running.client.get(path)
    refused, failed = collector.requests(2)
    assert (refused.name, attributes(refused)["http.response.status_code"], refused.status.code) == ("GET", 404, Status.STATUS_CODE_UNSET)
    assert (failed.name, attributes(failed)["http.response.status_code"]) == ("GET /v2/models/{name}", 503)
    assert (attributes(failed)["error.type"], failed.status.code) == ("503", Status.STATUS_CODE_ERROR)


def test_what_is_no_request_is_one_too(collector: Collector, served: Served, start: Start) -> None:
    running = start()
    with socket.create_connection(("127.0.0.1", running.client.base_url.port or 0)) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert b"400" in connection.recv(100)
    (span,) = collector.requests(1)
    assert (span.name, attributes(span)["http.request.method"]) == ("HTTP", "_OTHER")


def test_a_call_over_grpc(collector: Collector, served: Served, start: Start) -> None:
    served.serve("people", "3")
    stub = Stub(start("--grpc-port", "0"))
    assert stub("ModelInfer", ask(), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),)).outputs
    stub.refused("ModelReady", pb.ModelReadyRequest(name="nobody"))
    stub.channel.close()
    infer, ready = collector.requests(2)
    assert infer.name == "inference.GRPCInferenceService/ModelInfer"
    assert (infer.trace_id.hex(), infer.parent_span_id.hex()) == (TRACE, PARENT)
    found = attributes(infer)
    assert found.pop("maasflow.request_id")
    assert found == {
        "rpc.system.name": "grpc",
        "rpc.method": "inference.GRPCInferenceService/ModelInfer",
        "rpc.response.status_code": "OK",
        "client.address": "127.0.0.1",
        "maasflow.model": "people",
        "maasflow.version": "3",
        "maasflow.variant": "fp32",
        "maasflow.rows": 1,
    }
    assert [each.name for each in collector.below(infer)] == STAGES
    assert attributes(ready)["rpc.response.status_code"] == "NOT_FOUND"


def test_a_stream_is_a_span_until_its_end(collector: Collector, served: Served, start: Start) -> None:
    write_language_model(served.folder / "writer" / "2")
    served.point("writer", "2")
    running = start("--max-tokens", "1000000")
    path, asked = "/v1/models/writer/generate", {"prompt": "a", "stream": True}
    assert running.client.post(path, json={**asked, "max_tokens": 20}).status_code == 200
    with running.client.stream("POST", path, json={**asked, "max_tokens": 1_000_000}) as reply:
        next(reply.iter_lines())
    whole, broken = collector.requests(2)
    assert (attributes(whole)["maasflow.model"], "error.type" in attributes(whole)) == ("writer", False)
    assert attributes(broken)["error.type"] == "cancelled"


def test_a_client_that_goes_away_ends_its_span(collector: Collector, served: Served, start: Start) -> None:
    write_language_model(served.folder / "writer" / "2")
    served.point("writer", "2")
    stub = Stub(start("--grpc-port", "0"))
    assert stub.later("ModelInfer", heavy(2048), 0.05).exception()
    stub.channel.close()
    (span,) = collector.requests(1)
    assert attributes(span)["error.type"] in ("cancelled", "DEADLINE_EXCEEDED")


def test_opentelemetry_s_own_variables_decide(collector: Collector, served: Served, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    served.serve("people", "1")
    running = start()
    predict(running)
    predict(running, traceparent=f"00-{TRACE}-{PARENT}-01")
    (span,) = collector.requests(1)
    assert span.trace_id.hex() == TRACE
    assert collector.resource["service.name"] == "shop"


def test_what_is_left_is_sent_at_the_end(collector: Collector, served: Served, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    served.serve("people", "1")
    running = start()
    predict(running)
    assert running.stop() == 0
    assert len(collector.requests(1)) == 1


def test_a_collector_that_is_away_costs_no_request_and_is_told_once(
    collector: Collector, served: Served, start: Start, tmp_path: Path
) -> None:
    collector.status = 400
    served.serve("people", "1")
    running = start()
    while collector.refused < 3:
        assert predict(running).status_code == 200
    collector.status = 200
    predict(running)
    collector.requests(1)
    assert running.stop() == 0
    log = (tmp_path / "server.log").read_text()
    assert log.count("Failed to export") == 1
    assert log.count("the collector of traces is back") == 1
    assert "Traceback" not in log


def test_a_collector_that_never_answers_does_not_hold_up_the_end(served: Served, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces")
        served.serve("people", "1")
        running = start()
        assert predict(running).status_code == 200
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf alone"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "correct the one that begins with OTEL_"),
    ],
)
def test_settings_that_cannot_be_kept_are_one_message(
    collector: Collector,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    says: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["--served", str(served.folder), "--port", "0"]) == 1
    assert says in capsys.readouterr().err


def test_without_the_library_it_says_what_to_install(collector: Collector, served: Served, start: Start) -> None:
    script = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; from deploy.serving.__main__ import main; print('://', main(), flush=True)"
    )
    running = start(python=("-c", script))
    assert running.line.strip() == ":// 1"
    assert "pip install opentelemetry-exporter-otlp-proto-http" in (served.folder.parent / "server.log").read_text()


@pytest.mark.parametrize("exporter", [None, "none"])
def test_it_is_not_even_imported_where_nothing_is_configured(
    served: Served, start: Start, monkeypatch: pytest.MonkeyPatch, exporter: str | None
) -> None:
    if exporter:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
    served.serve("people", "1")
    script = (
        "import sys; from deploy.serving.__main__ import main; main(); print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    running = start(python=("-c", script))
    assert predict(running).status_code == 200
    assert running.stop() == 0
    assert running.process.stdout
    assert running.process.stdout.read().split() == ["False"]
