"""The JSON Schemas of recipe and dataset files, by which editors complete, explain and check them.

`python -m tasks.schema FOLDER` writes both.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic.json_schema import GenerateJsonSchema

from tasks.compression import COMPRESSORS
from tasks.core.catalog import Catalog
from tasks.core.config import Config
from tasks.core.dataset import Dataset
from tasks.core.recipe import Recipe
from tasks.core.transforms import ImageOptions, TextOptions
from tasks.gates import GATES
from tasks.models import MODELS
from tasks.sources import SOURCES

Noun = Literal["recipe", "dataset"]
Schema = dict[str, Any]


class _Untitled(GenerateJsonSchema):
    """Without titles, which would only repeat each key with a capital letter."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def schema(noun: Noun) -> Schema:
    """The JSON Schema of a recipe or of a dataset file, with the options of every component in the catalogs."""
    definitions: Schema = {}
    if noun == "recipe":
        root = _config(Recipe, "recipe", definitions)
        root["properties"]["transform"] = _either(ImageOptions, TextOptions, definitions=definitions)
        root["properties"]["model"] = _one_of(MODELS, definitions)
        root["properties"]["gates"]["items"] = _one_of(GATES, definitions)
        compressor = _one_of(COMPRESSORS, definitions)
        chain = {"type": "array", "items": compressor, "minItems": 1}
        for key in ("compressors", "fallback"):
            definitions["recipe.Compression"]["properties"][key]["items"] = {"anyOf": [compressor, chain]}
    else:
        root = _config(Dataset, "dataset", definitions)
        root["properties"]["source"] = _one_of(SOURCES, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": f"maasflow {noun}",
        "$defs": dict(sorted(definitions.items())),
    }


def _config(config: type[Config], name: str, definitions: Schema) -> Schema:
    """The schema of a config; those of the configs inside it go into the definitions as `name.Class`."""
    found = config.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}", schema_generator=_Untitled)
    definitions.update({f"{name}.{inner}": _untitled(values) for inner, values in found.pop("$defs", {}).items()})
    return _untitled(found)


def _either(*configs: type[Config], definitions: Schema) -> Schema:
    for config in configs:
        definitions[f"transform.{config.__name__}"] = _config(config, "transform", definitions)
    return {"type": "object", "anyOf": [{"$ref": f"#/$defs/transform.{config.__name__}"} for config in configs]}


def _untitled(found: Schema) -> Schema:
    return {key: value for key, value in found.items() if key != "title"}


def _one_of(catalog: Catalog[Any], definitions: Schema) -> Schema:
    """Any component of the catalog: the key with its name, and its own options."""
    names = []
    for name in catalog:
        label = f"{catalog.noun.replace(' ', '_')}.{name}"
        component = _config(catalog.load(name), label, definitions)
        component["properties"] = {catalog.key: {"const": name}, **component.get("properties", {})}
        component["required"] = [catalog.key, *component.get("required", [])]
        definitions[label] = component
        names.append({"$ref": f"#/$defs/{label}"})
    return {"type": "object", "oneOf": names}


NOUNS: Final[tuple[Noun, ...]] = get_args(Noun)


def text(noun: Noun) -> str:
    """The schema as the committed file holds it."""
    return json.dumps(schema(noun), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for noun in NOUNS:
        (Path(sys.argv[1]) / f"{noun}.json").write_text(text(noun), encoding="utf-8")
