"""A session by IO binding: for each size of a call buffers that stay on the device, and there a CUDA graph over them.

Calls differ in their rows and in the length of their texts, buffers and graphs do not. So rows are rounded up to a power of
two, texts to one of a few lengths with a mask of zeros, and what was added is cut off again.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tasks.core.transforms import Tensors, TensorSpec

if TYPE_CHECKING:
    import onnxruntime as ort

MOST_ROWS: Final = 32
MOST_TOKENS: Final = 2**12
"""In a bucket: a larger call computes for so long that copies and launches no longer count, and is run as it comes."""
SHORTEST: Final = 16
"""Tokens: a shorter text costs a device as much."""
_NO_GRAPH: Final = -1
"""Of the run option `gpu_graph_id`: neither capture nor replay. 0 is ONNX Runtime's own."""


class Session(Protocol):
    """What is asked of a session, ONNX Runtime's own or a bound one."""

    def run(self, names: list[str], tensors: Tensors, /) -> list[npt.NDArray[Any]]:
        """The named outputs, each [batch, …]."""

    def get_inputs(self) -> Sequence[Any]: ...
    def get_outputs(self) -> Sequence[Any]: ...
    def get_providers(self) -> Sequence[str]: ...
    def get_session_options(self) -> Any: ...


class Bucket(NamedTuple):
    """The size of a call, as it is run. `length` is 0 where all rows are of one size."""

    rows: int
    length: int

    def padded(self, values: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
        """The values of an input, with zeros up to the bucket's size."""
        whole = np.zeros((self.rows, *(self.length if size < 0 else size for size in spec.shape)), spec.numpy_type)
        whole[tuple(slice(size) for size in values.shape)] = values
        return whole


def bucket_of(rows: int, length: int, longest: int) -> Bucket:
    """The smallest bucket that holds so many rows, of texts of such a length; `longest` is the most that the model reads."""
    return Bucket(_power(rows), min(max(SHORTEST, _power(length)), longest) if longest else 0)


def buckets(inputs: Sequence[TensorSpec]) -> list[Bucket]:
    """All buckets of a model, the largest first, so that memory is taken once for all.

    None for a model that must not be padded: a language model, whose state would read the padding.
    """
    longest = _longest(inputs)
    if not inputs or longest is None:
        return []
    lengths = {bucket_of(1, 1 << power, longest).length for power in range(longest.bit_length() + 1)}
    rows = [1 << power for power in range(MOST_ROWS.bit_length())]
    return sorted((Bucket(many, length) for many in rows for length in lengths if many * length <= MOST_TOKENS), reverse=True)


class BoundSession:
    """An ONNX Runtime session whose `run` is that of the session itself, by IO binding where a bucket holds the call.

    No output may have the length of the texts. Safe to call from several threads, as it runs on one of its own.
    """

    def __init__(
        self, session: "ort.InferenceSession", inputs: Sequence[TensorSpec], device: Literal["cpu", "cuda"], *, graphs: bool
    ) -> None:
        """Fill all buckets, and with `graphs` capture a CUDA graph for each: it then fails here or not at all, and no call waits.

        To be made on the device's thread. Raises what ONNX Runtime raises.
        """
        # As of the session itself.
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.get_providers, self.get_session_options = session.get_providers, session.get_session_options
        self._session = session
        self._inputs = tuple(inputs)
        self._longest = _longest(inputs) or 0
        self._bindings = {
            bucket: _Binding(session, self._inputs, bucket, device, number if graphs else _NO_GRAPH)
            for number, bucket in enumerate(buckets(inputs), 1)
        }

    def run(self, names: list[str], tensors: Tensors, /) -> list[npt.NDArray[Any]]:
        return device_thread().submit(self._run, names, tensors).result()

    def _run(self, names: list[str], tensors: Tensors) -> list[npt.NDArray[Any]]:
        binding = self._bindings.get(self._bucket(tensors))
        if binding is not None:
            return binding.run(names, tensors)
        outputs: list[npt.NDArray[Any]] = self._session.run(names, tensors, _run_options(_NO_GRAPH))
        return outputs

    def _bucket(self, tensors: Tensors) -> Bucket:
        length = next((tensors[spec.name].shape[1] for spec in self._inputs if -1 in spec.shape), 0)
        rows = len(next(iter(tensors.values())))
        # Beyond the longest, none: it is the model that refuses such a text, in its own words.
        return bucket_of(rows, length, self._longest) if length <= self._longest else Bucket(rows, length)


class _Binding:
    """One bucket's buffers on the device, and with a `graph`, which is its number, the CUDA graph over them."""

    def __init__(self, session: "ort.InferenceSession", inputs: Sequence[TensorSpec], bucket: Bucket, device: str, graph: int) -> None:
        import onnxruntime as ort  # noqa: PLC0415 - imported with the session already

        self._session, self._specs, self._bucket = session, inputs, bucket
        self._options = _run_options(graph)
        self._binding = session.io_binding()
        self._inputs = {}
        for spec in inputs:
            zeros = bucket.padded(np.zeros((0,) * (1 + len(spec.shape)), spec.numpy_type), spec)
            self._inputs[spec.name] = ort.OrtValue.ortvalue_from_numpy(zeros, device, 0)
            self._binding.bind_ortvalue_input(spec.name, self._inputs[spec.name])
        names = [node.name for node in session.get_outputs()]
        for name in names:
            self._binding.bind_output(name, device, 0)
        # Where the outputs are depends on their sizes, which the first run tells. A graph writes to the same place each time.
        session.run_with_iobinding(self._binding, _run_options(_NO_GRAPH))
        self._outputs = dict(zip(names, self._binding.get_outputs(), strict=True))
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        session.run_with_iobinding(self._binding, self._options)

    def run(self, names: list[str], tensors: Tensors) -> list[npt.NDArray[Any]]:
        for spec in self._specs:
            self._inputs[spec.name].update_inplace(self._bucket.padded(tensors[spec.name], spec))
        self._session.run_with_iobinding(self._binding, self._options)
        rows = len(tensors[self._specs[0].name])
        # Copies: the buffers are written to again.
        return [np.array(self._outputs[name].numpy()[:rows]) for name in names]


@cache
def device_thread() -> ThreadPoolExecutor:
    """The one thread of this process that calls the device.

    ONNX Runtime keeps captured graphs by thread, and CUDA lets no thread allocate memory while another captures.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="device")


def _longest(inputs: Sequence[TensorSpec]) -> int | None:
    """The most tokens of a text, 0 for rows of one size; None where texts may not be padded, or are of any length."""
    if not any(-1 in spec.shape for spec in inputs):
        return 0
    masked = any(spec.name == "attention_mask" for spec in inputs)
    return next((spec.longest for spec in inputs if -1 in spec.shape), None) if masked else None


def _power(size: int) -> int:
    """The smallest power of two that is not below it."""
    return 1 << max(0, size - 1).bit_length()


def _run_options(graph: int) -> "ort.RunOptions":
    import onnxruntime as ort  # noqa: PLC0415 - imported with the session already

    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options
