"""Catalogs: a component by name, imported only when it is used."""

import sys
from typing import Any

import pytest

from tasks.core.catalog import Catalog
from tasks.core.config import Config, Origin
from tasks.core.errors import ConfigError

THINGS: Catalog[Config] = Catalog("thing", {"latency": "tasks.core.bundle:Latency", "broken": "tasks.no_such_module:X"})


def test_a_component_is_built_from_its_options() -> None:
    assert THINGS.build({"kind": "latency", "p50": 1.0, "p99": 2.0}).model_dump() == {"p50": 1.0, "p99": 2.0}


def test_listing_names_imports_nothing() -> None:
    assert list(THINGS) == ["latency", "broken"]
    assert "tasks.no_such_module" not in sys.modules


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "x.yaml:3: model: 'kind' is missing: it says which thing to use (latency, broken)"),
        ({"kind": "latensy"}, "x.yaml:4: model.kind: unknown thing 'latensy'; did you mean 'latency'?\n  → known: latency, broken"),
        ({"kind": "zzz"}, "x.yaml:4: model.kind: unknown thing 'zzz'\n  → known: latency, broken"),
        ({"kind": ["latency"]}, "x.yaml:4: model.kind: unknown thing"),
        ({"kind": "latency", "p50": 1, "p99": 2, "p90": 3}, "x.yaml:3: model.p90: unknown key 'p90'; did you mean 'p99'?"),
    ],
)
def test_a_wrong_spec_is_blamed_at_its_line(spec: dict[str, Any], expected: str) -> None:
    origin = Origin("x.yaml", {("model",): 3, ("model", "kind"): 4}).below("model")
    with pytest.raises(ConfigError) as caught:
        THINGS.build(spec, origin)
    assert str(caught.value).startswith(expected)


def test_the_key_with_the_name_is_the_catalogs() -> None:
    models: Catalog[Config] = Catalog("model family", {"latency": "tasks.core.bundle:Latency"}, key="family")
    with pytest.raises(ConfigError, match="'family' is missing"):
        models.build({"kind": "latency"})


def test_an_unknown_name_has_no_class() -> None:
    with pytest.raises(KeyError):
        THINGS.load("zzz")
