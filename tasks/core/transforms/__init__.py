"""From raw inputs (an image's bytes, a text, a row) to tensors: the same code and the same fitted values in training and serving.

Whatever a transform learns, it learns in `fit` from the training split alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tasks.core.config import Origin
from tasks.core.dataset import Column
from tasks.core.errors import ConfigError
from tasks.core.transforms.fitted import Arrays, Chunks, Columns, Fitted, Tensors, TensorSpec
from tasks.core.transforms.image import ImageOptions, ImageTransform, open_image
from tasks.core.transforms.table import CategoryColumn, NumberColumn, TableTransform
from tasks.core.transforms.text import TextOptions, TextTransform

Transform = Annotated[ImageTransform | TextTransform | TableTransform, Field(discriminator="kind")]


def fit_transform(
    columns: Mapping[str, Column],
    chunks: Chunks,
    options: Mapping[str, Any],
    folder: Path,
    origin: Origin | None = None,
    *,
    running: bool = False,
    tokenizer: Path | None = None,
) -> Transform:
    """The transform that fits the feature columns, learnt from `chunks`, the training split; its files go into the folder.

    `running` is for a language model's text, `tokenizer` the file that a pretrained model brings.
    Raises ConfigError where no transform takes these columns together, or an option is wrong.
    """
    origin = origin or Origin()
    types = {column.type for column in columns.values()}
    if types == {"image"} and len(columns) == 1:
        (name,) = columns
        return ImageTransform.fit(name, chunks, ImageOptions.parse(options, origin))
    if types == {"text"} and len(columns) == 1:
        (name,) = columns
        text = TextOptions.parse(options, origin)
        if tokenizer and (learnt := text.model_fields_set & {"tokenizer", "vocabulary", "lowercase"}):
            raise origin.error((min(learnt),), "the pretrained model brings its tokenizer", f"leave out {', '.join(sorted(learnt))}")
        return TextTransform.fit(name, chunks, text, folder, running=running, pretrained=tokenizer)
    if types <= {"number", "category"}:
        if options:
            raise origin.error(tuple(options)[:1], "a table's transform has no options")
        return TableTransform.fit(columns, chunks)
    raise ConfigError(
        f"no transform takes these columns together: {', '.join(f'{name} ({column.type})' for name, column in columns.items())}",
        "keep one image column, one text column, or any number of number and category columns, in the dataset file",
    )


__all__ = [
    "Arrays",
    "CategoryColumn",
    "Chunks",
    "Columns",
    "Fitted",
    "ImageOptions",
    "ImageTransform",
    "NumberColumn",
    "TableTransform",
    "TensorSpec",
    "Tensors",
    "TextOptions",
    "TextTransform",
    "Transform",
    "fit_transform",
    "open_image",
]
