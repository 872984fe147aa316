"""What a client sends for one prediction, as a JSON Schema and as an example, from the model's transform."""

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

from tasks.core.transforms import ImageTransform, TableTransform, TextTransform, Transform


def instance_schema(transform: Transform) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one instance."""
    match transform:
        case ImageTransform():
            return _image_schema(transform)
        case TextTransform():
            return _text_schema(transform)
        case TableTransform():
            return _row_schema(transform)


def example_instance(transform: Transform) -> Any:
    """An instance that the model takes: a small drawing, a few words, or the row of the training set's means and first categories."""
    match transform:
        case ImageTransform():
            return _drawing(transform)
        case TextTransform():
            return "It was better than I had expected."
        case TableTransform():
            return _row(transform)


def _image_schema(transform: ImageTransform) -> dict[str, Any]:
    height, width = transform.size
    pixel = {"type": "integer", "minimum": 0, "maximum": 255}
    color = {"type": "array", "items": pixel, "minItems": 3, "maxItems": 3}
    image = [
        {"type": "string", "contentEncoding": "base64", "description": "An image file (PNG, JPEG …) in base64."},
        {
            "type": "array",
            "description": "Rows of pixels, grey or [red, green, blue].",
            "items": {"type": "array", "items": {"anyOf": [pixel, color]}},
        },
    ]
    return {
        "description": f"An image; it is resized to {height} × {width} pixels.",
        "anyOf": [
            *image,
            {
                "type": "object",
                "properties": {transform.column: {"anyOf": image}},
                "required": [transform.column],
            },
        ],
    }


def _text_schema(transform: TextTransform) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    kept = f"; only its {'first' if transform.keep == 'start' else 'last'} {transform.length:,} tokens are read" if transform.length else ""
    return {
        "description": f"A text{kept}.",
        "anyOf": [text, {"type": "object", "properties": {transform.column: text}, "required": [transform.column]}],
    }


def _row_schema(transform: TableTransform) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for number in transform.numbers:
        properties[number.column] = {"type": ["number", "null"] if number.nullable else "number"}
    for category in transform.categories:
        properties[category.column] = {
            "type": ["string", "null"] if category.nullable else "string",
            "examples": list(category.values[:20]),
        }
    required = [number.column for number in transform.numbers if not number.nullable]
    required += [category.column for category in transform.categories if not category.nullable]
    return {"description": "A row.", "type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _drawing(transform: ImageTransform) -> str:
    height, width = transform.size
    image = Image.new(transform.mode, (width, height))
    white = 255 if transform.mode == "L" else (255, 255, 255)
    ImageDraw.Draw(image).ellipse((width // 4, height // 8, width - 1 - width // 4, height - 1 - height // 8), outline=white)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _row(transform: TableTransform) -> dict[str, Any]:
    numbers = {number.column: float(f"{number.mean:.4g}") for number in transform.numbers}
    return numbers | {category.column: next(iter(category.values), None) for category in transform.categories}
