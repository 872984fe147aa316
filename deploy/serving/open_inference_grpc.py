"""The Open Inference Protocol v2 as gRPC has it: from a message's bytes to its answer's, without the transport."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from deploy.serving import open_inference_pb2 as pb
from deploy.serving.calls import Answer, Call, Refusal
from deploy.serving.deadline import read_timeout
from deploy.serving.grpc_codes import MEDIA_TYPE
from deploy.serving.guard import allow
from deploy.serving.inference import Inference, by_name, check_parameters
from deploy.serving.lookup import find_model
from deploy.serving.routes import Operation
from deploy.serving.tensors import Given, to_bytes

_CONTENTS: Final = {"FP32": "fp32_contents", "INT64": "int64_contents"}
_M = TypeVar("_M", bound=Message)


class OpenInferenceGrpc:
    """Its operations on the served models, each a call like those of HTTP: held against API keys, counted and logged alike."""

    service: Final = "inference.GRPCInferenceService"

    def __init__(self, inference: Inference) -> None:
        self.inference = inference

    def operations(self) -> dict[str, Operation]:
        """By their names."""
        free = {"ServerLive": self.server_live, "ServerReady": self.server_ready}
        kept = {
            "ModelInfer": self.model_infer,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ServerMetadata": self.server_metadata,
        }
        return {
            name: Operation(
                method="POST",
                path=f"/{self.service}/{name}",
                summary=name,
                handler=handler,
                reply=MEDIA_TYPE,
                scope=None if name in free else "infer",
            )
            for name, handler in (free | kept).items()
        }

    async def server_live(self, _: Call) -> Answer:
        return _answer(pb.ServerLiveResponse(live=True))

    async def server_ready(self, _: Call) -> Answer:
        try:
            self.inference.check_ready()
        except Refusal:
            return _answer(pb.ServerReadyResponse(ready=False))
        return _answer(pb.ServerReadyResponse(ready=True))

    async def server_metadata(self, _: Call) -> Answer:
        return _answer(pb.ServerMetadataResponse(**self.inference.server_metadata()))

    async def model_ready(self, call: Call) -> Answer:
        """Not ready where it does not answer now; a model that is not served at all is an error."""
        request = _read(pb.ModelReadyRequest, call)
        _name(call, request.name, request.version)
        try:
            self.inference.ready_model(call.params["name"], call.params.get("version"))
        except Refusal as refusal:
            if refusal.status != 503:
                raise
            return _answer(pb.ModelReadyResponse(ready=False))
        return _answer(pb.ModelReadyResponse(ready=True))

    async def model_metadata(self, call: Call) -> Answer:
        """What the protocol's message has no field for is left to REST."""
        request = _read(pb.ModelMetadataRequest, call)
        _name(call, request.name, request.version)
        metadata = self.inference.model_metadata(call.params["name"], call.params.get("version"))
        del metadata["properties"]
        return _answer(pb.ModelMetadataResponse(**metadata))

    async def model_infer(self, call: Call) -> Answer:
        """Tensors go back the way in which they came: as raw contents or as numbers."""
        start = time.perf_counter()
        request = _read(pb.ModelInferRequest, call)
        _name(call, request.model_name, request.model_version)
        model = find_model(self.inference.models, call, tensors=True)
        wanted = list(by_name("outputs", _outputs(request)))
        seconds = read_timeout(_value(request.parameters, "timeout"))
        work = await self.inference.run(call, model, _inputs(request), wanted, seconds)
        reply = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
        for name in wanted or work.outputs:
            values = work.outputs[name]
            output = reply.outputs.add(name=name, datatype="FP32", shape=values.shape)
            if request.raw_input_contents:
                reply.raw_output_contents.append(to_bytes(values).tobytes())
            else:
                output.contents.fp32_contents.extend(values.ravel().tolist())
        answer = _answer(reply)
        model.batcher.around(work, start)
        if call.trace:
            call.trace.note_work(model, work, start)
        return answer


def _read(kind: type[_M], call: Call) -> _M:
    try:
        message: _M = kind.FromString(call.body)
    except DecodeError:
        raise Refusal(400, f"the message is no {kind.DESCRIPTOR.full_name}") from None
    return message


def _name(call: Call, name: str, version: str) -> None:
    """Note which model the message names, in which version if any. Raises Refusal (403)."""
    allow(call.key, name)
    call.params = {"name": name, "version": version} if version else {"name": name}


def _outputs(request: pb.ModelInferRequest) -> Iterator[tuple[str, None]]:
    for output in request.outputs:
        check_parameters(output.name, output.parameters)
        yield output.name, None


def _inputs(request: pb.ModelInferRequest) -> Iterator[tuple[str, Given]]:
    """The inputs, each with its numbers or its bytes. Raises Refusal."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Refusal(400, f"'raw_input_contents' holds {len(raw)} tensors, and 'inputs' {len(request.inputs)}: send one for each")
    for index, tensor in enumerate(request.inputs):
        check_parameters(tensor.name, tensor.parameters)
        if raw and tensor.HasField("contents"):
            raise Refusal(400, f"input '{tensor.name}' has 'contents' beside 'raw_input_contents': send one of them")
        field = _CONTENTS.get(tensor.datatype)
        data: Any = raw[index] if raw else list(getattr(tensor.contents, field)) if field else []
        yield tensor.name, Given(tensor.datatype, list(tensor.shape), data)


def _value(parameters: Mapping[str, pb.InferParameter], name: str) -> Any:
    """A parameter's value, or None."""
    if name not in parameters:
        return None
    kind = parameters[name].WhichOneof("parameter_choice")
    return getattr(parameters[name], kind) if kind else None


def _answer(message: Message) -> Answer:
    return Answer(message.SerializeToString(), media_type=MEDIA_TYPE)
