"""The schemas that editors read: as the code is, and of one mind with it."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flows.data import init_workspace
from tasks.core.config import read_yaml
from tasks.core.workspace import Workspace
from tasks.schema import NOUNS, Noun, schema, text
from tests.conftest import REPOSITORY

SHIPPED = {"recipe": REPOSITORY / "flows" / "recipes", "dataset": REPOSITORY / "data"}
FILES = [(noun, path) for noun in NOUNS for path in sorted(SHIPPED[noun].glob("*.yaml"))]
RECIPE: dict[str, Any] = {"dataset": "digits", "model": {"family": "mlp"}}
DATASET: dict[str, Any] = {
    "source": {"kind": "csv", "path": "x.csv"},
    "columns": {"x": {"type": "number"}, "y": {"type": "label", "classes": [0, 1]}},
}


def accepts(noun: Noun, values: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema(noun)).is_valid(values))


@pytest.mark.parametrize("noun", NOUNS)
def test_the_committed_schema_is_that_of_the_code(noun: Noun) -> None:
    committed = (REPOSITORY / "docs" / "schema" / f"{noun}.json").read_text(encoding="utf-8")
    assert committed == text(noun), "run `make schema`"


@pytest.mark.parametrize("noun", NOUNS)
def test_a_schema_is_valid_json_schema(noun: Noun) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(noun))


@pytest.mark.parametrize(("noun", "path"), FILES, ids=[f"{noun}-{path.stem}" for noun, path in FILES])
def test_a_shipped_file_is_valid_and_names_its_schema(noun: Noun, path: Any) -> None:
    values, _ = read_yaml(path)
    jsonschema.Draft202012Validator(schema(noun)).validate(values)
    modeline = path.read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert modeline.startswith(prefix)
    assert (path.parent / modeline.removeprefix(prefix)).resolve() == REPOSITORY / "docs" / "schema" / f"{noun}.json"


@pytest.mark.parametrize(("noun", "path"), FILES, ids=[f"{noun}-{path.stem}" for noun, path in FILES])
def test_a_shipped_file_is_read_by_the_code(noun: Noun, path: Any) -> None:
    shipped = Workspace(REPOSITORY)
    assert shipped.recipe(path.stem) if noun == "recipe" else shipped.dataset(path.stem)


def test_a_new_workspace_has_the_schemas_that_its_files_name(tmp_path: Path) -> None:
    kept = tmp_path / "docs" / "schema" / "recipe.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    init_workspace(tmp_path)
    assert kept.read_text() == "{}"
    for path in (tmp_path / "data").glob("*.yaml"):
        modeline = path.read_text(encoding="utf-8").splitlines()[0]
        assert (path.parent / modeline.partition("$schema=")[2]).read_text(encoding="utf-8") == text("dataset")


def test_the_smallest_files_are_accepted() -> None:
    assert accepts("recipe", RECIPE)
    assert accepts("dataset", DATASET)


@pytest.mark.parametrize(
    ("noun", "change"),
    [
        ("recipe", {"modell": {}}),
        ("recipe", {"model": {"family": "mlpp"}}),
        ("recipe", {"model": {}}),
        ("recipe", {"model": {"family": "mlp", "hiden": [1]}}),
        ("recipe", {"training": {"epochs": 0}}),
        ("recipe", {"transform": {"modee": "L"}}),
        ("recipe", {"gates": [{"kind": "zzz"}]}),
        ("recipe", {"compression": {"compressors": [{"kind": "zzz"}]}}),
        ("dataset", {"source": {"kind": "csv"}}),
        ("dataset", {"source": {"kind": "csv", "path": "x.csv", "sheet": 1}}),
        ("dataset", {"columns": {"x": {"type": "numbr"}}}),
    ],
)
def test_an_editor_marks_what_the_code_refuses(noun: Noun, change: dict[str, Any]) -> None:
    assert not accepts(noun, (RECIPE if noun == "recipe" else DATASET) | change)


def test_an_editor_shows_the_help_under_a_field() -> None:
    accumulation = schema("recipe")["$defs"]["recipe.Training"]["properties"]["accumulation"]
    assert accumulation["description"] == "Batches whose gradients are summed before one optimizer step."
