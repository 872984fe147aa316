"""Raw data: how it lies in parquet files, and how its values are read by the type of their column.

Validation and preparation both read through here, so what the one accepts the other can use.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.dataset import SPLITS, Column, Dataset, Value
from tasks.core.errors import DataError, SourceError, did_you_mean

PARTS: Final = ("all", *SPLITS)
"""Names of the files in a dataset's `raw` folder: the splits that its source assigned, or `all`."""


_BUFFER_BYTES: Final = 1 << 20
"""Read at once of a column: without this the reader holds all of a file's row groups."""

_BATCH_BYTES: Final = 64 << 20


def batch_rows(dataset: Dataset) -> int:
    """Rows to hold in memory at once: fewer where rows carry images."""
    return 1024 if any(column.type == "image" for column in dataset.columns.values()) else 65_536


def read_raw(folder: Path, dataset: Dataset) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Each part that was fetched, in batches of the dataset's columns. Raises DataError where nothing was fetched."""
    found = [part for part in PARTS if (folder / f"{part}.parquet").is_file()]
    if not found:
        raise DataError(f"there is no raw data in {folder}", "run `python -m tasks.fetch` for this dataset first")
    for part in found:
        for batch in read_parquet(folder / f"{part}.parquet", dataset):
            yield part, batch


def read_parquet(path: Path, dataset: Dataset) -> Iterator[pa.RecordBatch]:
    """A parquet file's batches with the dataset's columns. Raises SourceError."""
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            require_columns(str(path), file.schema_arrow.names, dataset)
            for batch in file.iter_batches(min(batch_rows(dataset), _rows_that_fit(file.metadata)), columns=list(dataset.columns)):
                arrays = [_plain(batch.column(name), column) for name, column in dataset.columns.items()]
                yield pa.RecordBatch.from_arrays(arrays, names=list(dataset.columns))
    except FileNotFoundError:
        raise SourceError(f"there is no file {path}", "correct `source` in the dataset file, or put the file there") from None
    except pa.ArrowInvalid as error:
        raise SourceError(f"{path} is not a readable parquet file: {error}", "write or download the file again") from None


def _rows_that_fit(metadata: Any) -> int:
    """Rows of this parquet file that take about _BATCH_BYTES: long texts and large images come in smaller batches."""
    size = sum(int(metadata.row_group(group).total_byte_size) for group in range(metadata.num_row_groups))
    return max(_BATCH_BYTES * int(metadata.num_rows) // max(size, 1), 1)


def require_columns(where: str, found: Sequence[str], dataset: Dataset) -> None:
    """Raises SourceError for a column of the dataset file that the source does not have."""
    missing = [name for name in dataset.columns if name not in found]
    if missing:
        wanted = "; ".join(f"no column '{name}'{did_you_mean(name, found)}" for name in missing)
        raise SourceError(f"{where}: {wanted}", f"it has {', '.join(found)}; correct `columns` in the dataset file, or the data")


def as_text(array: pa.Array) -> pa.Array:
    """Values as a client would type them: 3 and 3.0 are both "3", so that a number column may hold class names.

    Null where there is no such text (bytes that are not UTF-8, lists).
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        return pa.nulls(len(array), pa.string())
    # Each different value once: a column of classes or categories has few.
    encoded = (array.cast(pa.float32()) if pa.types.is_float16(kind) else array).dictionary_encode()
    return pa.array([_text(value) for value in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def as_number(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """(float64 values with null where missing or unreadable, mask of what is there but is not a finite number)."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type):
        values = array.cast(pa.int8() if pa.types.is_boolean(array.type) else array.type).cast(pa.float64(), safe=False)
    else:
        values = _numbers(array)
    floats = values.to_numpy(zero_copy_only=False)
    bad = pa.array(np.isinf(floats))
    missing = pa.array(np.isnan(floats))
    return pc.if_else(pc.or_(bad, missing), pa.scalar(None, pa.float64()), values), bad


def as_class(array: pa.Array, classes: Sequence[Value]) -> pa.Array:
    """The index of each value's class as int64, null for what is no class."""
    texts, indices = [], []
    for index, name in enumerate(classes):
        spellings = {str(name), str(name).lower(), str(name).upper()} if isinstance(name, bool) else {_text(name)}
        texts += sorted(map(str, spellings))
        indices += [index] * len(spellings)
    place = pc.index_in(as_text(array), value_set=pa.array(texts, pa.string()))
    return pa.array(indices, pa.int64()).take(place)


def as_target(batch: pa.RecordBatch, dataset: Dataset) -> pa.Array:
    """The index of each row's class as int64, null for what is no class. Without a label every row has the target 0."""
    if dataset.label is None:
        return pa.array(np.zeros(batch.num_rows, np.int64))
    return as_class(batch.column(dataset.label), dataset.classes)


def of_other_classes(batch: pa.RecordBatch, target: pa.Array, dataset: Dataset) -> pa.Array | None:
    """Mask of the rows whose label says something that is not among the classes, where the dataset drops them; None where it does not."""
    if dataset.label is None or dataset.columns[dataset.label].others == "refuse":
        return None
    return pc.and_(as_text(batch.column(dataset.label)).is_valid(), target.is_null())


def as_bytes(array: pa.Array) -> pa.Array:
    """An encoded image's bytes, null where there are none or where the value is something else."""
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type) or pa.types.is_binary_view(array.type):
        return array.cast(pa.binary())
    return pa.nulls(len(array), pa.binary())


def _plain(array: pa.Array, column: Column) -> pa.Array:
    # The hub keeps an image as {bytes, path}.
    if column.type == "image" and pa.types.is_struct(array.type) and array.type.get_field_index("bytes") >= 0:
        return pc.struct_field(array, "bytes")
    return array


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _numbers(array: pa.Array) -> pa.Array:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        try:
            return pc.if_else(pc.equal(array, ""), pa.scalar(None, array.type), array).cast(pa.float64())
        except pa.ArrowInvalid:
            pass  # Something in it is no number, or written as only Python reads it: one by one.
    return pa.array([_number(value) for value in array.to_pylist()], pa.float64())


def _number(value: Any) -> float | None:
    """Infinity, which no column may hold, stands for what is not a number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.inf
