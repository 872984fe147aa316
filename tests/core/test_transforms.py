"""Transforms: one input means one tensor however it is sent, and nothing broken gets through."""

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter

from tasks.core.dataset import Column
from tasks.core.errors import ConfigError, InputError
from tasks.core.transforms import ImageOptions, ImageTransform, TableTransform, Transform, fit_transform

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
AGE, CITY = Column(type="number"), Column(type="category")
NULLABLE_AGE, NULLABLE_CITY = Column(type="number", nullable=True), Column(type="category", nullable=True)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image_transform(**options: Any) -> ImageTransform:
    return ImageTransform.fit("image", [encoded(Image.fromarray(GREY))], ImageOptions.parse(options))


def pixels(value: Any, transform: ImageTransform | None = None) -> Any:
    transform = transform or image_transform()
    return transform.encode(transform.columns([value]))["x"][0]


def refused(value: Any) -> str:
    with pytest.raises(InputError) as caught:
        pixels(value)
    return caught.value.what


PNG = encoded(Image.fromarray(GREY))
SAME = {
    "bytes": PNG,
    "base64": base64.b64encode(PNG).decode(),
    "base64 in lines": base64.encodebytes(PNG).decode(),
    "data URL": "data:image/png;base64," + base64.b64encode(PNG).decode(),
    "nested list": GREY.tolist(),
    "array": GREY,
    "object": {"image": GREY.tolist()},
    "RGB nested list": np.stack([GREY] * 3, axis=-1).tolist(),
    "BMP": encoded(Image.fromarray(GREY), "BMP"),
    "16-bit PNG": encoded(Image.fromarray(GREY.astype(np.uint16) * 257)),
    "turned by its EXIF tag": encoded(
        Image.fromarray(np.rot90(GREY)), "PNG", exif=bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000")
    ),
}


@pytest.mark.parametrize("form", SAME)
def test_an_image_is_the_same_in_every_form(form: str) -> None:
    np.testing.assert_array_equal(pixels(SAME[form]), GREY[None])


def test_pixels_become_standardised_floats() -> None:
    transform = image_transform(mean=0.5, std=0.25)
    x = transform.tensors(transform.encode({"image": [PNG]}))["x"]
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0, 0], (GREY / 255 - 0.5) / 0.25, atol=1e-6)


def test_images_are_resized_to_the_first_of_training() -> None:
    assert pixels(np.full((3, 3), 7).tolist()).shape == (1, 6, 8)
    assert image_transform(size=[4, 5]).size == (4, 5)


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("YCbCr", "JPEG")]
)
def test_any_colour_mode_becomes_the_recipes(mode: str, kind: str) -> None:
    value = encoded(Image.fromarray(np.full((6, 8, 3), 255, np.uint8)).convert(mode), kind)
    assert pixels(value, image_transform(mode="RGB")).shape == (3, 6, 8)
    assert pixels(value).min() > 250


BROKEN: dict[str, tuple[Any, str]] = {
    "no bytes": (b"", "item 0: the image cannot be decoded (no bytes; UnidentifiedImageError)"),
    "no image": (b"GIF89a but not really", "cannot be decoded (21 bytes"),
    "truncated": (PNG[: len(PNG) // 2], "cannot be decoded"),
    "no base64": ("not an image!", "the text is not base64"),
    "no ASCII": ("ü", "the text is not base64"),
    "a number": (3, "expected an image as base64 text or rows of pixels, found int"),
    "nothing": (None, "expected an image as base64 text or rows of pixels, found NoneType"),
    "another key": ({"img": "aGk="}, "item 0: expected the key 'image' alone, found img"),
    "a key too many": ({"image": "aGk=", "x": 1}, "item 0: expected the key 'image' alone, found image, x"),
    "no key": ({}, "item 0: expected the key 'image' alone, found none"),
    "ragged": ([[1, 2], [3]], "the rows of pixels differ in length, or are not numbers"),
    "words": ([["a"]], "the rows of pixels differ in length, or are not numbers"),
    "flat": ([1, 2, 3], "found the shape [3]"),
    "four channels": (np.zeros((2, 2, 4)).tolist(), "found the shape [2, 2, 4]"),
    "no rows": ([], "found the shape [0]"),
    "above 255": ([[256]], "pixels are whole numbers from 0 to 255"),
    "below 0": ([[-1]], "pixels are whole numbers from 0 to 255"),
    "fractions": ([[0.5]], "pixels are whole numbers from 0 to 255"),
    "not a number": ([[math.nan]], "pixels are whole numbers from 0 to 255"),
    "astronomic": ([[10**400]], "the rows of pixels differ in length, or are not numbers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_image_is_refused(name: str) -> None:
    value, expected = BROKEN[name]
    assert expected in refused(value)


def test_an_animation_is_refused() -> None:
    frames = [Image.fromarray(np.full((6, 8), shade, np.uint8)) for shade in (0, 100, 200)]
    assert "animated (3 frames)" in refused(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("side", [8_000, 10_000, 20_000])
def test_a_huge_image_is_refused_before_it_is_decoded(side: int) -> None:
    assert "than the limit of 50,000,000" in refused(encoded(Image.new("1", (side, side))))


def test_the_broken_item_of_many_is_named() -> None:
    with pytest.raises(InputError, match="item 2: "):
        image_transform().encode({"image": [PNG, PNG, b"", PNG]})


@given(st.binary(max_size=200))
def test_random_bytes_end_in_an_image_or_an_input_error(value: bytes) -> None:
    transform = ImageTransform(column="image", mode="L", size=(2, 2), mean=0, std=1)
    for start in (b"", PNG[:16], b"BM", b"\xff\xd8\xff"):
        try:
            assert transform.encode({"image": [start + value]})["x"].shape == (1, 1, 2, 2)
        except InputError as error:
            assert error.what.startswith("item 0: ")  # noqa: PT017


def table(columns: dict[str, Column], **values: list[Any]) -> TableTransform:
    return TableTransform.fit(columns, values)


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


@pytest.mark.parametrize("transform", [image_transform(), table({"age": AGE, "city": CITY}, age=[0.1, 0.7], city=["ä", "b"])])
def test_a_transform_survives_its_json_exactly(transform: Transform) -> None:
    assert TypeAdapter(Transform).validate_json(transform.model_dump_json()) == transform
    json.loads(transform.model_dump_json())


def test_the_columns_decide_which_transform_it_is() -> None:
    assert fit_transform({"a": Column(type="image")}, {"a": [PNG]}, {}).kind == "image"
    assert fit_transform({"a": AGE}, {"a": [1.0]}, {}).kind == "table"


def test_columns_that_no_transform_takes_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a \(image\), b \(number\)"):
        fit_transform({"a": Column(type="image"), "b": AGE}, {}, {})


@pytest.mark.parametrize(
    ("column", "options", "expected"),
    [
        (Column(type="image"), {"sise": [8, 8]}, "sise: unknown key 'sise'; did you mean 'size'?"),
        (Column(type="image"), {"std": 0}, "std: 0 is too small"),
        (AGE, {"mean": 1}, "mean: a table's transform has no options"),
    ],
)
def test_a_wrong_option_is_refused(column: Column, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fit_transform({"a": column}, {"a": [PNG]}, options)
    assert str(caught.value).startswith(expected)
