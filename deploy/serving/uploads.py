"""Inputs that are sent as files: a form with some of them, or one as the whole body."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from deploy.serving.body import unpacked
from deploy.serving.calls import Call, Refusal
from deploy.serving.csv_rows import MEDIA_TYPE as CSV
from deploy.serving.csv_rows import read_rows
from deploy.serving.multipart import FORM, Part, read_parts
from deploy.serving.origin import refuse_other_sites
from deploy.serving.settings import Settings
from tasks.core.transforms import TableTransform, Transform

TAKEN: Final = {"image": "image/*", "text": "text/plain", "table": CSV}
"""The type of a body that is one file, by the kind of the model's transform."""
_FILE: Final = "file"


def read_upload(call: Call, kind: str, transform: Transform, settings: Settings) -> list[Any]:
    """The instances in a body of the media type `kind`, which is not JSON. To be called in a thread, as a large form takes a while.

    Raises Refusal: 400, 403, 413, 415, or 422 with the index of a text that cannot be read.
    """
    refuse_other_sites(call)
    taken = TAKEN[transform.kind]
    if kind != FORM and not fnmatchcase(kind, taken):
        raise Refusal(415, f"the body is {kind[:80]}, this model takes application/json, {FORM} and {taken}: say which in Content-Type")
    body = unpacked(call, settings.max_body_bytes)
    if kind == FORM:
        parts = read_parts(call.headers[b"content-type"], body, settings.max_rows)
        return _rows(parts, settings.max_rows) if isinstance(transform, TableTransform) else _files(parts, transform.kind, transform.column)
    return list(read_rows(body, settings.max_rows)) if kind == CSV else _contents([body], transform.kind)


def _rows(parts: Sequence[Part], most: int) -> list[Any]:
    """The rows of the form's one CSV file, or the one row whose cells are its fields."""
    if any(part.is_file for part in parts):
        if len(parts) > 1:
            raise Refusal(400, f"one file of CSV is expected, the form has {len(parts):,} parts")
        return list(read_rows(parts[0].content, most))
    row: dict[str, str | None] = {}
    for part in parts:
        if part.name in row:
            raise Refusal(400, f"the form has '{part.name}' twice: send one row, or many in a file of CSV")
        row[part.name] = _text(part.content, 0) or None
    return [row] if row else []


def _files(parts: Sequence[Part], kind: str, column: str) -> list[Any]:
    """One instance for each part."""
    for part in parts:
        if part.name not in (_FILE, column):
            raise Refusal(400, f"the form has '{part.name}', expected '{_FILE}' for each {kind}")
    return _contents([part.content for part in parts], kind)


def _contents(files: Sequence[bytes], kind: str) -> list[Any]:
    return list(files) if kind == "image" else [_text(content, index) for index, content in enumerate(files)]


def _text(content: bytes, index: int) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(422, f"item {index}: the text is not UTF-8 (byte {error.start})") from None
