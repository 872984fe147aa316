"""The OpenAPI 3.1 document of a running server: its routes, and what each loaded model takes."""

import math
import re
from collections.abc import Sequence
from typing import Any, Final

from deploy.serving.endpoint import Operation
from deploy.serving.instances import example_instance, instance_schema
from deploy.serving.model import Model
from deploy.serving.schemas import SCHEMAS, predict_request, schema_ref
from deploy.serving.settings import Settings

_JSON: Final = "application/json"
_LARGEST_EXAMPLE: Final = 1024
_REFUSALS: Final = {
    400: "The request is not what was expected.",
    404: "There is no such model or version.",
    413: "The body is too large, or holds too many rows.",
    415: "The body is not JSON.",
    422: "An instance cannot be used; the text names its index.",
    503: "The model, or the server, does not answer now.",
}


def openapi_document(operations: Sequence[Operation], models: Sequence[Model], version: str, settings: Settings) -> dict[str, Any]:
    """The document. `x-models` lists the loaded models with labels, version and an example, for the page at `/docs`."""
    names = [model.name for model in models]
    paths: dict[str, Any] = {}
    for operation in sorted(operations, key=lambda operation: operation.path):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, models)
    return {
        "openapi": "3.1.0",
        "info": {"title": "maasflow", "version": version, "description": f"Models served: {', '.join(names) or 'none yet'}."},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {**SCHEMAS, **_model_schemas(models, settings)}},
        "x-models": [_model_summary(model) for model in models],
    }


def _described(operation: Operation, models: Sequence[Model]) -> dict[str, Any]:
    kind, schema = (operation.reply, {}) if "/" in operation.reply else (_JSON, {"schema": schema_ref(operation.reply)})
    replies = {"200": {"description": "OK", "content": {kind: schema}}}
    for status in operation.refusals:
        replies[str(status)] = {"description": _REFUSALS[status], "content": {_JSON: {"schema": schema_ref("Error")}}}
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_"),
        "summary": operation.summary,
        "parameters": [_parameter(name, models) for name in re.findall(r"{(\w+)}", operation.path)],
        "responses": replies,
    }
    if operation.request:
        body: dict[str, Any] = {"schema": schema_ref(operation.request)}
        examples = _examples(operation.request, models)
        described["requestBody"] = {"required": True, "content": {_JSON: body | ({"examples": examples} if examples else {})}}
    return described


def _parameter(name: str, models: Sequence[Model]) -> dict[str, Any]:
    values = sorted({model.name if name == "name" else model.version for model in models})
    schema = {"type": "string"} | ({"enum": values} if values else {})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _examples(request: str, models: Sequence[Model]) -> dict[str, Any]:
    example = {"PredictRequest": _predict_example, "InferRequest": _infer_example}[request]
    found = {model.name: example(model) for model in models}
    return {name: {"summary": f"for {name}", "value": value} for name, value in found.items() if value}


def _predict_example(model: Model) -> dict[str, Any]:
    return {"instances": [example_instance(model.manifest.transform)]}


def _infer_example(model: Model) -> dict[str, Any] | None:
    """One row of zeros, or nothing where that would be a long one."""
    inputs = model.manifest.inputs
    if sum(math.prod(spec.shape) for spec in inputs) > _LARGEST_EXAMPLE:
        return None
    return {
        "inputs": [
            {"name": spec.name, "shape": [1, *spec.shape], "datatype": spec.dtype, "data": [0] * math.prod(spec.shape)} for spec in inputs
        ]
    }


def _model_schemas(models: Sequence[Model], settings: Settings) -> dict[str, Any]:
    schemas = {f"{model.name}.Instance": instance_schema(model.manifest.transform) for model in models}
    requests = {
        f"{model.name}.PredictRequest": predict_request(schema_ref(f"{model.name}.Instance"), settings.max_rows) for model in models
    }
    either = {"anyOf": [schema_ref(name) for name in requests]} if requests else predict_request({}, settings.max_rows)
    return {**schemas, **requests, "PredictRequest": either}


def _model_summary(model: Model) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "name": model.name,
        "version": model.version,
        "variant": model.predictor.variant.name,
        "description": manifest.description,
        "labels": manifest.labels,
        "input": manifest.transform.kind,
        "predict": f"/v1/models/{model.name}/predict",
        "example": _predict_example(model),
    }
