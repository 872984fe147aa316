"""What a row holds, as a 64-bit number: equal for equal content, on every machine and in every version of a dataset."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Digests = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MISSING = np.uint64(0xD6E8FEB86659FD93)


def digests(columns: Sequence[pa.Array]) -> Digests:
    """One digest for each row of these columns, which hold floats, integers, texts, bytes or nulls."""
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        total = scatter(total ^ _values(column))
    return total


def scatter(values: Digests) -> Digests:
    """Spread every bit over all 64: the finaliser of splitmix64 (Steele et al., 2014), which maps one to one."""
    x = values + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _values(array: pa.Array) -> Digests:
    kind = array.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        # Adding zero turns -0.0 into 0.0.
        plain = array.fill_null(0).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) + 0.0
        found: Digests = plain.view(np.uint64).copy()
    else:
        values = array.cast(pa.large_binary()).to_pylist()
        words = b"".join(hashlib.blake2b(value or b"", digest_size=8).digest() for value in values)
        found = np.frombuffer(words, np.dtype("<u8")).astype(np.uint64)
    found[array.is_null().to_numpy(zero_copy_only=False)] = _MISSING
    return found
