"""The Open Inference Protocol v2 over gRPC, by its words and against bad input."""

import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest

from deploy.serving import open_inference_pb2 as pb
from deploy.serving.__main__ import main
from deploy.serving.grpc_port import MOST_READ
from tasks.core.api_keys import create_key
from tests.serving.conftest import Running, Served, Start, end, start_server
from tests.texts import HIDDEN, write_language_model

ROW = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
SERVICE = "inference.GRPCInferenceService"


class Stub:
    """A client of the port that a server printed."""

    def __init__(self, running: Running) -> None:
        self.channel = grpc.insecure_channel(running.line.partition("gRPC on ")[2].split(")")[0])

    def __call__(self, name: str, request: Any, timeout: float | None = 10, **options: Any) -> Any:
        reply = getattr(pb, f"{name}Response").FromString
        return self.channel.unary_unary(f"/{SERVICE}/{name}", type(request).SerializeToString, reply)(request, timeout, **options)

    def later(self, name: str, request: Any, timeout: float = 30) -> Any:
        reply = getattr(pb, f"{name}Response").FromString
        return self.channel.unary_unary(f"/{SERVICE}/{name}", type(request).SerializeToString, reply).future(request, timeout)

    @contextmanager
    def silent(self, name: str, count: int = 1, **options: Any) -> Iterator[list[Any]]:
        """Calls that are begun, and whose message does not come until the end."""
        over = Event()
        ask = self.channel.stream_unary(f"/{SERVICE}/{name}")
        try:
            yield [ask.future(_none_before(over), **options) for _ in range(count)]
        finally:
            over.set()

    def refused(self, name: str, request: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self(name, request, **options)
        return caught.value.code(), caught.value.details() or ""


def _none_before(over: Event) -> Iterator[bytes]:
    over.wait()
    yield from ()


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    root = tmp_path_factory.mktemp("grpc")
    served = Served(root / "served")
    served.serve("people", "3")
    write_language_model(served.folder / "writer" / "2")
    served.point("writer", "2")
    (served.add("broken", "1") / "variants" / "fp32.onnx").unlink()
    served.point("broken", "1")
    running = start_server(served.folder, root / "server.log", "--grpc-port", "0", "--max-body-bytes", "20000", "--max-rows", "8")
    stub = Stub(running)
    yield stub
    stub.channel.close()
    end(running)
    assert "Traceback" not in (root / "server.log").read_text()


def tensor(**changes: Any) -> Any:
    return pb.ModelInferRequest.InferInputTensor(
        **({"name": "x", "datatype": "FP32", "shape": [1, 6], "contents": {"fp32_contents": ROW}} | changes)
    )


def ask(**changes: Any) -> Any:
    return pb.ModelInferRequest(**({"model_name": "people", "inputs": [tensor()]} | changes))


def bare(**changes: Any) -> Any:
    return pb.ModelInferRequest.InferInputTensor(**({"name": "x", "datatype": "FP32", "shape": [1, 6]} | changes))


def heavy(rows: int, **changes: Any) -> Any:
    """Texts of 60 tokens, which take a while."""
    inputs = [bare(name="input_ids", datatype="INT64", shape=[rows, 60])]
    inputs += [bare(name=name, shape=[rows, 1, HIDDEN]) for name in ("hidden", "cell")]
    raw = [struct.pack("<q", 4) * 60 * rows, *[bytes(4 * HIDDEN * rows)] * 2]
    return ask(model_name="writer", inputs=inputs, raw_input_contents=raw, outputs=[{"name": "next_cell"}], **changes)


RAW = struct.pack("<6f", *ROW)


def test_health_and_metadata(stub: Stub) -> None:
    assert stub("ServerLive", pb.ServerLiveRequest()).live
    assert stub("ServerReady", pb.ServerReadyRequest()).ready
    metadata = stub("ServerMetadata", pb.ServerMetadataRequest())
    assert (metadata.name, list(metadata.extensions)) == ("maasflow", ["binary_tensor_data"])


@pytest.mark.parametrize("version", ["", "3"])
def test_model_metadata_and_ready(stub: Stub, version: str) -> None:
    assert stub("ModelReady", pb.ModelReadyRequest(name="people", version=version)).ready
    metadata = stub("ModelMetadata", pb.ModelMetadataRequest(name="people", version=version))
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("people", ["3"], "onnxruntime_onnx")
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [("x", "FP32", [-1, 6])]
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.outputs] == [("logits", "FP32", [-1, 2])]


