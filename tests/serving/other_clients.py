"""Asks a model by other people's clients, unchanged: `python other_clients.py CLIENT HTTP GRPC MODEL < inputs.npz > outputs.npz`.

Run by an environment of those clients, which has nothing of maasflow; so it imports nothing of it.
"""

# ruff: noqa: PLC0415 - each client is imported by who asks with it

import asyncio
import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, Any]
DATATYPES = {"float32": "FP32", "int64": "INT64"}


def triton(library: Any, client: Any, model: str, inputs: Arrays, **options: Any) -> Arrays:
    """What both of Triton's clients have in common."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    tensors = []
    for name, values in inputs.items():
        tensor = library.InferInput(name, values.shape, DATATYPES[str(values.dtype)])
        tensor.set_data_from_numpy(values, **options)
        tensors.append(tensor)
    try:
        client.infer("nobody", tensors)
    except library.InferenceServerException as error:
        assert "there is no model 'nobody'" in error.message()  # noqa: PT017 - pytest is not here
    else:
        raise AssertionError("a model that is not there answered")
    result = client.infer(model, tensors, request_id="a7", timeout=10_000_000)
    assert "a7" in str(result.get_response())
    return {output: result.as_numpy(output) for output in names(client.get_model_metadata(model))}


def names(metadata: Any) -> list[str]:
    return [each["name"] for each in metadata["outputs"]] if isinstance(metadata, dict) else [each.name for each in metadata.outputs]


def triton_http(http: str, _: str, model: str, inputs: Arrays) -> Arrays:
    import tritonclient.http as library

    client = library.InferenceServerClient(http.removeprefix("http://"))
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    return triton(library, client, model, inputs)


def triton_http_json(http: str, _: str, model: str, inputs: Arrays) -> Arrays:
    import tritonclient.http as library

    client = library.InferenceServerClient(http.removeprefix("http://"))
    tensors = []
    for name, values in inputs.items():
        tensors.append(library.InferInput(name, values.shape, DATATYPES[str(values.dtype)]))
        tensors[-1].set_data_from_numpy(values, binary_data=False)
    wanted = [library.InferRequestedOutput(name, binary_data=False) for name in names(client.get_model_metadata(model))]
    result = client.infer(model, tensors, outputs=wanted, request_compression_algorithm="gzip")
    return {output.name(): result.as_numpy(output.name()) for output in wanted}


def triton_grpc(_: str, grpc: str, model: str, inputs: Arrays) -> Arrays:
    import tritonclient.grpc as library

    client = library.InferenceServerClient(grpc)
    assert client.get_server_metadata().name == "maasflow"
    return triton(library, client, model, inputs)


def kserve_request(model: str, inputs: Arrays, *, binary: bool) -> Any:
    from kserve import InferInput, InferRequest

    tensors = [InferInput(name, list(values.shape), DATATYPES[str(values.dtype)]) for name, values in inputs.items()]
    for tensor, values in zip(tensors, inputs.values(), strict=True):
        tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model, tensors, request_id="a7", parameters={"binary_data_output": binary})


def kserve_rest(http: str, _: str, model: str, inputs: Arrays) -> Arrays:
    return asyncio.run(ask_kserve_rest(http, model, inputs, binary=True))


def kserve_rest_json(http: str, _: str, model: str, inputs: Arrays) -> Arrays:
    return asyncio.run(ask_kserve_rest(http, model, inputs, binary=False))


async def ask_kserve_rest(http: str, model: str, inputs: Arrays, *, binary: bool) -> Arrays:
    from kserve import InferenceRESTClient, RESTConfig

    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(http)
        assert await client.is_server_ready(http)
        assert await client.is_model_ready(http, model)
        reply = await client.infer(http, kserve_request(model, inputs, binary=binary), model)
    assert reply.id == "a7"
    return {output.name: output.as_numpy() for output in reply.outputs}


def kserve_grpc(_: str, grpc: str, model: str, inputs: Arrays) -> Arrays:
    return asyncio.run(ask_kserve_grpc(grpc, model, inputs))


async def ask_kserve_grpc(grpc: str, model: str, inputs: Arrays) -> Arrays:
    from kserve import InferenceGRPCClient

    async with InferenceGRPCClient(grpc) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(model)
        reply = await client.infer(kserve_request(model, inputs, binary=True))
    assert reply.id == "a7"
    return {output.name: output.as_numpy() for output in reply.outputs}


CLIENTS: dict[str, Callable[[str, str, str, Arrays], Arrays]] = {
    "tritonclient.http": triton_http,
    "tritonclient.http, JSON": triton_http_json,
    "tritonclient.grpc": triton_grpc,
    "kserve, REST": kserve_rest,
    "kserve, REST, JSON": kserve_rest_json,
    "kserve, gRPC": kserve_grpc,
}

if __name__ == "__main__":
    name, http, grpc, model = sys.argv[1:]
    inputs = dict(np.load(io.BytesIO(sys.stdin.buffer.read())))
    written = io.BytesIO()
    np.savez(written, **CLIENTS[name](http, grpc, model, inputs))
    sys.stdout.buffer.write(written.getvalue())
