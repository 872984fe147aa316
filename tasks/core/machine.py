"""The machine that a figure was taken on: a latency or an int8 accuracy means nothing without it."""

import ctypes
import os
import platform
from functools import cache
from math import ceil
from pathlib import Path
from typing import Literal

from tasks.core.cgroup import cpu_quota
from tasks.core.config import Config
from tasks.core.stages import content_key

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "avx_vnni", "asimddp", "i8mm")

Device = Literal["auto", "cpu", "cuda"]
"""Where a model is to run; auto takes a CUDA device where there is one."""


class Machine(Config):
    """Processor, instruction sets that matter for inference, usable cores, and the CUDA device."""

    system: str
    processor: str
    instructions: tuple[str, ...]
    cores: int
    cuda: str | None = None
    """The name of the first CUDA device, where there is one."""

    def __str__(self) -> str:
        return f"{self.processor}, {self.cores} cores"


class Runtime(Config):
    """What ran a model on a machine."""

    threads: int
    """For one inference."""
    provider: str
    """ONNX Runtime's execution provider that the session really has."""
    onnxruntime: str
    """Its version."""


class Place(Config):
    """A machine, and what runs models on it: figures that were taken in equal places can be held against each other."""

    machine: Machine
    runtime: Runtime

    def __str__(self) -> str:
        return f"{self.machine}, {self.runtime.threads} used by ONNX Runtime {self.runtime.onnxruntime}, {self.runtime.provider}"

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name it."""
        return content_key(self)[:12]

    def unlike(self, other: "Place | None") -> str:
        """In what it differs from another place, in words, as in "cores 2, not 8"; of an unknown one, that it is unknown."""
        if other is None:
            return "which is not known"
        here, there = (_shown(place.machine) | _shown(place.runtime) for place in (self, other))
        return "; ".join(f"{name} {here[name]}, not {there[name]}" for name in here if here[name] != there[name])


def usable_cores() -> int:
    """Cores that this process may use: its affinity, within the control groups' quota, which is rounded up, where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, ceil(min(cores, cpu_quota())))


def _shown(part: Config) -> dict[str, str]:
    return {name: (" ".join(value) or "none") if isinstance(value, tuple) else str(value) for name, value in part}


@cache
def cuda_device() -> str | None:
    """The name of the first CUDA device that this process may use, by the driver's word; None where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, count, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, len(name), device):
        return None
    return name.value.decode(errors="replace")


def device_for(wanted: Device) -> Literal["cpu", "cuda"]:
    """Where it runs on this machine; not whether that can be, which only a session tells."""
    return "cuda" if wanted == "cuda" or (wanted == "auto" and cuda_device()) else "cpu"


@cache
def this_machine() -> Machine:
    processor, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                processor = value.strip()
            elif name.strip() in ("flags", "Features"):
                flags.update(value.split())
    except OSError:
        pass
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=processor,
        instructions=tuple(name for name in _INSTRUCTIONS if name in flags),
        cores=usable_cores(),
        cuda=cuda_device(),
    )
