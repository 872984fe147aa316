"""JSON Schemas (2020-12) of what the routes take and give, for `/openapi.json`."""

from typing import Any, Final

from deploy.serving.csv_rows import MEDIA_TYPE as CSV
from deploy.serving.multipart import FORM
from deploy.serving.settings import Settings
from deploy.serving.uploads import TAKEN
from tasks.core.generator import Options
from tasks.core.transforms.image import MAX_PIXELS


def _object(properties: dict[str, Any], *optional: str, **more: Any) -> dict[str, Any]:
    """An object whose keys are all required but the optional ones."""
    return {"type": "object", "properties": properties, "required": [key for key in properties if key not in optional], **more}


def _list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def schema_ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


COMPLETION_TOKENS: Final = 16
"""OpenAI's default."""

_TEXT: Final = {"type": "string"}
_TRUE: Final = {"type": "boolean", "const": True}
_TEXTS: Final = _list(_TEXT)
_SHAPE: Final = _list({"type": "integer"})
_DATATYPE: Final = {"type": "string", "enum": ["FP32", "INT64"]}
_DATA: Final = {"type": "array", "description": "Numbers in row-major order, flat or nested as the shape says."}
_PARAMETERS: Final = {"type": "object", "description": "Taken and not used."}
_COUNT: Final = {"type": "integer", "minimum": 0}
_INPUT_PARAMETERS: Final = {
    "type": "object",
    "properties": {"binary_data_size": {**_COUNT, "description": "Bytes that follow the JSON, instead of 'data'."}},
}
_OUTPUT_PARAMETERS: Final = {
    "type": "object",
    "properties": {"binary_data": {"type": "boolean", "description": "Whether it comes as bytes after the JSON."}},
}
_REQUEST_PARAMETERS: Final = {
    "type": "object",
    "properties": {
        "binary_data_output": {"type": "boolean", "default": False, "description": "Whether outputs come as bytes after the JSON."},
        "timeout": {**_COUNT, "description": "Microseconds in which it is to be answered; 0 leaves it to the server."},
    },
    "description": "Others are taken and not used.",
}
_REASON: Final = {"enum": ["stop", "length"], "description": "Whether it ended at one of the stop texts, or at max_tokens."}
_USAGE: Final = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT})
_USAGE_AND_TOTAL: Final = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT})
_GENERATED: Final = _object({"model": _TEXT, "version": _TEXT, "text": _TEXT, "finish_reason": _REASON, "usage": _USAGE})
_CHOICE: Final = _object(
    {"text": _TEXT, "index": _COUNT, "logprobs": {"type": "null"}, "finish_reason": {"enum": [*_REASON["enum"], None]}}
)
_COMPLETION: Final = {
    "id": _TEXT,
    "object": {"const": "text_completion"},
    "created": {"type": "integer", "description": "Seconds since 1970."},
    "model": _TEXT,
    "choices": _list(_CHOICE),
}
_STREAM: Final = {"type": "boolean", "default": False, "description": "Answer with server-sent events, one for each piece as it comes."}
_PREDICTION: Final = _object(
    {
        "label": {"type": "string", "description": "The most probable one."},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
    }
)
_ROW: Final = {"type": "object", "description": "By column."}
_COLUMNS: Final = _list({"type": ["string", "integer"]}, uniqueItems=True)
_NUMBER_OR_NULL: Final[dict[str, Any]] = {"type": ["number", "null"]}
_TRAFFIC: Final[dict[str, dict[str, Any]]] = {
    "requests": _COUNT,
    "errors": {**_COUNT, "description": "Answers with a status of 400 or more."},
    "median": {**_NUMBER_OR_NULL, "description": "Seconds until an answer was made; of a stream, until it began."},
    "p99": {**_NUMBER_OR_NULL, "description": "Seconds in which 99 of 100 answers were made."},
    "rows_per_batch": {**_NUMBER_OR_NULL, "description": "How many rows were run together, on average."},
}
_TENSOR_METADATA: Final = _list(_object({"name": _TEXT, "datatype": _DATATYPE, "shape": _SHAPE}))
_CHALLENGER: Final = {
    "description": "The version that is tried beside it, and how it does since this process has both; or why it is not tried.",
    "anyOf": [
        _object(
            {
                "version": _TEXT,
                "traffic": {"type": "string", "description": "What it gets of the requests, as in 'canary 10%'."},
                "requests": {**_COUNT, "description": "That it answered."},
                "failures": {**_COUNT, "description": "That it failed on."},
                "rows": {**_COUNT, "description": "That both computed."},
                "agreement": {"type": ["number", "null"], "description": "The share of these on which both give the same label."},
            }
        ),
        _object({"problem": _TEXT}),
    ],
}

