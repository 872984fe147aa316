"""Transforms of every kind: the columns decide which it is, and it survives being written down."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tasks.core.dataset import Column
from tasks.core.errors import ConfigError
from tasks.core.transforms import Transform, fit_transform
from tests.tiny import png

PNG = png(np.zeros((2, 3), np.uint8))
VALUES: dict[str, list[Any]] = {"image": [PNG], "text": ["to be or not to be"], "number": [0.1, 0.7], "category": ["ä", "b"]}

Fit = Callable[..., Transform]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """The transform of columns of these types, learnt from VALUES."""

    def fitted(*types: Any, options: dict[str, Any] | None = None, **settings: Any) -> Transform:
        columns = {kind: Column(type=kind) for kind in types}
        return fit_transform(columns, lambda: iter([{kind: VALUES[kind] for kind in types}]), options or {}, tmp_path, **settings)

    return fitted


@pytest.mark.parametrize("types", [("image",), ("text",), ("number", "category")])
def test_a_transform_survives_its_json_exactly(types: tuple[str, ...], fit: Fit) -> None:
    transform = fit(*types)
    written = transform.model_dump_json()
    assert TypeAdapter(Transform).validate_json(written).model_dump_json() == written


def test_the_columns_decide_which_transform_it_is(fit: Fit) -> None:
    assert [fit(kind).kind for kind in VALUES] == ["image", "text", "table", "table"]


@pytest.mark.parametrize("types", [("image", "number"), ("text", "category"), ("image", "text")])
def test_columns_that_no_transform_takes_together_are_refused(types: tuple[str, str], fit: Fit) -> None:
    one, other = types
    with pytest.raises(ConfigError, match=rf"{one} \({one}\), {other} \({other}\)"):
        fit(*types)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("image", {"sise": [8, 8]}, "sise: unknown key 'sise'; did you mean 'size'?"),
        ("image", {"std": 0}, "std: 0 is too small"),
        ("text", {"lenght": 8}, "lenght: unknown key 'lenght'; did you mean 'length'?"),
        ("text", {"vocabulary": 15}, "vocabulary: 15 is too small"),
        ("text", {"tokenizer": "words"}, "tokenizer: 'words' is not one of"),
        ("number", {"mean": 1}, "mean: a table's transform has no options"),
    ],
)
def test_a_wrong_option_is_refused(kind: str, options: dict[str, Any], expected: str, fit: Fit) -> None:
    with pytest.raises(ConfigError) as caught:
        fit(kind, options=options)
    assert str(caught.value).startswith(expected)


def test_only_a_text_has_files(fit: Fit) -> None:
    assert [sorted(fit(kind).files) for kind in VALUES] == [[], ["tokenizer.json"], [], []]


def test_a_tokenizer_that_a_pretrained_model_brings_is_not_learnt(fit: Fit, tmp_path: Path) -> None:
    fit("text")
    brought = (tmp_path / "tokenizer.json").rename(tmp_path / "brought.json")
    with pytest.raises(ConfigError, match=r"^lowercase: the pretrained model brings its tokenizer") as caught:
        fit("text", options={"vocabulary": 100, "lowercase": True, "length": 8}, tokenizer=brought)
    assert caught.value.do == "leave out lowercase, vocabulary"
    found = fit("text", options={"length": 8}, tokenizer=brought)
    assert (found.kind, found.files) == ("text", fit("text").files)
