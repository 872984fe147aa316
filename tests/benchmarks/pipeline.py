"""How fast the main job is: `python -m tests.benchmarks.pipeline`.

Whole processes, in turn, on one machine; medians of the rounds. Exits 1 where a limit is missed.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

MAASFLOW = [sys.executable, "-m", "flows.cli"]
BARE = Path(__file__).with_name("bare.py")


def seconds(command: list[str], folder: Path) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return taken


def median(measure: Callable[[], float], rounds: int) -> float:
    return statistics.median(measure() for _ in range(rounds))


def start_server(folder: Path) -> tuple[float, float]:
    """Seconds from the command to the first 200 of /v2/health/ready, and the server's resident memory in MB then.

    Started as users start it: the deployer that follows the registry is a process of its own beside it.
    """
    start = time.perf_counter()
    with subprocess.Popen([*MAASFLOW, "serve", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            found = re.search(r"http://[\d.]+:\d+", server.stdout.readline())
            if not found:
                sys.exit("the server did not start")
            urllib.request.urlopen(f"{found[0]}/v2/health/ready").close()
            ready = time.perf_counter() - start
            return ready, resident_megabytes(server.pid)
        finally:
            server.terminate()


def resident_megabytes(process: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1e3 if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.environ.pop("MAASFLOW_WORKSPACE", None)
    with tempfile.TemporaryDirectory() as root:
        ours, bare = Path(root, "ours"), Path(root, "bare")
        bare.mkdir()
        seconds([*MAASFLOW, "init", str(ours)], Path(root))
        # Both once, uncounted: databases are made, files come into the page cache.
        first = seconds([*MAASFLOW, "run", "digits-mlp"], ours)
        seconds([sys.executable, str(BARE), str(bare)], bare)
        pairs = [
            (seconds([*MAASFLOW, "run", "digits-mlp", "--force"], ours), seconds([sys.executable, str(BARE), str(bare)], bare))
            for _ in range(rounds)
        ]
        again = median(lambda: seconds([*MAASFLOW, "run", "digits-mlp"], ours), rounds)
        telling = median(lambda: seconds([*MAASFLOW, "--help"], ours), rounds)
        servers = [start_server(ours) for _ in range(rounds)]
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    print(f"maasflow run digits-mlp, first in a new workspace   {first:6.2f} s")
    print(f"maasflow run digits-mlp --force                     {statistics.median(mine for mine, _ in pairs):6.2f} s")
    print(f"the same library calls in one bare script           {statistics.median(theirs for _, theirs in pairs):6.2f} s")
    missed = False
    for what, value, limit, unit in (
        ("ratio, median of the pairs", ratio, 1.3, "×"),
        ("maasflow run digits-mlp, nothing changed", again, 5.0, "s"),
        ("maasflow --help", telling, 0.3, "s"),
        ("server, start to ready", statistics.median(ready for ready, _ in servers), 1.5, "s"),
        ("server, resident", statistics.median(resident for _, resident in servers), 250.0, "MB"),
    ):
        missed |= not value <= limit
        print(f"{what:50s}  {value:6.2f} {unit}  (limit {limit:g} {unit}: {'holds' if value <= limit else 'MISSED'})")
    sys.exit(missed)


if __name__ == "__main__":
    main()
