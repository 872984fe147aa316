"""Tensors of the Open Inference Protocol v2 as JSON: {"name", "shape", "datatype", "data"}."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.serving.calls import Refusal
from tasks.core.transforms import Tensors, TensorSpec

_NUMBERS: Final[dict[str, set[type]]] = {"FP32": {int, float}, "INT64": {int}}


def example_tensors(specs: Sequence[TensorSpec]) -> Tensors:
    """One row of each input, as short as can be: zeros, and ones for ids and masks, where no one is masked out."""
    return {
        spec.name: np.full(
            (1, *(max(size, 1) for size in spec.shape)), int(spec.dtype == "INT64" and spec.vocabulary != 1), spec.numpy_type
        )
        for spec in specs
    }


def read_tensor(given: dict[str, Any], spec: TensorSpec) -> npt.NDArray[Any]:
    """The array [batch, *spec.shape] that the client sent for an input. Raises Refusal (400).

    `data` is flat in row-major order, or nested as the shape says ("Tensor Data" in the protocol).
    """
    datatype = given.get("datatype")
    if datatype != spec.dtype:
        raise _wrong(spec, f"has the datatype {datatype!r}, expected '{spec.dtype}'")
    shape = _shape(given.get("shape"), spec)
    data = given.get("data")
    if type(data) is not list:
        raise _wrong(spec, "has no 'data': expected a list of numbers")
    flat = _flat(data, shape, spec)
    strangers = set(map(type, flat)) - _NUMBERS[spec.dtype]
    if strangers:
        found = ", ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in strangers))
        raise _wrong(spec, f"holds {found} where {'whole ' if spec.dtype == 'INT64' else ''}numbers belong")
    try:
        with np.errstate(over="ignore"):
            array: npt.NDArray[Any] = np.array(flat, spec.numpy_type)
    except OverflowError:
        raise _wrong(spec, f"holds a number that is too large for {spec.dtype}") from None
    if spec.dtype == "FP32":
        if not np.isfinite(array).all():
            raise _wrong(spec, "holds a number that is too large for FP32")
    elif spec.vocabulary is not None and ((array < 0) | (array >= spec.vocabulary)).any():
        stranger = next(value for value in flat if not 0 <= value < spec.vocabulary)
        raise _wrong(spec, f"holds {stranger}, expected whole numbers from 0 to {spec.vocabulary - 1}")
    return array.reshape(shape)


def _shape(given: Any, spec: TensorSpec) -> list[int]:
    if type(given) is not list or not set(map(type, given)) <= {int}:
        raise _wrong(spec, f"has no shape of whole numbers: expected {_expected(spec)}")
    if len(given) != 1 + len(spec.shape) or any(want not in (size, -1) for size, want in zip(given[1:], spec.shape, strict=True)):
        raise _wrong(spec, f"has the shape {given}, expected {_expected(spec)}")
    if min(given) < 1:
        raise _wrong(spec, f"has the shape {given}: every size is at least 1")
    return given


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
