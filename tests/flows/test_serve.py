"""`maasflow serve`, as far as it differs from the server alone."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.flows.conftest import maasflow


def test_the_access_log_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    assert maasflow(tmp_path, "init", ".").code == 0
    command = [sys.executable, "-m", "flows.cli", "serve", "--no-follow", "--port", "0", "--access-log"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True) as server:
        assert server.stdout
        address = next(word for word in server.stdout.readline().replace(",", " ").split() if "://" in word)
        urllib.request.urlopen(f"{address}/v2/health/live").close()
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=60)
    assert '"path":"/v2/health/live","status":200' in said