def test_a_model_that_does_not_answer_is_not_ready(stub: Stub) -> None:
    assert not stub("ModelReady", pb.ModelReadyRequest(name="broken")).ready
    code, says = stub.refused("ModelMetadata", pb.ModelMetadataRequest(name="broken"))
    assert (code, "variants/fp32.onnx is missing" in says) == (grpc.StatusCode.UNAVAILABLE, True)


def test_numbers_are_answered_with_numbers(stub: Stub) -> None:
    reply = stub("ModelInfer", ask(id="a7", model_version="3", outputs=[{"name": "logits"}]))
    assert (reply.model_name, reply.model_version, reply.id) == ("people", "3", "a7")
    (output,) = reply.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("logits", "FP32", [1, 2])
    assert list(output.contents.fp32_contents) == [0.5, -0.5]
    assert not reply.raw_output_contents


def test_an_answer_says_what_its_request_is_called(stub: Stub) -> None:
    _, call = stub.channel.unary_unary(f"/{SERVICE}/ServerLive").with_call(b"", 10, metadata=(("x-request-id", "mine-7"),))
    assert ("x-request-id", "mine-7") in [tuple(each) for each in call.trailing_metadata()]


def test_bytes_are_answered_with_bytes(stub: Stub) -> None:
    reply = stub("ModelInfer", ask(inputs=[bare(shape=[2, 6])], raw_input_contents=[RAW * 2]))
    assert [list(output.shape) for output in reply.outputs] == [[2, 2]]
    assert [struct.unpack("<4f", raw) for raw in reply.raw_output_contents] == [(0.5, -0.5, 0.5, -0.5)]
    assert not reply.outputs[0].HasField("contents")


def test_a_language_model_takes_ids_and_gives_the_outputs_asked_for(stub: Stub) -> None:
    state = [tensor(name=name, shape=[1, 1, HIDDEN], contents={"fp32_contents": [0.25] * HIDDEN}) for name in ("hidden", "cell")]
    ids = tensor(name="input_ids", datatype="INT64", shape=[1, 3], contents={"int64_contents": [4, 5, 6]})
    reply = stub("ModelInfer", ask(model_name="writer", inputs=[*state, ids], outputs=[{"name": "next_cell"}, {"name": "logits"}]))
    assert [output.name for output in reply.outputs] == ["next_cell", "logits"]
    assert list(reply.outputs[0].shape) == [1, 1, HIDDEN]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": []}, "the input 'x' is missing"),
        ({"inputs": [tensor(name="y")]}, "no input 'y', it has x"),
        ({"inputs": [tensor(), tensor()]}, "'x' twice"),
        ({"inputs": [tensor(datatype="FP64", contents={"fp64_contents": ROW})]}, "datatype 'FP64', expected 'FP32'"),
        ({"inputs": [tensor(contents={"int64_contents": [1] * 6})]}, "holds 0 values"),
        ({"inputs": [tensor(shape=[1, 5])]}, "shape [1, 5], expected [batch, 6]"),
        ({"inputs": [tensor(shape=[-1, 6])]}, "every size is at least 1"),
        ({"inputs": [tensor(contents={"fp32_contents": ROW[1:]})]}, "holds 5 values"),
        ({"inputs": [tensor(contents={"fp32_contents": [float("nan"), *ROW[1:]]})]}, "holds NaN"),
        ({"inputs": [bare()], "raw_input_contents": [RAW[1:]]}, "has 23 bytes, its shape [1, 6] needs 24"),
        ({"inputs": [bare()], "raw_input_contents": [RAW, RAW]}, "holds 2 tensors, and 'inputs' 1"),
        ({"raw_input_contents": [RAW]}, "'contents' beside 'raw_input_contents'"),
        ({"outputs": [{"name": "labels"}]}, "no output 'labels', it has logits"),
        ({"outputs": [{"name": "logits"}] * 2}, "'logits' twice"),
        ({"outputs": [{"name": "logits", "parameters": {"classification": {"int64_param": 1}}}]}, "'classification'"),
        ({"parameters": {"timeout": {"string_param": "soon"}}}, "'timeout' is 'soon'"),
    ],
)
def test_a_wrong_call_is_told_what_was_expected(stub: Stub, changes: dict[str, Any], says: str) -> None:
    code, said = stub.refused("ModelInfer", ask(**changes))
    assert (code, says in said) == (grpc.StatusCode.INVALID_ARGUMENT, True), said


