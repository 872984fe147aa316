"""Encoded splits on disk: what is written is what is mapped."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.transforms import Arrays, ImageTransform

TRANSFORM = ImageTransform(column="image", mode="L", size=(2, 3), mean=0.5, std=0.25)


def pixels(rows: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, 1, 2, 3), dtype=np.uint8)


def write(folder: Path, x: npt.NDArray[Any], *cuts: int) -> Encoded:
    encoded = Encoded.create(folder, TRANSFORM)
    chunks: list[Arrays] = [{"x": part} for part in np.split(x, cuts)]
    encoded.write("train", chunks, np.arange(len(x)) % 3, np.arange(len(x), dtype=np.uint64) + np.uint64(2**63))
    return encoded


def stored(split: EncodedSplit) -> npt.NDArray[Any]:
    found = split.arrays["x"]
    assert isinstance(found, np.ndarray)
    return found


def test_chunks_come_back_as_one_split(tmp_path: Path) -> None:
    x = pixels(10)
    split = write(tmp_path, x, 4, 8).split("train")
    assert len(split) == 10
    np.testing.assert_array_equal(split.arrays["x"], x)
    np.testing.assert_array_equal(split.targets, np.arange(10) % 3)
    assert split.examples.tolist() == [2**63 + row for row in range(10)]
    assert [array.dtype.name for array in (stored(split), split.targets, split.examples)] == ["uint8", "int64", "uint64"]


def test_tensors_are_those_of_the_transform(tmp_path: Path) -> None:
    x = pixels(6)
    split = write(tmp_path, x).split("train")
    for rows in (slice(2, 5), np.array([5, 0, 5]), [1]):
        np.testing.assert_array_equal(split.tensors(rows)["x"], TRANSFORM.tensors({"x": x[rows]})["x"])


def test_arrays_are_mapped_and_not_read(tmp_path: Path) -> None:
    split = write(tmp_path, pixels(6)).split("train")
    assert isinstance(stored(split).base, np.memmap) or isinstance(stored(split), np.memmap)
    assert not stored(split).flags.writeable


def test_tensors_may_be_changed_without_touching_the_disk(tmp_path: Path) -> None:
    split = write(tmp_path, pixels(6)).split("train")
    before = split.tensors([0])["x"]
    split.tensors([0])["x"][:] = 7
    np.testing.assert_array_equal(split.tensors([0])["x"], before)


def test_a_part_of_an_array_is_written_as_it_is_seen(tmp_path: Path) -> None:
    wide = np.asfortranarray(pixels(8))[::2]
    np.testing.assert_array_equal(write(tmp_path, wide).split("train").arrays["x"], wide)


def test_the_transform_comes_back_as_it_was_fitted(tmp_path: Path) -> None:
    write(tmp_path, pixels(2))
    assert Encoded(tmp_path).transform == TRANSFORM


def test_a_full_disk_is_an_error_and_no_signal(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write(small_disk, pixels(200_000))