SCHEMAS: Final[dict[str, Any]] = {
    "Document": {"type": "object", "description": "An OpenAPI 3.1 document."},
    "Error": _object({"error": {"type": "string", "description": "What is wrong, and what was expected."}}),
    "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _TEXTS}),
    "ServerLive": _object({"live": _TRUE}),
    "ServerReady": _object(
        {
            "ready": _TRUE,
            "problems": {"type": "object", "additionalProperties": _TEXT, "description": "By model, why its newest version is not served."},
            "registry": {"type": "string", "description": "Why no newer versions come, where none can."},
        },
        "registry",
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
                _object(
                    {"name": _TEXT, "shape": _SHAPE, "datatype": _DATATYPE, "data": _DATA, "parameters": _INPUT_PARAMETERS},
                    *("data", "parameters"),
                ),
                minItems=1,
            ),
            "outputs": _list(_object({"name": _TEXT, "parameters": _OUTPUT_PARAMETERS}, "parameters"), minItems=1),
            "parameters": _REQUEST_PARAMETERS,
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
            "outputs": _list(
                _object(
                    {"name": _TEXT, "datatype": _DATATYPE, "shape": _SHAPE, "data": _DATA, "parameters": _INPUT_PARAMETERS},
                    *("data", "parameters"),
                )
            ),
        },
        "id",
    ),
    "PredictReply": _object(
        {
            "model": _TEXT,
            "version": _TEXT,
            "request_id": {"type": "string", "description": "What the header X-Request-Id says too."},
            "predictions": _list(_PREDICTION, description="One for each instance, in order."),
        }
    ),
    "InvocationReply": _object(
        {
            "predictions": _list(
                {"anyOf": [{"type": "string", "description": "A label, or the continuation of a prompt."}, _PREDICTION]},
                description="One for each row, in order.",
            )
        }
    ),
    "GenerateReply": _GENERATED,
    "GenerateEvent": {
        "description": "The data of each server-sent event: a piece of the text; at the end, a reply without it; after a failure, an error.",
        "anyOf": [_object({"text": _TEXT}, additionalProperties=False), _GENERATED, schema_ref("Error")],
    },
    "CompletionReply": _object({**_COMPLETION, "usage": _USAGE_AND_TOTAL}),
    "CompletionEvent": {
        "description": "The data of each server-sent event but the last, which is [DONE].",
        "anyOf": [_object({**_COMPLETION, "usage": _USAGE_AND_TOTAL}, "usage"), schema_ref("Error")],
    },
    "ModelList": _object(
        {
            "models": _list(
                _object(
                    {
                        "name": _TEXT,
                        "ready": {"type": "boolean"},
                        "version": _TEXT,
                        "variant": _TEXT,
                        "batch": {"enum": ["any", "one"], "description": "Whether rows are run together, or one at a time."},
                        "task": _TEXT,
                        "description": _TEXT,
                        "labels": _TEXTS,
                        "challenger": _CHALLENGER,
                        "problem": {"type": "string", "description": "Why its newest version is not served."},
                    },
                    *("version", "variant", "batch", "task", "description", "labels", "challenger", "problem"),
                )
            )
        }
    ),
    "Traffic": _object(
        {
            "period_seconds": {"type": "number"},
            "models": {
                "type": "object",
                "additionalProperties": _object(
                    {
                        **_TRAFFIC,
                        "statuses": {"type": "object", "additionalProperties": _COUNT, "description": "Answers by status."},
                        "periods": {
                            **_object({name: _list(schema) for name, schema in _TRAFFIC.items()}),
                            "description": "The same of each period, from the oldest to the one that is not over yet.",
                        },
                    }
                ),
            },
        }
    ),
}

