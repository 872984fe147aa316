"""Images to tensors."""

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, PrivateAttr

from tasks.core.config import Config
from tasks.core.errors import InputError, TooLargeError
from tasks.core.transforms.fitted import Arrays, Chunks, Columns, Fitted, Tensors, TensorSpec

MAX_PIXELS: Final = 50_000_000
"""Of one image, which is refused by what its header says, before it is decoded: a file of a few kilobytes may hold gigabytes."""
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is opened. Others of Pillow's run a program (EPS), or hold an image whose size is another than the file says (ICO, ICNS)."""

Scale = Annotated[float, Field(gt=0)]


class ImageOptions(Config):
    """What a recipe may say about an image transform."""

    mode: Literal["L", "RGB"] = "L"
    size: tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]] | None = None
    """Height and width that images are resized to; that of the first training image where not given."""
    resize: Literal["stretch", "crop"] = "stretch"
    """crop keeps the proportions and cuts off what is too long, equally on both sides."""
    mean: float | tuple[float, float, float] = 0.0
    """Of pixels in 0–1; three for red, green and blue."""
    std: Scale | tuple[Scale, Scale, Scale] = 1.0


class ImageTransform(Fitted):
    """One image column to `x`: float32 [batch, channels, height, width], pixels in 0–1, then (x − mean) / std."""

    kind: Literal["image"] = "image"
    column: str
    mode: Literal["L", "RGB"]
    size: tuple[int, int]
    resize: Literal["stretch", "crop"] = "stretch"
    mean: float | tuple[float, float, float]
    std: float | tuple[float, float, float]

    _most: int | None = PrivateAttr(default=None)
    """Pixels in one call."""

    @classmethod
    def fit(cls, column: str, chunks: Chunks, options: ImageOptions) -> Self:
        size = options.size
        if size is None:
            first = open_image(next(chunks())[column][0], options.mode)
            size = (first.height, first.width)
        return cls(column=column, **{**options.model_dump(), "size": size})

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name="x", dtype="FP32", shape=(3 if self.mode == "RGB" else 1, *self.size)),)

    def limit(self, *, characters: int, pixels: int) -> None:  # noqa: ARG002 - the base class's
        self._most = pixels

    def columns(self, instances: Sequence[Any]) -> Columns:
        """Instances as a client sends them (a base64 text, a nested list, or an object with the column) as columns.

        Raises InputError for an object with another key.
        """
        for row, item in enumerate(instances):
            if isinstance(item, dict) and set(item) != {self.column}:
                raise InputError(f"item {row}: expected the key '{self.column}' alone, found {', '.join(map(str, item)) or 'none'}")
        return {self.column: [item[self.column] if isinstance(item, dict) else item for item in instances]}

    def encode(self, columns: Columns) -> Arrays:
        """uint8 [rows, channels, height, width]. Raises InputError for an image that cannot be decoded, and TooLargeError."""
        values = columns[self.column]
        (spec,) = self.inputs
        left = self._most
        if left is not None and len(values) * self.size[0] * self.size[1] > left:
            raise TooLargeError(
                f"{len(values):,} images of {self.size[0]} × {self.size[1]} have more than {left:,} pixels: send fewer at once"
            )
        pixels = np.empty((len(values), *spec.shape), np.uint8)
        for row, value in enumerate(values):
            try:
                image = open_image(value, self.mode, left)
            except TooLargeError:
                raise TooLargeError(
                    f"the images up to item {row} have more than {self._most:,} pixels in all: send fewer at once"
                ) from None
            except InputError as error:
                raise InputError(f"item {row}: {error.what}") from None
            if left is not None:
                left -= image.width * image.height
            if (image.height, image.width) != self.size:
                wanted = (self.size[1], self.size[0])
                bilinear = Image.Resampling.BILINEAR
                image = image.resize(wanted, bilinear) if self.resize == "stretch" else ImageOps.fit(image, wanted, bilinear)
            array = np.asarray(image)
            pixels[row] = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        return {"x": pixels}

    def tensors(self, encoded: Arrays) -> Tensors:
        pixels = encoded["x"]
        assert isinstance(pixels, np.ndarray)
        x = pixels.astype(np.float32)
        mean, std = (np.asarray(value, np.float64).reshape(-1, 1, 1) for value in (self.mean, self.std))
        x *= (1 / (255 * std)).astype(np.float32)
        if mean.any():
            x -= (mean / std).astype(np.float32)
        return {"x": x}


def open_image(value: Any, mode: Literal["L", "RGB"], most: int | None = None) -> Image.Image:
    """An image from an encoded file's bytes, their base64 text, or rows of pixels 0–255.

    Raises InputError, and TooLargeError for a file of more than `most` pixels.
    """
    if isinstance(value, str):
        value = _from_base64(value)
    if isinstance(value, list | np.ndarray):
        return _from_pixels(value).convert(mode)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InputError(f"expected an image as base64 text or rows of pixels, found {type(value).__name__}")
    try:
        image: Image.Image = Image.open(io.BytesIO(value), formats=_FORMATS)
        _check_header(image, most)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            # Pillow would clip 16-bit grey at 255, which turns most of it white.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert(mode)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"the image has more than the limit of {MAX_PIXELS:,} pixels") from None
    except Exception:  # noqa: BLE001 - Pillow's decoders raise what they like on broken files
        found = "no bytes" if not value else f"{len(value)} bytes"
        raise InputError(f"the image cannot be decoded ({found}): broken, or of an unknown format") from None


def _check_header(image: Image.Image, most: int | None) -> None:
    """What shows before a file is decoded. Raises InputError, and TooLargeError."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise InputError(f"the image has {image.width} × {image.height} pixels, more than the limit of {MAX_PIXELS:,}")
    if most is not None and pixels > most:
        raise TooLargeError(f"the image has {image.width} × {image.height} pixels, more than {most:,}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise InputError(f"the image is animated ({frames} frames): send one frame")


def _from_base64(text: str) -> bytes:
    """Base64, also in lines as `base64` prints it, or as a data: URL."""
    try:
        return base64.b64decode("".join(text.partition(",")[2].split() if text.startswith("data:") else text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError("the text is not base64") from None


def _from_pixels(value: Any) -> Image.Image:
    try:
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise InputError("the rows of pixels differ in length, or are not numbers") from None
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] != 3):
        raise InputError(f"expected rows of pixels, [height][width] or [height][width][3], found the shape {list(array.shape)}")
    if not ((array >= 0) & (array <= 255)).all() or (array % 1).any():
        raise InputError("pixels are whole numbers from 0 to 255")
    return Image.fromarray(array.astype(np.uint8))
