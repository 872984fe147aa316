"""What pydantic found wrong with a set of values, told in sentences that a person can act on."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tasks.core.errors import did_you_mean

Key = str | int
Path = tuple[Key, ...]

_NOUNS: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a set of keys and values",
    "model_type": "a set of keys and values",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "is too small: it must be above"),
    "greater_than_equal": ("ge", "is too small: the least allowed is"),
    "less_than": ("lt", "is too large: it must be below"),
    "less_than_equal": ("le", "is too large: the most allowed is"),
}


def mistakes(config: type[BaseModel], values: Mapping[str, Any], error: ValidationError) -> list[tuple[Path, str]]:
    """Each mistake once, as the path of keys to it in the values and a sentence."""
    found: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors():
        found.setdefault(_path(values, detail), []).append(detail)
    return [(path, _sentence(config, path, details)) for path, details in found.items()]


def _path(values: Any, detail: ErrorDetails) -> Path:
    """The keys of pydantic's location without the names of the union members that it mixes in."""
    location = detail["loc"]
    path: list[Key] = []
    for key in location:
        with suppress(LookupError, TypeError):
            values = values[key]
            path.append(key)
    if detail["type"] == "missing" and isinstance(location[-1], str):
        path.append(location[-1])
    return tuple(path)


def _sentence(config: type[BaseModel], path: Path, details: list[ErrorDetails]) -> str:
    first, context = details[0], details[0].get("ctx", {})
    kind, value = first["type"], first["input"]
    match kind:
        case _ if kind in _NOUNS:
            # Several for one path: no member of a union, such as the types of a class, took the value.
            numeric = {detail["type"] for detail in details} == {"int_type", "float_type"}
            noun = "a number" if numeric else "a single value" if len(details) > 1 else _NOUNS[kind]
            text = f"{_shown(value)} is not {noun}{_hint(kind, value)}"
        case _ if kind in _BOUNDS:
            bound, words = _BOUNDS[kind]
            text = f"{_shown(value)} {words} {context[bound]:g}"
        case "extra_forbidden":
            known = _known(config, path[:-1])
            text = f"unknown key '{path[-1]}'{did_you_mean(path[-1], known) or '.'} Known keys: {', '.join(known)}"
        case "missing" if isinstance(first["loc"][-1], int):
            text = f"{_shown(value)} has too few items"
        case "missing":
            text = "this key is missing and has no default"
        case "too_long":
            text = f"{_shown(value)} has {context['actual_length']} items, the most allowed is {context['max_length']}"
        case "literal_error":
            text = _not_one_of(value, context["expected"])
        case "union_tag_invalid":
            text = _not_one_of(context["tag"], context["expected_tags"])
        case "union_tag_not_found":
            text = f"the key {context['discriminator']} is missing"
        case _:
            reason = first["msg"].removeprefix("Value error, ")
            text = reason if isinstance(value, dict | list) else f"{_shown(value)}: {reason}"
    return text


def _not_one_of(value: object, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected) or [expected]
    listed = f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    return f"{_shown(value)} is not {listed}{did_you_mean(value, choices)}"


def _hint(kind: str, value: object) -> str:
    """What to write instead, where that is plain."""
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f": put it in quotes, '{_shown(value)}'"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f": write {value:.0f}"
    return ""


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _known(annotation: Any, path: Path) -> list[str]:
    """The keys known to the config at the end of the path."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        if not path:
            return list(fields)
        return _known(fields[path[0]].annotation, path[1:]) if path[0] in fields else []
    if get_origin(annotation) in (dict, tuple, list):
        # dict[str, X], tuple[X, ...] and list[X]: one key or index leads to X.
        inner = [part for part in get_args(annotation) if part is not Ellipsis]
        return _known(inner[-1], path[1:])
    return next((keys for part in get_args(annotation) if (keys := _known(part, path))), [])
