"""JSON Schemas (2020-12) of what the routes take and give, for `/openapi.json`."""

from typing import Any, Final


def _object(properties: dict[str, Any], *optional: str, **more: Any) -> dict[str, Any]:
    """An object whose keys are all required but the optional ones."""
    return {"type": "object", "properties": properties, "required": [key for key in properties if key not in optional], **more}


def _list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def schema_ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final = {"type": "string"}
_TRUE: Final = {"type": "boolean", "const": True}
_TEXTS: Final = _list(_TEXT)
_SHAPE: Final = _list({"type": "integer"})
_DATATYPE: Final = {"type": "string", "enum": ["FP32", "INT64"]}
_DATA: Final = {"type": "array", "description": "Numbers in row-major order, flat or nested as the shape says."}
_PARAMETERS: Final = {"type": "object", "description": "Taken and not used."}
_TENSOR_METADATA: Final = _list(_object({"name": _TEXT, "datatype": _DATATYPE, "shape": _SHAPE}))

SCHEMAS: Final[dict[str, Any]] = {
    "Document": {"type": "object", "description": "An OpenAPI 3.1 document."},
    "Error": _object({"error": {"type": "string", "description": "What is wrong, and what was expected."}}),
    "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _TEXTS}),
    "ServerLive": _object({"live": _TRUE}),
    "ServerReady": _object(
        {
            "ready": _TRUE,
            "problems": {"type": "object", "additionalProperties": _TEXT, "description": "By model, why its newest version is not served."},
        }
    ),
    "ModelReady": _object({"name": _TEXT, "ready": _TRUE}),
    "ModelMetadata": _object(
        {
            "name": _TEXT,
            "versions": _TEXTS,
            "platform": _TEXT,
            "inputs": _TENSOR_METADATA,
            "outputs": _TENSOR_METADATA,
            "properties": {"type": "object", "additionalProperties": _TEXT},
        }
    ),
    "InferRequest": _object(
        {
            "id": {"type": "string", "description": "Comes back in the reply."},
            "inputs": _list(
                _object({"name": _TEXT, "shape": _SHAPE, "datatype": _DATATYPE, "data": _DATA, "parameters": _PARAMETERS}, "parameters"),
                minItems=1,
            ),
            "outputs": _list(_object({"name": _TEXT, "parameters": _PARAMETERS}, "parameters"), minItems=1),
            "parameters": _PARAMETERS,
        },
        "id",
        "outputs",
        "parameters",
    ),
    "InferReply": _object(
        {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "id": _TEXT,
            "outputs": _list(_object({"name": _TEXT, "datatype": _DATATYPE, "shape": _SHAPE, "data": _DATA})),
        },
        "id",
    ),
    "PredictReply": _object(
        {
            "model": _TEXT,
            "version": _TEXT,
            "predictions": _list(
                _object(
                    {
                        "label": {"type": "string", "description": "The most probable one."},
                        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
                    }
                ),
                description="One for each instance, in order.",
            ),
        }
    ),
    "ModelList": _object(
        {
            "models": _list(
                _object(
                    {
                        "name": _TEXT,
                        "ready": {"type": "boolean"},
                        "version": _TEXT,
                        "variant": _TEXT,
                        "task": _TEXT,
                        "description": _TEXT,
                        "labels": _TEXTS,
                        "problem": {"type": "string", "description": "Why its newest version is not served."},
                    },
                    *("version", "variant", "task", "description", "labels", "problem"),
                )
            )
        }
    ),
}


def predict_request(instance: dict[str, Any], limit: int) -> dict[str, Any]:
    """The body of a prediction whose instances have the given schema."""
    instances = _list(instance, minItems=1, maxItems=limit)
    return _object({"instances": instances, "parameters": _PARAMETERS}, "parameters", additionalProperties=False)
