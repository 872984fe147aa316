"""What a dataset file may say."""

from typing import Any

import pytest

from tasks.core.dataset import Dataset
from tasks.core.errors import ConfigError

LABEL = {"type": "label", "classes": ["no", "yes"]}


def parse(**columns: dict[str, Any]) -> Dataset:
    return Dataset.parse({"source": {"kind": "csv"}, "columns": columns})


def test_the_label_and_the_features_are_told_apart() -> None:
    dataset = parse(age={"type": "number"}, answer=LABEL, city={"type": "category"})
    assert (dataset.label, list(dataset.features)) == ("answer", ["age", "city"])


def test_a_text_without_a_label_is_for_a_language_model() -> None:
    dataset = parse(text={"type": "text"})
    assert (dataset.task, dataset.label, list(dataset.features)) == ("language_modelling", None, ["text"])
    assert (dataset.classes, dataset.class_names) == ((), ())
    assert parse(text={"type": "text"}, answer=LABEL).task == "classification"


def test_classes_keep_their_order_and_their_types() -> None:
    dataset = parse(x={"type": "number"}, y={"type": "label", "classes": [10, 9, "1"]})
    assert dataset.classes == (10, 9, "1")
    assert dataset.class_names == ("10", "9", "1")


def test_names_stand_in_for_classes() -> None:
    assert parse(x={"type": "number"}, y={"type": "label", "classes": [0, 1], "names": ["cat", "dog"]}).class_names == ("cat", "dog")


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no label and no text": ({"x": {"type": "number"}}, "no column is the label: give one type: label, or keep one column of type text"),
    "no label and a text too many": ({"x": {"type": "text"}, "y": {"type": "text"}}, "for a language model; found x (text), y (text)"),
    "no column": ({}, "no column is the label: give one type: label, or keep one column of type text for a language model; found none"),
    "two labels": ({"x": {"type": "number"}, "y": LABEL, "z": LABEL}, "at most one column is the label, found 2: y, z"),
    "no feature": ({"y": LABEL}, "there is no column beside the label to learn from"),
    "no classes": ({"y": {"type": "label"}}, "columns.y: a label column, and no other, lists its 'classes'"),
    "classes elsewhere": ({"x": {"type": "number", "classes": [1, 2]}}, "columns.x: a label column, and no other, lists its 'classes'"),
    "one class": ({"y": {"type": "label", "classes": [1]}}, "columns.y: a label needs at least two different classes"),
    "one class as number and text": ({"y": {"type": "label", "classes": [1, "1"]}}, "at least two different classes"),
    "a class twice": ({"y": {"type": "label", "classes": [1, 2, 1]}}, "columns.y: a class is listed twice"),
    "a nullable label": ({"y": LABEL | {"nullable": True}}, "columns.y: a label cannot be nullable"),
    "other classes of a number": (
        {"x": {"type": "number", "others": "drop"}},
        "columns.x: 'others' belongs to a label column, not to number",
    ),
    "an unknown way with other classes": ({"y": LABEL | {"others": "keep"}}, "columns.y.others: 'keep' is not one of refuse, drop"),
    "too few names": ({"y": LABEL | {"names": ["a"]}}, "columns.y: 1 'names' for 2 'classes'"),
    "a name twice": ({"y": LABEL | {"names": ["a", "a"]}}, "columns.y: a name in 'names' is listed twice"),
    "categories of a number": ({"x": {"type": "number", "categories": [1]}}, "columns.x: 'categories' belongs to a category column"),
    "a minimum of a category": ({"x": {"type": "category", "minimum": 1}}, "columns.x: 'minimum' and 'maximum' belong to a number column"),
    "a minimum above the maximum": ({"x": {"type": "number", "minimum": 2, "maximum": 1}}, "the minimum 2 is above the maximum 1"),
    "a reserved name": ({"_target": {"type": "number"}, "y": LABEL}, "a column's name may not start with '_'"),
    "an unknown type": ({"x": {"type": "numbr"}}, "columns.x.type: 'numbr' is not one of image, text, number"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_contradiction_is_refused(name: str) -> None:
    columns, expected = MISTAKES[name]
    with pytest.raises(ConfigError) as caught:
        parse(**columns)
    assert expected in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_split_leaves_something_to_train_on(share: float) -> None:
    with pytest.raises(ConfigError, match=r"split\.test"):
        Dataset.parse({"source": {}, "columns": {"x": {"type": "number"}, "y": LABEL}, "split": {"test": share}})
