"""The Open Inference Protocol v2 over REST (https://github.com/kserve/open-inference-protocol), with its binary tensors."""

import time
from collections.abc import Iterator
from typing import Any

import orjson

from deploy.serving.body import HEADER_LENGTH, read_object_and_bytes
from deploy.serving.calls import Answer, Call, Refusal
from deploy.serving.deadline import read_timeout
from deploy.serving.inference import Inference, by_name, check_parameters
from deploy.serving.lookup import find_model
from deploy.serving.routes import OCTETS, Operation
from deploy.serving.tensors import Given, to_bytes
from tasks.core.transforms import Tensors


class OpenInference:
    """Its operations on the served models. Section names are the protocol's."""

    def __init__(self, inference: Inference) -> None:
        self.inference = inference

    def operations(self) -> list[Operation]:
        """The busiest first, because routes are tried in order."""
        operations = []
        for versions, which in (("", ""), ("/versions/{version}", ", a version given")):
            path = "/v2/models/{name}" + versions
            operations += [
                Operation(
                    method="POST",
                    path=f"{path}/infer",
                    summary=f"Tensors in, tensors out{which}",
                    handler=self.infer,
                    request="InferRequest",
                    reply="InferReply",
                    binary=True,
                    refusals=(400, 403, 404, 413, 415, 503, 504),
                ),
                Operation(
                    method="GET",
                    path=f"{path}/ready",
                    summary=f"Whether a model answers{which}",
                    handler=self.model_ready,
                    reply="ModelReady",
                    refusals=(404, 503),
                ),
                Operation(
                    method="GET",
                    path=path,
                    summary=f"A model's inputs and outputs{which}",
                    handler=self.model_metadata,
                    reply="ModelMetadata",
                    refusals=(404, 503),
                ),
            ]
        return [
            *operations,
            Operation(
                method="GET", path="/v2/health/live", summary="Whether the server runs", handler=self.live, reply="ServerLive", scope=None
            ),
            Operation(
                method="GET",
                path="/v2/health/ready",
                summary="Whether the server answers for at least one model",
                handler=self.ready,
                reply="ServerReady",
                refusals=(503,),
                scope=None,
            ),
            Operation(
                method="GET", path="/v2", summary="The server's name and version", handler=self.server_metadata, reply="ServerMetadata"
            ),
        ]

    async def server_metadata(self, _: Call) -> Answer:
        """Server Metadata."""
        return Answer(self.inference.server_metadata())

    async def live(self, _: Call) -> Answer:
        """Health, server live. True while draining too: a server that is about to end needs no restart."""
        return Answer({"live": True})

    async def ready(self, _: Call) -> Answer:
        """Health, server ready."""
        problems, registry = self.inference.check_ready(), self.inference.models.registry
        return Answer({"ready": True, "problems": problems} | ({"registry": registry.what} if registry else {}))

    async def model_ready(self, call: Call) -> Answer:
        """Health, model ready."""
        model = self.inference.ready_model(call.params["name"], call.params.get("version"))
        return Answer({"name": model.name, "ready": True})

    async def model_metadata(self, call: Call) -> Answer:
        """Model Metadata."""
        return Answer(self.inference.model_metadata(call.params["name"], call.params.get("version")))

    async def infer(self, call: Call) -> Answer:
        """Inference."""
        start = time.perf_counter()
        model = find_model(self.inference.models, call, tensors=True)
        values, binary = read_object_and_bytes(call, self.inference.settings.max_body_bytes)
        identity = values.get("id")
        if identity is not None and type(identity) is not str:
            raise Refusal(400, f"'id' is a text, found {identity!r}")
        parameters = _parameters(values)
        in_bytes = _is_true(parameters, "binary_data_output", otherwise=False)
        wanted = by_name("outputs", _outputs(values, in_bytes=in_bytes))
        work = await self.inference.run(call, model, _inputs(values, binary), list(wanted), read_timeout(parameters.get("timeout")))
        wanted = wanted or dict.fromkeys(work.outputs, in_bytes)
        head = {"model_name": model.name, "model_version": model.version}
        answer = _answer(head if identity is None else {**head, "id": identity}, work.outputs, wanted)
        model.batcher.around(work, start)
        if call.trace:
            call.trace.note_work(model, work, start)
        return answer


def _inputs(values: dict[str, Any], binary: memoryview) -> Iterator[tuple[str, Given]]:
    """The inputs, each with its numbers or its part of the bytes. Raises Refusal."""
    start = 0
    for name, item in _named(values.get("inputs"), "inputs"):
        parameters = _parameters(item)
        check_parameters(name, parameters)
        data, size = item.get("data"), parameters.get("binary_data_size")
        if size is not None:
            left = len(binary) - start
            if type(size) is not int or not 0 <= size <= left:
                raise Refusal(400, f"input '{name}' has the binary_data_size {size!r}, and {left:,} bytes are left in the body")
            if data is not None:
                raise Refusal(400, f"input '{name}' has both 'data' and a binary_data_size: send one of them")
            data, start = binary[start : start + size], start + size
        yield name, Given(item.get("datatype"), item.get("shape"), data)
    if start < len(binary):
        raise Refusal(400, f"{len(binary) - start:,} bytes follow those of the inputs: each has its 'binary_data_size' in its parameters")


def _outputs(values: dict[str, Any], *, in_bytes: bool) -> Iterator[tuple[str, bool]]:
    """The outputs that are asked for, and whether in bytes: none where all are. Raises Refusal."""
    if "outputs" in values:
        for name, item in _named(values["outputs"], "outputs"):
            parameters = _parameters(item)
            check_parameters(name, parameters)
            yield name, _is_true(parameters, "binary_data", otherwise=in_bytes)


def _named(given: Any, key: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with its 'name'. Raises Refusal."""
    if type(given) is not list or not given:
        raise Refusal(400, f"'{key}' is a list of at least one object")
    named = []
    for item in given:
        name = item.get("name") if type(item) is dict else None
        if type(name) is not str:
            raise Refusal(400, f"each of '{key}' is an object with a 'name'")
        named.append((name, item))
    return named


def _parameters(values: dict[str, Any]) -> dict[str, Any]:
    """Those of a request, an input or an output. Raises Refusal."""
    parameters = values.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise Refusal(400, f"'parameters' is an object, found {parameters!r}")
    return parameters


def _is_true(parameters: dict[str, Any], key: str, *, otherwise: bool) -> bool:
    value = parameters.get(key, otherwise)
    if type(value) is not bool:
        raise Refusal(400, f"the parameter '{key}' is true or false, found {value!r}")
    return value


def _answer(head: dict[str, Any], outputs: Tensors, wanted: dict[str, bool]) -> Answer:
    """JSON; behind it those of the wanted outputs that are wanted in bytes, in their order."""
    described: list[dict[str, Any]] = []
    pieces: list[memoryview] = []
    for name, in_bytes in wanted.items():
        values = outputs[name]
        output = {"name": name, "datatype": "FP32", "shape": values.shape}
        if in_bytes:
            described.append({**output, "parameters": {"binary_data_size": values.nbytes}})
            pieces.append(to_bytes(values))
        else:
            described.append({**output, "data": values.ravel()})
    reply = {**head, "outputs": described}
    if not pieces:
        return Answer(reply)
    text = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    return Answer(b"".join((text, *pieces)), headers={HEADER_LENGTH.decode(): str(len(text))}, media_type=OCTETS)