def test_statuses(stub: Stub) -> None:
    assert stub.refused("ModelInfer", ask(model_name="peopel")) == (
        grpc.StatusCode.NOT_FOUND,
        "there is no model 'peopel'; did you mean 'people'?",
    )
    assert stub.refused("ModelInfer", ask(model_version="2"))[0] is grpc.StatusCode.NOT_FOUND
    assert stub.refused("ModelReady", pb.ModelReadyRequest(name="nobody"))[0] is grpc.StatusCode.NOT_FOUND
    assert stub.refused("ModelInfer", ask(model_name="broken"))[0] is grpc.StatusCode.UNAVAILABLE
    nine = ask(inputs=[bare(shape=[9, 6])], raw_input_contents=[RAW * 9])
    assert stub.refused("ModelInfer", nine)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_message_are_refused(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.channel.unary_unary(f"/{SERVICE}/ModelInfer")(b"\xff\xff\xff", 10)
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the message is no inference.ModelInferRequest",
    )


def test_every_procedure_of_the_protocol_is_there(stub: Stub) -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == SERVICE
    for method in service.methods:
        found = stub.channel.unary_unary(f"/{SERVICE}/{method.name}").future(b"", 10).exception()
        assert found is None or found.code() is not grpc.StatusCode.UNIMPLEMENTED


