"""The deployer as the image runs it: it fills a folder, and ends when the container is told to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.core.served import pointed_at
from tasks.tracking import Tracking
from tests.conftest import REPOSITORY
from tests.releases import add_champion
from tests.tiny import Stages

pytestmark = pytest.mark.slow


def begin(tracking: Tracking, served: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tasks.deploy", "--served", str(served), *options]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": tracking.uri}
    # As in a container: its standard input is at its end already.
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_once_brings_the_champions_and_ends(tracking: Tracking, stages: Stages, tmp_path: Path) -> None:
    add_champion(tracking, stages)
    with begin(tracking, tmp_path / "served", "--once") as deployer:
        assert deployer.wait(60) == 0
    assert pointed_at(tmp_path / "served" / "points") == "1"


def test_once_fails_without_the_registry(tmp_path: Path) -> None:
    with begin(Tracking("http://127.0.0.1:9", tmp_path), tmp_path / "served", "--once") as deployer:
        _, said = deployer.communicate(timeout=120)
    assert deployer.returncode == 1
    assert "MLflow at http://127.0.0.1:9 did not do what was asked" in said
    assert "Traceback" not in said


def test_it_follows_until_it_is_told_to_end(tracking: Tracking, stages: Stages, tmp_path: Path) -> None:
    with begin(tracking, tmp_path / "served", "--until", "sigterm", "--seconds", "0.1") as deployer:
        try:
            add_champion(tracking, stages)
            end_of_patience = time.monotonic() + 60
            while pointed_at(tmp_path / "served" / "points") != "1":
                assert deployer.poll() is None
                assert time.monotonic() < end_of_patience
                time.sleep(0.1)
        finally:
            deployer.send_signal(signal.SIGTERM)
        assert deployer.wait(30) == 0
