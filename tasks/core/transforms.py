"""From raw inputs (an image's bytes, a row) to tensors: the same code and the same fitted values in training and serving.

A transform works in two steps, so that a training set can be kept decoded without being kept as floats:
`encode` decodes raw values into compact arrays (an image stays uint8), `tensors` turns those into what the model takes.
Whatever a transform learns, it learns in `fit` from the training split alone.
"""

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydantic import Field

from tasks.core.config import Config, Origin
from tasks.core.dataset import Column
from tasks.core.errors import ConfigError, InputError, did_you_mean

Arrays = dict[str, npt.NDArray[Any]]
Columns = Mapping[str, Sequence[Any]]
"""Raw values by column name, all of one length."""

MAX_PIXELS = 50_000_000
_LARGEST = float(np.finfo(np.float32).max)


class TensorSpec(Config):
    """A model's input or output. `shape` is that of one row, without the batch dimension."""

    name: str
    dtype: Literal["FP32", "INT64"]
    shape: tuple[int, ...]


class ImageOptions(Config):
    """What a recipe may say about an image transform."""

    mode: Literal["L", "RGB"] = "L"
    size: tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]] | None = None
    """Height and width that images are resized to; that of the first training image where not given."""
    mean: float = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0


class ImageTransform(Config):
    """One image column to `x`: float32 [batch, channels, height, width], pixels in 0–1, then (x − mean) / std."""

    kind: Literal["image"] = "image"
    column: str
    mode: Literal["L", "RGB"]
    size: tuple[int, int]
    mean: float
    std: float

    @classmethod
    def fit(cls, column: str, values: Sequence[Any], options: ImageOptions) -> Self:
        size = options.size
        if size is None:
            first = open_image(values[0], options.mode)
            size = (first.height, first.width)
        return cls(column=column, mode=options.mode, size=size, mean=options.mean, std=options.std)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name="x", dtype="FP32", shape=(3 if self.mode == "RGB" else 1, *self.size)),)

    def columns(self, instances: Sequence[Any]) -> Columns:
        """Instances as a client sends them (a base64 text, a nested list, or an object with the column) as columns.

        Raises InputError for an object with another key.
        """
        for row, item in enumerate(instances):
            if isinstance(item, dict) and set(item) != {self.column}:
                raise InputError(f"item {row}: expected the key '{self.column}' alone, found {', '.join(map(str, item)) or 'none'}")
        return {self.column: [item[self.column] if isinstance(item, dict) else item for item in instances]}

    def encode(self, columns: Columns) -> Arrays:
        """uint8 [rows, channels, height, width]. Raises InputError for an image that cannot be decoded."""
        values = columns[self.column]
        (spec,) = self.inputs
        pixels = np.empty((len(values), *spec.shape), np.uint8)
        for row, value in enumerate(values):
            try:
                image = open_image(value, self.mode)
            except InputError as error:
                raise InputError(f"item {row}: {error.what}") from None
            if (image.height, image.width) != self.size:
                image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
            array = np.asarray(image)
            pixels[row] = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        return {"x": pixels}

    def tensors(self, encoded: Arrays) -> Arrays:
        x = encoded["x"].astype(np.float32)
        x *= np.float32(1 / (255 * self.std))
        if self.mean:
            x -= np.float32(self.mean / self.std)
        return {"x": x}


class NumberColumn(Config):
    """A standardised number; a missing one becomes the mean, with an indicator beside it where the column is nullable."""

    column: str
    mean: float
    std: float
    nullable: bool


class CategoryColumn(Config):
    """One slot for each value seen in training, one more for anything else."""

    column: str
    values: tuple[str, ...]
    nullable: bool


