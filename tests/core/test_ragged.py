"""Rows of different lengths: taken, joined and padded as lists would be."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.ragged import Ragged

ROWS = [[1, 2, 3], [], [4], [5, 6]]
lists = st.lists(st.lists(st.integers(0, 65_535), max_size=6), min_size=1, max_size=8)


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    return Ragged.of(rows, np.uint16)


def plain(found: Ragged) -> list[list[int]]:
    return [found.values[start:end].tolist() for start, end in zip(found.offsets, found.offsets[1:], strict=False)]


@given(lists)
def test_rows_come_back_as_they_were(rows: list[list[int]]) -> None:
    found = ragged(rows)
    assert plain(found) == rows
    assert len(found) == len(rows)
    assert found.lengths.tolist() == [len(row) for row in rows]
    assert found.values.dtype == np.uint16


@pytest.mark.parametrize("rows", [slice(1, 3), slice(None), slice(0, 0), np.array([3, 0, 3]), [2], np.array([1, 1]), slice(None, None, -1)])
def test_taken_rows_are_those_of_a_list(rows: object) -> None:
    expected = [ROWS[number] for number in np.arange(len(ROWS))[rows]]  # type: ignore[call-overload]
    assert plain(ragged(ROWS).take(rows)) == expected


@given(st.lists(lists, min_size=1, max_size=4))
def test_joined_parts_are_one_list_after_the_other(parts: list[list[list[int]]]) -> None:
    assert plain(Ragged.joined([ragged(part) for part in parts])) == [row for part in parts for row in part]


def test_padding_goes_to_the_longest_row_and_is_masked() -> None:
    values, mask = ragged(ROWS).padded(9)
    assert values.tolist() == [[1, 2, 3], [9, 9, 9], [4, 9, 9], [5, 6, 9]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert values.dtype == mask.dtype == np.int64


def test_rows_without_values_are_padded_to_one_place() -> None:
    values, mask = ragged([[], []]).padded(7)
    assert (values.tolist(), mask.tolist()) == ([[7], [7]], [[0], [0]])
