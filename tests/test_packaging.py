"""What is shipped, and what installing it brings along."""

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def closure(requirements: list[str], extras: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names of all distributions that the requirements bring along, as they are installed here."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(text), extras) for text in requirements]
    while waiting:
        requirement, of = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in of | {""}):
            continue
        entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if entry in seen:
            continue
        seen.add(entry)
        yield entry[0]
        waiting += [(Requirement(text), entry[1]) for text in metadata.distribution(entry[0]).requires or []]


def test_the_server_installs_without_what_trains() -> None:
    names = set(closure([*PROJECT["dependencies"], *EXTRAS["serve"]]))
    assert {"httptools", "numpy"} <= names
    assert not names & {"torch", "transformers", "accelerate", "prefect", "mlflow", "mlflow-skinny", "great-expectations", "dvc", "pandas"}


def test_the_closure_sees_what_it_looks_for() -> None:
    assert {"torch", "mlflow", "pandas"} <= set(closure(EXTRAS["pipeline"]))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(REPOSITORY)).build(directory=str(folder), versions=["standard"])
    return Path(built)


def test_the_wheel_holds_all_that_runs_and_nothing_else(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    recipes = {f"flows/recipes/{path.name}" for path in (REPOSITORY / "flows" / "recipes").glob("*.yaml")}
    datasets = {f"flows/datasets/{path.name}" for path in (REPOSITORY / "data").glob("*.yaml")}
    schemas = {f"flows/schema/{path.name}" for path in (REPOSITORY / "docs" / "schema").glob("*.json")}
    assert recipes | datasets | schemas | {"flows/py.typed", "tasks/py.typed", "deploy/py.typed", "tasks/core/recipe.py"} <= names
    assert {name.partition("/")[0] for name in names} == {"flows", "tasks", "deploy", f"maasflow-{PROJECT['version']}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_requirement_is_pinned_exactly() -> None:
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in lines)
    pinned = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    for text in (*PROJECT["dependencies"], *EXTRAS["serve"], *EXTRAS["pipeline"], *EXTRAS["dev"]):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name != "onnxruntime":  # on Linux x86-64, where pins are made, onnxruntime-gpu stands in for it
            assert name in pinned, f"{name}: run `make constraints`"
            assert requirement.specifier.contains(pinned[name], prereleases=True), f"{name}: run `make constraints`"
