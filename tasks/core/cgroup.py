"""The share of the processors that Linux' control groups leave to this process, in version 1 or 2.

man 7 cgroups; the kernel's Documentation/admin-guide/cgroup-v2.rst and Documentation/scheduler/sched-bwc.rst.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final

_PROCESS: Final = Path("/proc/self")
_V2: Final = "cgroup2"


def cpu_quota(process: Path = _PROCESS) -> float:
    """In processors, as 1.5; infinite where nothing limits it. A group's own quota holds, and that of every group above it."""
    try:
        groups = (process / "cgroup").read_text()
        mounts = (process / "mountinfo").read_text()
    except OSError:
        return inf
    return min((_quota(folder) for line in mounts.splitlines() for folder in _folders(line, groups)), default=inf)


def _folders(mount: str, groups: str) -> Iterator[Path]:
    """Of the process' group within a mounted hierarchy that limits processors, and of those above it."""
    where, _, what = mount.partition(" - ")
    root, point = where.split()[3:5]
    kind, *_, options = what.split()
    if kind not in (_V2, "cgroup") or (kind == "cgroup" and "cpu" not in options.split(",")):
        return
    top = Path(_unescaped(point))
    # In a container only the group's own part of the hierarchy may be mounted, and the rest cannot be looked at.
    path = Path(_group(groups, kind))
    folder = top / path.relative_to(root) if path.is_relative_to(root) else top
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _group(groups: str, kind: str) -> str:
    """The path of the process' group: the line `0::/path` in version 2, `4:cpu,cpuacct:/path` in version 1."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if (not controllers) if kind == _V2 else ("cpu" in controllers.split(",")):
            return path
    return "/"


def _quota(folder: Path) -> float:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return inf if int(quota) < 0 else int(quota) / int(period)
    return inf


def _unescaped(path: str) -> str:
    """Spaces and the like are written in octal there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
