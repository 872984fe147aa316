"""Table rows to tensors: what is learnt, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dataset import Column
from tasks.core.errors import InputError
from tasks.core.transforms import TableTransform

AGE, CITY = Column(type="number"), Column(type="category")
NULLABLE_AGE, NULLABLE_CITY = Column(type="number", nullable=True), Column(type="category", nullable=True)


def table(columns: dict[str, Column], **values: list[Any]) -> TableTransform:
    return TableTransform.fit(columns, lambda: iter([values]))


def features(transform: TableTransform, *instances: Any) -> list[list[float]]:
    rows: list[list[float]] = transform.tensors(transform.encode(transform.columns(instances)))["x"].tolist()
    return rows


def test_numbers_are_standardised_by_the_training_values_alone() -> None:
    transform = table({"age": AGE}, age=[1.0, 3.0])
    assert features(transform, {"age": 2}, {"age": 5}) == [[0.0], [3.0]]


def test_a_missing_number_is_the_mean_with_a_mark_beside_it() -> None:
    transform = table({"age": NULLABLE_AGE}, age=[1.0, None, 3.0, math.nan])
    assert features(transform, {"age": None}, {}, {"age": math.nan}, {"age": 3}) == [[0, 1], [0, 1], [0, 1], [1, 0]]


@pytest.mark.parametrize("values", [[5.0, 5.0], [0.1] * 10, [None, None], [1e-20, 1e-20]])
def test_a_column_that_never_varies_is_only_shifted(values: list[float | None]) -> None:
    assert table({"age": NULLABLE_AGE}, age=values).numbers[0].std == 1.0


def test_a_column_of_small_numbers_is_standardised_all_the_same() -> None:
    assert features(table({"age": AGE}, age=[1e-20, 3e-20]), {"age": 3e-20}) == [[pytest.approx(1.0)]]


def test_an_unknown_category_has_its_own_slot() -> None:
    transform = table({"city": NULLABLE_CITY}, city=["b", "a", None, "b"])
    assert features(transform, {"city": "a"}, {"city": "b"}, {"city": "x"}, {}) == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_a_category_is_compared_as_text() -> None:
    transform = table({"city": CITY}, city=["1", "2"])
    assert features(transform, {"city": 1}) == features(transform, {"city": "1"})


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ({"age": 1}, "item 1: 'city' is missing and may not be"),
        ({"city": "a"}, "item 1: 'age' is missing and may not be"),
        ({"age": math.nan, "city": "a"}, "item 1: 'age' is missing and may not be"),
        ({"age": "old", "city": "a"}, "item 1: 'age' is 'old', expected a number"),
        ({"age": [1], "city": "a"}, "item 1: 'age' is '[1]', expected a number"),
        ({"age": 10**400, "city": "a"}, "expected a number"),
        ({"age": math.inf, "city": "a"}, "item 1: 'age' is inf, expected a finite number"),
        ({"age": 1e300, "city": "a"}, "item 1: 'age' is 1e+300, too far from what the model was trained on"),
        ({"agee": 1, "city": "a"}, "item 1: unknown key 'agee'; did you mean 'age'? Known keys: age, city"),
        ({"zzz": 1}, "item 1: unknown key 'zzz'. Known keys: age, city"),
        ([1, "a"], "item 1: expected an object with the keys age, city, found list"),
    ],
)
def test_a_wrong_row_is_refused(instance: Any, expected: str) -> None:
    transform = table({"age": AGE, "city": CITY}, age=[1.0, 2.0], city=["a", "b"])
    with pytest.raises(InputError) as caught:
        features(transform, {"age": 1, "city": "a"}, instance)
    assert expected in caught.value.what


sane = st.floats(-1e30, 1e30) | st.none()


@given(st.lists(sane, min_size=1, max_size=20), st.lists(sane, min_size=1, max_size=5))
def test_features_are_finite_and_a_row_does_not_depend_on_its_neighbours(training: list[float | None], asked: list[float | None]) -> None:
    transform = table({"age": NULLABLE_AGE}, age=training)
    try:
        together = features(transform, *({"age": value} for value in asked))
    except InputError:
        return
    assert np.isfinite(together).all()
    assert together == [features(transform, {"age": value})[0] for value in asked]


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), min_size=1, max_size=6))
def test_numbers_in_chunks_are_as_numpy_sees_them_at_once(chunks: list[list[float]]) -> None:
    whole = np.concatenate([np.array(chunk) for chunk in chunks])
    (found,) = TableTransform.fit({"age": AGE}, lambda: ({"age": chunk} for chunk in chunks)).numbers
    assert found.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
    if whole.std() > 1e-6:
        assert found.std == pytest.approx(whole.std(), rel=1e-6, abs=1e-6)


def test_categories_of_all_chunks_are_known() -> None:
    chunks: list[dict[str, list[Any]]] = [{"city": ["b", None]}, {"city": ["a"]}, {"city": ["c", "a"]}]
    assert TableTransform.fit({"city": NULLABLE_CITY}, lambda: iter(chunks)).categories[0].values == ("a", "b", "c")


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=20))
def test_an_array_of_numbers_is_encoded_as_a_list_is(values: list[float]) -> None:
    transform = table({"age": NULLABLE_AGE}, age=[1.0, 2.0, 4.0])
    quick, slow = (transform.encode({"age": column})["numbers"] for column in (np.array(values), values))
    np.testing.assert_array_equal(quick, slow)


def test_a_gap_in_an_array_that_may_have_none_is_named() -> None:
    with pytest.raises(InputError, match="item 1: 'age' is missing and may not be"):
        table({"age": AGE}, age=[1.0, 2.0]).encode({"age": np.array([1.0, math.nan])})


@pytest.mark.parametrize(("values", "kind"), [(3, "uint16"), (70_000, "int32")])
def test_a_category_takes_the_room_of_one_number_however_many_values_it_has(values: int, kind: str) -> None:
    transform = table({"age": AGE, "city": CITY}, age=[1.0, 2.0], city=[f"v{value:06d}" for value in range(values)])
    encoded = transform.encode(transform.columns([{"age": 1, "city": f"v{values - 1:06d}"}, {"age": 2, "city": "x"}]))
    slots = encoded["slots"]
    assert isinstance(slots, np.ndarray)
    assert (slots.tolist(), slots.dtype.name) == ([[values], [values + 1]], kind)
    x = transform.tensors(encoded)["x"]
    assert (x.shape, x.dtype.name, x[:, 1:].nonzero()[1].tolist()) == ((2, values + 2), "float32", [values - 1, values])


def test_categories_follow_the_numbers_in_their_order() -> None:
    columns = {"city": CITY, "age": NULLABLE_AGE, "sex": CITY}
    transform = table(columns, city=["b", "a"], age=[1.0, 3.0], sex=["f", "m"])
    assert features(transform, {"age": 3, "city": "b", "sex": "?"}) == [[1, 0, 0, 1, 0, 0, 0, 1]]
