"""`python deploy/requirements.py RUNTIME [EXTRA…]`: what an image installs before maasflow itself, a requirement a line.

pip cannot leave out one dependency of a package, and maasflow's own is the build of ONNX Runtime for CUDA, a quarter of a gigabyte. So
an image installs the other dependencies and the build that it runs on, and then maasflow with `--no-deps`. Reads the pyproject.toml and
constraints.txt of the working directory, with the standard library alone: nothing is installed yet.
"""

import sys
import tomllib
from pathlib import Path
from typing import Final

RUNTIMES: Final = {"onnxruntime": "onnxruntime", "onnxruntime-gpu": "onnxruntime-gpu[cuda,cudnn]"}
"""What is asked of pip for each build of ONNX Runtime: slim images have none of CUDA's libraries."""
SERVER: Final = ("serve", "redis", "traces")
"""The extras of the server."""


def requirements(folder: Path, runtime: str, extras: tuple[str, ...] = SERVER) -> list[str]:
    """maasflow's dependencies with those of the extras, and ONNX Runtime as the build of that name, in the version that is tested."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    pins = dict(line.split("==") for line in (folder / "constraints.txt").read_text().splitlines() if "==" in line)
    return [*(each for each in wanted if not each.startswith("onnxruntime")), f"{RUNTIMES[runtime]}=={pins['onnxruntime-gpu']}"]


def main() -> int:
    runtime, extras = (sys.argv[1:2] or [""])[0], tuple(sys.argv[2:]) or SERVER
    if runtime not in RUNTIMES:
        print(f"RUNTIME is '{runtime}', expected one of {', '.join(RUNTIMES)}", file=sys.stderr)
        return 2
    print("\n".join(requirements(Path.cwd(), runtime, extras)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
