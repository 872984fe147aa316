"""Tensors of the Open Inference Protocol v2, from numbers or bytes to arrays that a model takes."""

import math
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from deploy.serving.calls import Refusal
from tasks.core.transforms import Tensors, TensorSpec

_NUMBERS: Final[dict[str, tuple[set[type], str]]] = {"FP32": ({int, float}, "f"), "INT64": ({int}, "q")}
"""What JSON has for them, and the type code of Python's arrays."""
_WIRE: Final[dict[str, np.dtype[Any]]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
"""As bytes, on whichever processor."""


def example_tensors(specs: Sequence[TensorSpec], rows: int = 1, length: int = 1) -> Tensors:
    """Rows of each input, of the length where they may differ in it: zeros, and ones for ids and masks, where no one is masked out."""
    return {
        spec.name: np.full(
            (rows, *(length if size < 0 else size for size in spec.shape)),
            int(spec.dtype == "INT64" and spec.vocabulary != 1),
            spec.numpy_type,
        )
        for spec in specs
    }


class Given(NamedTuple):
    """An input as a client sent it, in whichever protocol: nothing of it was checked."""

    datatype: Any
    shape: Any
    data: Any
    """Numbers in row-major order, flat or nested as the shape says; or as bytes, little-endian."""


def read_tensor(given: Given, spec: TensorSpec) -> npt.NDArray[Any]:
    """The array [batch, *spec.shape] that the client sent for an input. Raises Refusal (400).

    One that came as bytes is a view of them, unless they lie where the processor reads no numbers.
    """
    if given.datatype != spec.dtype:
        raise _wrong(spec, f"has the datatype {given.datatype!r}, expected '{spec.dtype}'")
    shape = _shape(given.shape, spec)
    if isinstance(given.data, bytes | memoryview):
        values = _from_bytes(given.data, shape, spec)
    elif type(given.data) is list:
        values = _from_numbers(_flat(given.data, shape, spec), spec)
    else:
        raise _wrong(spec, "has no 'data': expected a list of numbers")
    if spec.dtype == "FP32":
        if not np.isfinite(values).all():
            raise _wrong(spec, "holds NaN, an infinity, or a number that is too large for FP32")
    elif spec.vocabulary is not None and (strange := (values < 0) | (values >= spec.vocabulary)).any():
        raise _wrong(spec, f"holds {values[strange][0]}, expected whole numbers from 0 to {spec.vocabulary - 1}")
    return values.reshape(shape)


def to_bytes(values: npt.NDArray[Any]) -> memoryview:
    """What is sent for an output of FP32 where bytes are wanted: their own memory, unless its order is another."""
    return np.ascontiguousarray(values, _WIRE["FP32"]).data


def _from_numbers(flat: list[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    kinds, code = _NUMBERS[spec.dtype]
    strangers = set(map(type, flat)) - kinds
    if strangers:
        found = ", ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in strangers))
        raise _wrong(spec, f"holds {found} where {'whole ' if spec.dtype == 'INT64' else ''}numbers belong")
    try:
        # numpy would warn of numbers that are too large for FP32, and to keep it from that takes longer than this.
        return np.frombuffer(array(code, flat).tobytes(), spec.numpy_type)
    except OverflowError:
        raise _wrong(spec, f"holds a number that is too large for {spec.dtype}") from None


def _from_bytes(data: bytes | memoryview, shape: list[int], spec: TensorSpec) -> npt.NDArray[Any]:
    wire = _WIRE[spec.dtype]
    size = math.prod(shape) * wire.itemsize
    if len(data) != size:
        raise _wrong(spec, f"has {len(data):,} bytes, its shape {shape} needs {size:,}")
    return np.require(np.frombuffer(data, wire), spec.numpy_type, ["A"])


def _shape(given: Any, spec: TensorSpec) -> list[int]:
    if type(given) is not list or not set(map(type, given)) <= {int}:
        raise _wrong(spec, f"has no shape of whole numbers: expected {_expected(spec)}")
    if tuple(given[1:]) != spec.shape and not _fits(given[1:], spec.shape):
        raise _wrong(spec, f"has the shape {given}, expected {_expected(spec)}")
    if min(given, default=0) < 1:
        raise _wrong(spec, f"has the shape {given}: every size is at least 1")
    return given


def _fits(given: Sequence[int], shape: Sequence[int]) -> bool:
    return len(given) == len(shape) and all(want in (size, -1) for size, want in zip(given, shape, strict=True))


def _expected(spec: TensorSpec) -> str:
    return f"[{', '.join(('batch', *('any' if size < 0 else str(size) for size in spec.shape)))}]"


def _flat(data: list[Any], shape: list[int], spec: TensorSpec) -> list[Any]:
    """The values in row-major order, as many as the shape needs."""
    if data and type(data[0]) is list:
        if len(data) != shape[0]:
            raise _wrong(spec, f"is nested in another way than its shape {shape} says")
        for size in shape[1:]:
            if any(type(item) is not list or len(item) != size for item in data):
                raise _wrong(spec, f"is nested in another way than its shape {shape} says")
            data = list(chain.from_iterable(data))
    if len(data) != math.prod(shape):
        raise _wrong(spec, f"holds {len(data):,} values, its shape {shape} needs {math.prod(shape):,}")
    return data


def _wrong(spec: TensorSpec, what: str) -> Refusal:
    return Refusal(400, f"input '{spec.name}' {what}")
