"""Images to tensors: one image means one tensor however it is sent, and nothing broken gets through."""

import base64
import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.core.errors import InputError, TooLargeError
from tasks.core.transforms import ImageOptions, ImageTransform

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image_transform(**options: Any) -> ImageTransform:
    return ImageTransform.fit("image", lambda: iter([{"image": [encoded(Image.fromarray(GREY))]}]), ImageOptions.parse(options))


def pixels(value: Any, transform: ImageTransform | None = None) -> npt.NDArray[Any]:
    transform = transform or image_transform()
    found = transform.encode(transform.columns([value]))["x"]
    assert isinstance(found, np.ndarray)
    return np.asarray(found[0])


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
    "no bytes": (b"", "item 0: the image cannot be decoded (no bytes): broken, or of an unknown format"),
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
            assert pixels(start + value, transform).shape == (1, 2, 2)
        except InputError as error:
            assert error.what.startswith("item 0: ")  # noqa: PT017


def test_a_stretched_image_shows_all_of_it_and_a_cropped_one_its_middle() -> None:
    # Three squares side by side: black, grey, white.
    wide = np.repeat(np.array([0, 100, 200], np.uint8), 4)[None].repeat(4, axis=0)
    stretched, cropped = (pixels(wide, image_transform(size=[4, 4], resize=resize))[0] for resize in ("stretch", "crop"))
    assert stretched[:, 0].max() < 50 < 150 < stretched[:, -1].min()
    np.testing.assert_array_equal(cropped, np.full((4, 4), 100))


def test_each_colour_has_a_mean_and_a_deviation_of_its_own() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    transform = image_transform(mode="RGB", size=[1, 1], mean=mean, std=std)
    x = transform.tensors(transform.encode({"image": [[[[51, 102, 255]]]]}))["x"]
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0, :, 0, 0], [(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 1.0, (1.0 - 0.3) / 2.0], rtol=1e-5)


def test_colours_stay_in_their_channels() -> None:
    red = encoded(Image.new("RGB", (8, 6), (255, 0, 0)))
    assert pixels(red, image_transform(mode="RGB")).max(axis=(1, 2)).tolist() == [255, 0, 0]


def test_a_limit_holds_for_what_is_sent_and_for_what_the_model_takes() -> None:
    transform = image_transform(size=(4, 5))
    small, large = encoded(Image.new("L", (2, 2))), encoded(Image.new("L", (10, 10)))
    transform.limit(characters=0, pixels=110)
    assert len(transform.encode({"image": [small] * 5})["x"]) == 5
    assert len(transform.encode({"image": [large, small]})["x"]) == 2
    with pytest.raises(TooLargeError, match="the images up to item 1 have more than 110 pixels in all"):
        transform.encode({"image": [large, large]})
    with pytest.raises(TooLargeError, match=r"6 images of 4 × 5 have more than 110 pixels"):
        transform.encode({"image": [small] * 6})
