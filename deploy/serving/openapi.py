"""The OpenAPI 3.1 document of a running server: its routes, and what each loaded model takes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from deploy.serving.instances import example_instance, instance_schema
from deploy.serving.model import VERSION, Model
from deploy.serving.request_ids import PATTERN
from deploy.serving.routes import OCTETS, Operation
from deploy.serving.schemas import (
    SCHEMAS,
    UPLOADS,
    completion_request,
    generate_request,
    invocation_request,
    predict_request,
    schema_ref,
)
from deploy.serving.settings import Settings
from deploy.serving.tensors import example_tensors
from tasks.core.transforms import TableTransform

_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_LARGEST_EXAMPLE: Final = 1024
_PROMPT: Final = "Once upon a time"
_EXAMPLE_TOKENS: Final = 64
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_COUNT: Final = {"type": "integer", "minimum": 0}
_TENSORS_IN_BYTES: Final = {
    "schema": {
        "contentMediaType": OCTETS,
        "description": f"The same JSON, of as many bytes as the header {_HEADER_LENGTH} says; after it the tensors whose parameters have a "
        "'binary_data_size', one after the other, row-major and little-endian.",
    }
}
_REFUSALS: Final = {
    400: "The request is not what was expected.",
    403: "The API key may not do this, or the request comes from the page of another site.",
    401: "An API key is needed, or this one is not known.",
    404: "There is no such model or version.",
    413: "The body is too large, or holds too many rows, characters or pixels.",
    415: "The body is of a media type that is not taken here.",
    422: "An instance cannot be used, and the text names its index; or a prompt cannot be read.",
    429: "The API key has had what it may have a second; Retry-After says when there is more.",
    503: "The model, or the server, does not answer now; Retry-After says when to ask again.",
    504: "It could not be answered before its deadline.",
}
_WITH_KEYS: Final = (401, 403, 429)
"""What is answered beside where API keys are demanded."""
_REQUEST_ID: Final = "X-Request-Id"
_REQUEST_ID_PARAMETER: Final = {
    "name": _REQUEST_ID,
    "in": "header",
    "description": "What the request is called in its answer and in the server's log; another is made for one that is not so.",
    "schema": {"type": "string", "pattern": PATTERN},
}

_STICKY: Final = "X-Sticky-Key"
_STICKY_PARAMETER: Final = {
    "name": _STICKY,
    "in": "header",
    "description": "Requests with the same value, as a user's number, are answered by the same version where a challenger answers a share.",
    "schema": {"type": "string"},
}


def openapi_document(
    operations: Sequence[Operation], models: Sequence[Model], versions: Sequence[str], version: str, settings: Settings
) -> dict[str, Any]:
    """The document, of a server of that version; `versions` are those of models. `x-models` lists the loaded models with labels, version
    and an example, for the page at `/`.
    """
    names = [model.name for model in models]
    values = {"name": sorted(names), "version": sorted(set(versions))}
    paths: dict[str, Any] = {}
    for operation in sorted(operations, key=lambda operation: operation.path):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, models, values, settings)
    return {
        "openapi": "3.1.0",
        "info": {"title": "maasflow", "version": version, "description": f"Models served: {', '.join(names) or 'none yet'}."},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **_model_schemas(models, settings)},
            "headers": {"RequestId": {"description": "The client's own if it sent one, else a new one.", "schema": {"type": "string"}}},
            "parameters": {"RequestId": _REQUEST_ID_PARAMETER, "StickyKey": _STICKY_PARAMETER},
        },
        "x-models": [_model_summary(model, settings) for model in models],
    }


def _described(operation: Operation, models: Sequence[Model], values: Mapping[str, Sequence[str]], settings: Settings) -> dict[str, Any]:
    content: dict[str, Any] = {operation.reply: {}} if "/" in operation.reply else {_JSON: {"schema": schema_ref(operation.reply)}}
    if operation.binary:
        content[OCTETS] = _TENSORS_IN_BYTES
    if operation.events:
        content[_EVENTS] = {"schema": _event(operation.events)}
    replies: dict[str, dict[str, Any]] = {"200": {"description": "OK", "content": content}}
    for status in sorted({*operation.refusals, *(_WITH_KEYS if operation.scope else ())}):
        replies[str(status)] = {"description": _REFUSALS[status], "content": {_JSON: {"schema": schema_ref("Error")}}}
    for reply in replies.values():
        reply["headers"] = {_REQUEST_ID: {"$ref": "#/components/headers/RequestId"}}
    if operation.reply in ("InvocationReply", "CompletionReply"):
        replies["200"]["headers"][VERSION] = {"description": "The version that answered.", "required": False, "schema": {"type": "string"}}
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_"),
        "summary": operation.summary,
        "parameters": [
            *(_parameter(name, values[name]) for name in re.findall(r"{(\w+)}", operation.path)),
            {"$ref": "#/components/parameters/RequestId"},
        ],
        "responses": replies,
    }
    if operation.request:
        described["parameters"].append({"$ref": "#/components/parameters/StickyKey"})
        body: dict[str, Any] = {"schema": schema_ref(operation.request)}
        examples = _examples(operation.request, models, settings)
        uploads = {kind: {"schema": UPLOADS[kind]} for kind in operation.uploads}
        described["requestBody"] = {"required": True, "content": {_JSON: body | ({"examples": examples} if examples else {}), **uploads}}
    if operation.binary:
        described["requestBody"]["content"][OCTETS] = _TENSORS_IN_BYTES
        described["parameters"].append({"name": _HEADER_LENGTH, "in": "header", "schema": _COUNT})
        replies["200"]["headers"][_HEADER_LENGTH] = {"required": False, "schema": _COUNT, "description": "Where tensors follow as bytes."}
    return described


def _event(data: str) -> dict[str, Any]:
    """Of each event of a stream, whose data has that schema; as OpenAPI 3.2 has it, which 3.1 leaves open."""
    value = {"type": "string", "contentMediaType": _JSON, "contentSchema": schema_ref(data)}
    return {"type": "object", "properties": {"data": {"anyOf": [{"const": "[DONE]"}, value]}}, "required": ["data"]}


def _parameter(name: str, values: Sequence[str]) -> dict[str, Any]:
    schema = {"type": "string"} | ({"enum": values} if values else {})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _examples(request: str, models: Sequence[Model], settings: Settings) -> dict[str, Any]:
    example = {
        "PredictRequest": _predict_example,
        "InvocationRequest": _invocation_example,
        "InferRequest": _infer_example,
        "GenerateRequest": _generate_example,
        "CompletionRequest": _completion_example,
    }[request]
    found = {model.name: example(model, settings) for model in models}
    return {name: {"summary": f"for {name}", "value": value} for name, value in found.items() if value}


def _predict_example(model: Model, _: Settings) -> dict[str, Any] | None:
    return None if model.generator else {"instances": [example_instance(model.manifest.transform)]}


def _invocation_example(model: Model, settings: Settings) -> dict[str, Any]:
    transform = model.manifest.transform
    if model.generator:
        return {"inputs": [_PROMPT], "params": {"max_tokens": min(_EXAMPLE_TOKENS, settings.max_tokens)}}
    example = example_instance(transform)
    if isinstance(transform, TableTransform):
        return {"dataframe_split": {"columns": list(example), "data": [list(example.values())]}, "params": {"probabilities": True}}
    return {"inputs": [example]}


def _generate_example(model: Model, settings: Settings) -> dict[str, Any] | None:
    tokens = min(_EXAMPLE_TOKENS, settings.max_tokens)
    return {"prompt": _PROMPT, "max_tokens": tokens, "temperature": 0.8, "seed": 1} if model.generator else None


def _completion_example(model: Model, settings: Settings) -> dict[str, Any] | None:
    tokens = min(_EXAMPLE_TOKENS, settings.max_tokens)
    return {"model": model.name, "prompt": _PROMPT, "max_tokens": tokens} if model.generator else None


def _infer_example(model: Model, _: Settings) -> dict[str, Any] | None:
    """One short row, or nothing where that would still be a long one."""
    specs = model.manifest.inputs
    tensors = example_tensors(specs)
    if sum(values.size for values in tensors.values()) > _LARGEST_EXAMPLE:
        return None
    rows = [(spec, tensors[spec.name]) for spec in specs]
    return {
        "inputs": [
            {"name": spec.name, "shape": values.shape, "datatype": spec.dtype, "data": values.ravel().astype(int).tolist()}
            for spec, values in rows
        ]
    }


def _model_schemas(models: Sequence[Model], settings: Settings) -> dict[str, Any]:
    predicting = [model for model in models if not model.generator]
    schemas = {f"{model.name}.Instance": instance_schema(model.manifest.transform) for model in predicting}
    requests = {
        f"{model.name}.PredictRequest": predict_request(schema_ref(f"{model.name}.Instance"), settings.max_rows) for model in predicting
    }
    either = {"anyOf": [schema_ref(name) for name in requests]} if requests else predict_request({}, settings.max_rows)
    others = {
        "GenerateRequest": generate_request(settings.max_tokens),
        "CompletionRequest": completion_request(settings),
        "InvocationRequest": invocation_request(settings),
    }
    return {**schemas, **requests, "PredictRequest": either, **others}


def _model_summary(model: Model, settings: Settings) -> dict[str, Any]:
    manifest = model.manifest
    verb, example = ("generate", _generate_example) if model.generator else ("predict", _predict_example)
    return {
        "name": model.name,
        "version": model.version,
        "variant": model.predictor.variant.name,
        "description": manifest.description,
        "labels": manifest.labels,
        "input": manifest.transform.kind,
        "task": manifest.task,
        "path": f"/v1/models/{model.name}/{verb}",
        "example": example(model, settings),
    }
