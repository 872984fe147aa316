"""What control groups leave of the processors, on made-up files as Linux has them."""

from math import inf
from pathlib import Path

import pytest

from tasks.core.cgroup import cpu_quota
from tasks.core.machine import usable_cores


def machine(folder: Path, groups: str, mounts: dict[str, str], files: dict[str, str]) -> Path:
    """A process' folder. `mounts` are kinds by the root that is mounted, as in `cgroup2 /`, at folders below `folder`."""
    lines = ["20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"]
    for point, mount in mounts.items():
        kind, root, *options = mount.split()
        path = str(folder / point).replace(" ", "\\040")
        lines.append(f"31 20 0:28 {root} {path} rw,nosuid shared:9 - {kind} cgroup rw{''.join(f',{option}' for option in options)}\n")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text("".join(lines))
    return folder


V2 = {"sys": "cgroup2 /"}
V1 = {"sys/cpu": "cgroup / cpu cpuacct", "sys/cpuset": "cgroup / cpuset"}
NOT = {"sys/cpu/cpu.cfs_quota_us": "-1\n", "sys/cpu/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "quota"),
    [
        pytest.param("0::/\n", V2, {"sys/cpu.max": "150000 100000\n"}, 1.5, id="v2, in a container"),
        pytest.param("0::/\n", V2, {"sys/cpu.max": "max 100000\n"}, inf, id="v2, without a quota"),
        pytest.param("0::/\n", V2, {}, inf, id="v2, without the controller"),
        pytest.param(
            "0::/a/b\n", V2, {"sys/a/b/cpu.max": "max 100000\n", "sys/a/cpu.max": "50000 100000\n"}, 0.5, id="v2, of a group above"
        ),
        pytest.param("0::/a b\n", {"s y s": "cgroup2 /"}, {"s y s/a b/cpu.max": "200000 100000\n"}, 2.0, id="v2, with spaces"),
        pytest.param("0::/../other\n", V2, {"sys/cpu.max": "300000 100000\n"}, 3.0, id="v2, another namespace"),
        pytest.param("4:cpu,cpuacct:/\n0::/\n", V1, NOT, inf, id="v1, without a quota"),
        pytest.param(
            "5:cpuset:/x\n4:cpu,cpuacct:/pod\n",
            V1,
            NOT | {"sys/cpu/pod/cpu.cfs_quota_us": "250000\n", "sys/cpu/pod/cpu.cfs_period_us": "100000\n"},
            2.5,
            id="v1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/docker/c0ffee\n",
            {"sys/cpu": "cgroup /docker/c0ffee cpu cpuacct"},
            {"sys/cpu/cpu.cfs_quota_us": "50000\n", "sys/cpu/cpu.cfs_period_us": "100000\n"},
            0.5,
            id="v1, in a container that sees its own part",
        ),
        pytest.param(
            "4:cpu:/pod\n0::/pod\n",
            V1 | {"sys/unified": "cgroup2 /"},
            {"sys/cpu/pod/cpu.cfs_quota_us": "100000\n", "sys/cpu/pod/cpu.cfs_period_us": "100000\n", "sys/unified/pod/cgroup.procs": ""},
            1.0,
            id="both",
        ),
        pytest.param("0::/\n", V2, {"sys/cpu.max": "nonsense"}, inf, id="what cannot be read"),
    ],
)
def test_the_quota(tmp_path: Path, groups: str, mounts: dict[str, str], files: dict[str, str], quota: float) -> None:
    assert cpu_quota(machine(tmp_path, groups, mounts, files)) == quota


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) == inf


@pytest.mark.parametrize(("quota", "cores"), [(0.2, 1), (1.5, 2), (inf, 4)])
def test_usable_cores_are_those_of_the_affinity_within_the_quota(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr("tasks.core.machine.cpu_quota", lambda: quota)
    assert usable_cores() == cores