def test_an_unknown_procedure_is_unimplemented(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.channel.unary_unary(f"/{SERVICE}/ModelConfig")(b"", 10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_over_the_limit_is_refused_however_small_it_is_packed(stub: Stub, compression: grpc.Compression) -> None:
    request = ask(raw_input_contents=[bytes(20_000)])
    code, says = stub.refused("ModelInfer", request, compression=compression)
    assert (code, "larger than max" in says or "20" in says) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True), says


def test_packed_messages_are_read(stub: Stub) -> None:
    assert list(stub("ModelInfer", ask(), compression=grpc.Compression.Gzip).outputs[0].contents.fp32_contents) == [0.5, -0.5]


def test_the_parameter_timeout_is_kept(served: Served, start: Start) -> None:
    write_language_model(served.folder / "writer" / "1")
    served.point("writer", "1")
    stub = Stub(start("--grpc-port", "0"))
    assert stub("ModelInfer", heavy(2048, parameters={"timeout": {"int64_param": 10**8}}), 60).outputs
    code, _ = stub.refused("ModelInfer", heavy(2048, parameters={"timeout": {"int64_param": 1}}))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    stub.channel.close()


def test_a_key_is_demanded_and_counted_as_over_http(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    served.serve("secret", "1")
    file = tmp_path / "keys.json"
    _, secret = create_key(file, "someone", models=["people"], requests_per_second=1e-3)
    stub = Stub(start("--grpc-port", "0", "--keys", str(file)))
    mine: dict[str, Any] = {"metadata": (("authorization", f"Bearer {secret}"),)}
    assert stub("ServerLive", pb.ServerLiveRequest()).live
    assert stub.refused("ModelInfer", ask())[0] is grpc.StatusCode.UNAUTHENTICATED
    assert stub("ModelInfer", ask(), **mine).outputs
    assert stub.refused("ModelInfer", ask(), **mine)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    stub.channel.close()


def test_a_key_opens_its_own_models_alone(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    file = tmp_path / "keys.json"
    _, secret = create_key(file, "someone", models=["others"])
    stub = Stub(start("--grpc-port", "0", "--keys", str(file)))
    for name, request in (("ModelInfer", ask()), ("ModelMetadata", pb.ModelMetadataRequest(name="people"))):
        code, _ = stub.refused(name, request, metadata=(("authorization", f"Bearer {secret}"),))
        assert code is grpc.StatusCode.PERMISSION_DENIED
    stub.channel.close()


def test_who_has_no_key_is_refused_before_a_message_is_read(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    create_key(tmp_path / "keys.json", "someone")
    stub = Stub(start("--grpc-port", "0", "--keys", str(tmp_path / "keys.json")))
    with stub.silent("ModelInfer") as (call,):
        assert call.exception(10).code() is grpc.StatusCode.UNAUTHENTICATED
    with stub.silent("ServerLive") as (call,):
        assert pb.ServerLiveResponse.FromString(call.result(10)).live
    stub.channel.close()


def test_a_message_that_does_not_come_is_not_waited_for(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    stub = Stub(start("--grpc-port", "0", "--read", "0.5"))
    with stub.silent("ModelInfer", MOST_READ) as calls:
        assert stub("ModelInfer", ask()).outputs, "it has its turn after them"
        for call in calls:
            refusal = call.exception(10)
            assert (refusal.code(), refusal.details()) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "the message was not complete after 0.5 seconds",
            )
    stub.channel.close()
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_so_many_messages_are_read_at_once(served: Served, start: Start) -> None:
    served.serve("people", "1")
    stub = Stub(start("--grpc-port", "0"))
    with stub.silent("ModelInfer", MOST_READ) as calls:
        while stub.later("ModelInfer", ask(), 0.5).exception() is None:
            pass
        calls[0].cancel()
        assert stub("ModelInfer", ask()).outputs
    stub.channel.close()


def test_a_call_without_a_message_is_refused(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.channel.stream_unary(f"/{SERVICE}/ModelInfer")(iter(()), 10)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "the call ended without a message")


def test_a_client_that_gives_up_or_goes_away_leaves_the_server_to_others(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    write_language_model(served.folder / "writer" / "1")
    served.point("writer", "1")
    stub = Stub(start("--grpc-port", "0"))
    assert stub.refused("ModelInfer", heavy(2048), timeout=0.02)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    stub.later("ModelInfer", heavy(2048)).cancel()
    assert stub("ModelInfer", ask()).outputs
    stub.channel.close()
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_sigterm_lets_what_is_in_flight_finish(served: Served, start: Start) -> None:
    write_language_model(served.folder / "writer" / "1")
    served.point("writer", "1")
    running = start("--grpc-port", "0", "--drain", "0.5")
    stub = Stub(running)
    assert stub("ServerReady", pb.ServerReadyRequest()).ready
    future = stub.later("ModelInfer", heavy(2048))
    running.process.send_signal(signal.SIGTERM)
    while stub("ServerReady", pb.ServerReadyRequest()).ready:
        time.sleep(0.02)
    assert stub("ServerLive", pb.ServerLiveRequest()).live
    assert len(future.result().raw_output_contents[0]) == 4 * HIDDEN * 2048
    stub.channel.close()
    assert running.process.wait(10) == 0


def test_without_a_port_grpc_is_not_even_imported(served: Served, start: Start) -> None:
    served.serve("people", "1")
    script = "import sys; from deploy.serving.__main__ import main; main(); print('grpc' in sys.modules, 'google.protobuf' in sys.modules)"
    running = start(python=("-c", script))
    assert "gRPC" not in running.line
    assert running.stop() == 0
    assert running.process.stdout
    assert running.process.stdout.read().split() == ["False", "False"]


def test_a_port_that_is_taken_is_one_message(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--served", str(served.folder), "--port", "0", "--grpc-port", port]) == 1
    message = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1, port {port}, for gRPC" in message
    assert "--grpc-port" in message
