"""A program: `python resident.py MODEL THREADS cpu|cuda`, with the inputs of its calls on stdin, prints the bytes that a session adds.

It imports nothing of this project, and no more than it must: memory that a process has had and let go of is taken again
before any new is asked for, and would hide the session's.
"""

import contextlib
import ctypes
import io
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

_IDENTITY = b'\x08\x07\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r'
"""An ONNX model that gives back what it is given."""


def resident() -> int:
    """Bytes that this process holds in memory; where the system does not tell, the most that it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def used() -> int:
    """Bytes of the first CUDA device's memory that are in use, by all processes."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context, free, total = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        or driver.cuCtxSetCurrent(context)
        or driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    )
    if failed:
        sys.exit(f"the CUDA driver does not tell how much memory is free: error {failed}")
    return total.value - free.value


def main() -> None:
    model, threads, device = sys.argv[1:]
    calls: dict[str, dict[str, np.ndarray]] = {}
    with np.load(io.BytesIO(sys.stdin.buffer.read())) as arrays:
        for key, values in arrays.items():
            number, _, name = key.partition("/")
            calls.setdefault(number, {})[name] = values
    # As the server opens one, in tasks/core/predictor.py.
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        # As in tasks/core/cuda.py. What it prints is no number.
        providers = [("CUDAExecutionProvider", {"use_tf32": "0"})]
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    taken = used if device == "cuda" else resident
    # The first session of a process also sets up ONNX Runtime itself, which is no model's.
    first = ort.InferenceSession(_IDENTITY, options, providers=providers, enable_fallback=False)
    if device == "cuda" and "CUDAExecutionProvider" not in first.get_providers():
        sys.exit("the session does not get the CUDA device")
    first.run(None, {"x": np.zeros(1, np.float32)})
    del first
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    before = taken()
    session = ort.InferenceSession(model, options, providers=providers, enable_fallback=False)
    for inputs in calls.values():
        session.run(None, inputs)
    print(taken() - before)


if __name__ == "__main__":
    main()
