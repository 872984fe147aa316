"""How much memory a model's session takes."""

import io
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tasks.core.errors import MaasflowError
from tasks.core.machine import Device, device_for, usable_cores
from tasks.core.transforms import Tensors

_PROGRAM: Final = Path(__file__).with_name("resident.py")


def session_memory(model: Path, threads: int, calls: Iterable[Tensors], device: Device = "cpu") -> float:
    """Memory, in 10⁶ bytes, that opening a model and running these calls takes in a process of its own.

    On the CPU what the process holds more of. On a CUDA device what is free of the device's less, so that another process that takes
    some at the same time counts too; the buffers of `tasks/core/bound.py` do not, which are a few requests' worth.
    Raises MaasflowError where that process fails, as one does that takes more memory than there is.
    """
    inputs = io.BytesIO()
    arrays: dict[str, Any] = {f"{number}/{name}": values for number, call in enumerate(calls) for name, values in call.items()}
    np.savez(inputs, **arrays)
    done = subprocess.run(
        # No folder of its own on the path: modules beside it have the names of others elsewhere.
        [sys.executable, "-P", str(_PROGRAM), str(model), str(threads or usable_cores()), device_for(device)],
        input=inputs.getvalue(),
        capture_output=True,
        check=False,
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise MaasflowError(
            f"the memory of {model.stem} cannot be measured: {said[-1] if said else f'its process ended with {done.returncode}'}"
        )
    return max(0, int(done.stdout)) / 1e6