UPLOADS: Final[dict[str, Any]] = {
    FORM: {
        "type": "object",
        "description": (
            "Images or texts, each a part 'file'. For a table one file of CSV, or one row with a part for each column. "
            "At most as many parts as instances in JSON."
        ),
        "properties": {"file": _list({"type": "string", "contentMediaType": "application/octet-stream"}, minItems=1)},
    },
    TAKEN["image"]: {"description": f"One image, of at most {MAX_PIXELS:,} pixels."},
    TAKEN["text"]: {"type": "string", "description": "One text, in UTF-8."},
    CSV: {"type": "string", "description": "Rows in UTF-8 below a line that names the columns; an empty cell is a missing value."},
}
"""What bodies of other media types than JSON are. A browser's page of another site is refused all of them."""


def predict_request(instance: dict[str, Any], limit: int) -> dict[str, Any]:
    """The body of a prediction whose instances have the given schema."""
    instances = _list(instance, minItems=1, maxItems=limit)
    return _object({"instances": instances, "parameters": _PARAMETERS}, "parameters", additionalProperties=False)


def generate_request(most: int) -> dict[str, Any]:
    """The body of a generation of at most so many tokens."""
    prompt = {"type": "string", "description": "The text to continue. The model takes an empty one for the beginning of a line."}
    properties = {"prompt": prompt, **_options(most), "stream": _STREAM}
    return _object(properties, *(key for key in properties if key != "prompt"), additionalProperties=False)


def completion_request(settings: Settings) -> dict[str, Any]:
    """The body of a completion, as OpenAI has it."""
    prompts = _list(_TEXT, minItems=1, maxItems=settings.max_rows)
    options = _options(settings.max_tokens)
    properties = {
        "model": {"type": "string", "description": "The name of a language model."},
        "prompt": {"anyOf": [_TEXT, prompts], "description": "What to continue; several are continued one after the other."},
        **options,
        "max_tokens": {**options["max_tokens"], "default": min(COMPLETION_TOKENS, settings.max_tokens)},
        "stream": _STREAM,
        "stream_options": _object({"include_usage": {"type": "boolean"}}, "include_usage"),
        "echo": {"type": "boolean", "default": False, "description": "Begin each text with its prompt."},
        "n": {"const": 1},
        "user": {"type": "string", "description": "Taken and not used."},
    }
    return _object(properties, *(key for key in properties if key != "model"))


def invocation_request(settings: Settings) -> dict[str, Any]:
    """The body of an invocation, as MLflow has it: the rows in exactly one of four forms."""
    split = _object({"columns": _COLUMNS, "data": _list(_list({})), "index": _list({})}, "index", additionalProperties=False)
    values = _list({}, description="Rows by column, or bare values for a model of one column; that column may have any name.")
    forms = {
        "dataframe_split": split,
        "dataframe_records": _list(_ROW),
        "instances": values,
        "inputs": {"anyOf": [values, {"type": "object", "additionalProperties": _list({}), "description": "Lists by column."}]},
    }
    probabilities = {"type": "boolean", "default": False, "description": "Whether a prediction has them beside its label."}
    params = {
        "type": ["object", "null"],
        "description": "For a model with labels 'probabilities'; for a language model the options of a generation.",
        "properties": {"probabilities": probabilities, **_options(settings.max_tokens)},
        "additionalProperties": False,
    }
    return {
        "description": "NaN, which is not in JSON, is read as null, because Python's clients write it so.",
        "oneOf": [_object({form: schema, "params": params}, "params", additionalProperties=False) for form, schema in forms.items()],
    }


def _options(most: int) -> dict[str, Any]:
    """The options of a generation, from the class that reads them."""
    properties: dict[str, Any] = Options.model_json_schema()["properties"]
    tokens, stop = properties["max_tokens"], properties["stop"]
    return properties | {
        "max_tokens": {**tokens, "maximum": most, "default": min(tokens["default"], most)},
        "stop": {"description": stop["description"], "anyOf": [stop["items"], _list(stop["items"], maxItems=stop["maxItems"])]},
    }
