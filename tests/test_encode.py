"""Encode: what the transform learns, it learns from the training split."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.core.dataset import SPLITS, Dataset
from tasks.core.encoded import Encoded
from tasks.core.errors import ConfigError, DataError
from tasks.core.splits import EXAMPLE, TARGET, Split, write_split
from tasks.core.transforms import TableTransform
from tasks.encode import encode
from tests.tiny import DATASETS, IMAGES, ROWS, TABLE, encode_tiny, png, recipe, write_prepared


@pytest.mark.parametrize("kind", DATASETS)
def test_every_split_is_encoded_in_the_order_of_its_rows(kind: str, tmp_path: Path) -> None:
    encoded = encode_tiny(tmp_path, kind)
    for name in SPLITS:
        source, split = Split.open(tmp_path / "prepared", name), encoded.split(name)
        assert len(split) == ROWS[name]
        np.testing.assert_array_equal(split.targets, source.targets)
        np.testing.assert_array_equal(split.examples, source.examples)
        columns = source.columns(list(DATASETS[kind].features), 50, 60)
        expected = encoded.transform.tensors(encoded.transform.encode(columns))
        found = split.tensors(slice(50, 60))
        assert found.keys() == expected.keys()
        for tensor, values in expected.items():
            np.testing.assert_array_equal(found[tensor], values)


def test_the_result_says_what_the_model_takes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    found = encode(recipe(), IMAGES, write_prepared(tmp_path / "prepared", "image"), tmp_path / "out")
    assert found.rows == ROWS
    assert found.figure == "image → x [1, 6, 6]"
    assert found.inputs == Encoded(tmp_path / "out").transform.inputs


def test_nothing_is_learnt_from_rows_held_out(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "prepared")
    for split in ("validation", "test"):
        table = Split.open(prepared, split).table
        odd = table.set_column(0, "a", pa.array(np.full(len(table), 1e6))).set_column(2, "color", pa.array(["violet"] * len(table)))
        write_split(prepared, split, iter(odd.to_batches()), odd.schema)
    (tmp_path / "out").mkdir()
    encode(recipe(), TABLE, prepared, tmp_path / "out")
    transform = Encoded(tmp_path / "out").transform
    assert isinstance(transform, TableTransform)
    assert abs(transform.numbers[0].mean) < 0.5
    assert transform.categories[0].values == ("blue", "green", "red")


def test_the_recipe_shapes_an_image_transform(tmp_path: Path) -> None:
    encoded = encode_tiny(tmp_path, "image", transform={"size": [4, 8], "mode": "RGB"})
    assert encoded.transform.inputs[0].shape == (3, 4, 8)


@pytest.mark.parametrize(("kind", "options"), [("image", {"sise": [4, 4]}), ("table", {"size": [4, 4]})])
def test_a_transform_option_that_does_not_fit_is_told_with_its_key(kind: str, options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^transform"):
        encode_tiny(tmp_path, kind, transform=options)


def test_a_row_that_cannot_be_encoded_is_found_again_by_what_is_said(tmp_path: Path) -> None:
    rows = 5000
    images = [png(np.zeros((2, 2), np.uint8))] * rows
    images[4500] = b"no image"
    columns = {"image": pa.array(images), EXAMPLE: pa.array(np.arange(rows, dtype=np.uint64)), TARGET: pa.array(np.arange(rows) % 3)}
    batch = pa.RecordBatch.from_pydict(columns)
    write_split(tmp_path, "train", iter([batch]), batch.schema)
    with pytest.raises(DataError, match="the train split of 'points', counted from row 4096: item 404: the image cannot be decoded"):
        encode(recipe(), IMAGES, tmp_path, tmp_path)


def test_columns_that_no_transform_takes_together_are_named(tmp_path: Path) -> None:
    mixed = Dataset.parse(
        {
            "source": {"kind": "images", "path": "."},
            "columns": {"image": {"type": "image"}, "a": {"type": "number"}, "side": {"type": "label", "classes": [0, 1]}},
        }
    )
    batch = pa.RecordBatch.from_pydict(
        {"image": pa.array([b""]), "a": pa.array([1.0]), EXAMPLE: pa.array([1], pa.uint64()), TARGET: pa.array([0])}
    )
    write_split(tmp_path, "train", iter([batch]), batch.schema)
    with pytest.raises(ConfigError, match=r"image \(image\), a \(number\)"):
        encode(recipe(), mixed, tmp_path, tmp_path)
