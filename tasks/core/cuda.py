"""Sessions on a CUDA device."""

import contextlib
import logging
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tasks.core.bound import BoundSession, buckets, device_thread
from tasks.core.errors import MaasflowError
from tasks.core.machine import cuda_device
from tasks.core.transforms import TensorSpec

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDER: Final = "CUDAExecutionProvider"
OPTIONS: Final = {"use_tf32": "0"}
"""fp32 is what other variants are held against, so that its products are not to be rounded to TF32's ten bits."""

_log = logging.getLogger("maasflow.cuda")


def open_cuda(path: Path, options: "ort.SessionOptions", inputs: Sequence[TensorSpec]) -> BoundSession:
    """A session on the first CUDA device, with CUDA graphs where the model allows them.

    Raises MaasflowError where there is no device, or the session does not get it.
    """
    if cuda_device() is None:
        raise _refused("the driver knows of no CUDA device")
    return device_thread().submit(_open, path, options, inputs).result()


def _open(path: Path, options: "ort.SessionOptions", inputs: Sequence[TensorSpec]) -> BoundSession:
    _load_libraries()
    without = None
    if buckets(inputs):
        try:
            return BoundSession(_session(path, options, {**OPTIONS, "enable_cuda_graph": "1"}), inputs, "cuda", graphs=True)
        except MaasflowError:
            raise
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's have no common base: a node on the CPU, one that waits for the device …
            without = _first_line(error)
    try:
        session = BoundSession(_session(path, options, OPTIONS), inputs, "cuda", graphs=False)
    except MaasflowError:
        raise
    except Exception as error:
        raise _refused(f"ONNX Runtime cannot run {path.name} there: {_first_line(error)}") from error
    if without:
        _log.warning("%s runs without CUDA graphs: %s", path.name, without)
    return session


def _session(path: Path, options: "ort.SessionOptions", provider: dict[str, str]) -> "ort.InferenceSession":
    import onnxruntime as ort  # noqa: PLC0415 - imported by `open_session` already

    # Without its fallback, by which a session that fails on the device goes on on the CPU.
    session = ort.InferenceSession(str(path), options, providers=[(PROVIDER, provider)], enable_fallback=False)
    found = session.get_providers()
    if PROVIDER not in found:
        raise _refused(f"ONNX Runtime gives the session {', '.join(found)} alone")
    return session


@cache
def _load_libraries() -> None:
    """Load CUDA's libraries where they were installed as Python packages: the system finds them nowhere by itself."""
    import onnxruntime as ort  # noqa: PLC0415 - imported by `open_session` already

    # It prints what it lacks, among what a command prints.
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()


def _refused(why: str) -> MaasflowError:
    import onnxruntime as ort  # noqa: PLC0415 - imported by `open_session` already

    version = getattr(ort, "cuda_version", "") or "its version"
    return MaasflowError(
        f"serving.device asks for a CUDA device, but {why}",
        f"set serving.device to cpu, or install a driver for CUDA {version} and its libraries: pip install 'onnxruntime-gpu[cuda,cudnn]'",
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