class TableTransform(Config):
    """Number and category columns to `x`: float32 [batch, features], numbers standardised, categories one-hot."""

    kind: Literal["table"] = "table"
    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]

    @classmethod
    def fit(cls, columns: Mapping[str, Column], values: Columns) -> Self:
        numbers, categories = [], []
        for name, column in columns.items():
            if column.type == "number":
                known = np.array([value for value in values[name] if not _missing(value)], np.float64)
                mean = float(known.mean()) if known.size else 0.0
                # A constant's standard deviation is rounding noise; no threshold tells it from a column of small numbers.
                std = float(known.std()) if known.size and np.ptp(known) > 0 else 1.0
                numbers.append(NumberColumn(column=name, mean=mean, std=std or 1.0, nullable=column.nullable))
            else:
                seen = sorted({str(value) for value in values[name] if not _missing(value)})
                categories.append(CategoryColumn(column=name, values=tuple(seen), nullable=column.nullable))
        return cls(numbers=tuple(numbers), categories=tuple(categories))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        width = sum(1 + number.nullable for number in self.numbers) + sum(len(category.values) + 1 for category in self.categories)
        return (TensorSpec(name="x", dtype="FP32", shape=(width,)),)

    def columns(self, instances: Sequence[Any]) -> Columns:
        """Rows as objects, as columns. A key left out counts as missing. Raises InputError for an unknown key."""
        known = [number.column for number in self.numbers] + [category.column for category in self.categories]
        for row, item in enumerate(instances):
            if not isinstance(item, dict):
                raise InputError(f"item {row}: expected an object with the keys {', '.join(known)}, found {type(item).__name__}")
            for key in item:
                if key not in known:
                    raise InputError(f"item {row}: unknown key '{key}'{did_you_mean(key, known) or '.'} Known keys: {', '.join(known)}")
        return {name: [item.get(name) for item in instances] for name in known}

    def encode(self, columns: Columns) -> Arrays:
        """float32 [rows, features]. Raises InputError for a text where a number belongs, or a missing value that may not miss."""
        rows = len(next(iter(columns.values())))
        (spec,) = self.inputs
        x = np.zeros((rows, *spec.shape), np.float32)
        slot = 0
        for number in self.numbers:
            values = _numbers(columns[number.column], number)
            missing = np.isnan(values)
            with np.errstate(over="ignore"):
                scaled = np.where(missing, 0.0, (values - number.mean) / number.std)
            for row in np.flatnonzero(np.abs(scaled) > _LARGEST).tolist():
                raise InputError(f"item {row}: '{number.column}' is {values[row]:g}, too far from what the model was trained on")
            x[:, slot] = scaled
            slot += 1
            if number.nullable:
                x[:, slot] = missing
                slot += 1
        for category in self.categories:
            place = {value: index for index, value in enumerate(category.values)}
            unknown = len(category.values)
            for row, value in enumerate(columns[category.column]):
                if _missing(value) and not category.nullable:
                    raise InputError(f"item {row}: '{category.column}' is missing and may not be")
                x[row, slot + (unknown if _missing(value) else place.get(str(value), unknown))] = 1.0
            slot += unknown + 1
        return {"x": x}

    def tensors(self, encoded: Arrays) -> Arrays:
        return encoded


Transform = Annotated[ImageTransform | TableTransform, Field(discriminator="kind")]


def fit_transform(
    columns: Mapping[str, Column], values: Columns, options: Mapping[str, Any], origin: Origin | None = None
) -> ImageTransform | TableTransform:
    """The transform that fits the feature columns, with what it learns learnt from `values`, the training split.

    Raises ConfigError where no transform takes these columns together, or an option is wrong.
    """
    types = {column.type for column in columns.values()}
    if types == {"image"} and len(columns) == 1:
        (name,) = columns
        return ImageTransform.fit(name, values[name], ImageOptions.parse(dict(options), origin))
    if types <= {"number", "category"}:
        if options:
            raise (origin or Origin()).error(tuple(options)[:1], "a table's transform has no options")
        return TableTransform.fit(columns, values)
    raise ConfigError(
        f"no transform takes these columns together: {', '.join(f'{name} ({column.type})' for name, column in columns.items())}",
        "keep one image column, or any number of number and category columns, in the dataset file",
    )


def open_image(value: Any, mode: Literal["L", "RGB"]) -> Image.Image:
    """An image from an encoded file's bytes, their base64 text, or rows of pixels 0–255. Raises InputError."""
    if isinstance(value, str):
        value = _from_base64(value)
    if isinstance(value, list | np.ndarray):
        return _from_pixels(value).convert(mode)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InputError(f"expected an image as base64 text or rows of pixels, found {type(value).__name__}")
    try:
        image: Image.Image = Image.open(io.BytesIO(value))
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"the image has {image.width} × {image.height} pixels, more than the limit of {MAX_PIXELS:,}")
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise InputError(f"the image is animated ({frames} frames): send one frame")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            # Pillow would clip 16-bit grey at 255, which turns most of it white.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert(mode)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"the image has more than the limit of {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise what they like on broken files
        found = "no bytes" if not value else f"{len(value)} bytes"
        raise InputError(f"the image cannot be decoded ({found}; {type(error).__name__})") from None


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


def _numbers(values: Sequence[Any], number: NumberColumn) -> npt.NDArray[np.float64]:
    """The values as float64, a missing one as NaN. Raises InputError."""
    result = np.empty(len(values))
    for row, value in enumerate(values):
        if _missing(value):
            if not number.nullable:
                raise InputError(f"item {row}: '{number.column}' is missing and may not be")
            result[row] = math.nan
            continue
        try:
            result[row] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"item {row}: '{number.column}' is {str(value)[:60]!r}, expected a number") from None
        if not math.isfinite(result[row]):
            raise InputError(f"item {row}: '{number.column}' is {value!r}, expected a finite number")
    return result


def _missing(value: Any) -> bool:
    """None, or the NaN that stands for it in files and in some clients."""
    return value is None or (isinstance(value, float) and math.isnan(value))
