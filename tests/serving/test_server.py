"""The process: starting, following while it runs, ending."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deploy.serving.__main__ import main
from tests.serving.conftest import Running, Served, Start
from tests.texts import write_classifier, write_language_model

ROW = {"age": 40, "height": 1.7, "color": "blue"}
HEAVY = ("torch", "transformers", "prefect", "mlflow", "pandas", "great_expectations", "pyarrow", "sklearn", "dvc", "matplotlib")


def predict(running: Running) -> httpx.Response:
    return running.client.post("/v1/models/people/predict", json={"instances": [ROW]})


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_prints_where_and_what_it_serves(served: Served, start: Start) -> None:
    served.serve("people", "3")
    running = start()
    assert "is ready on http://127.0.0.1:" in running.line
    assert running.line.endswith("people (version 3)\n")


def test_an_empty_folder_is_not_ready_until_a_model_comes(served: Served, start: Start) -> None:
    running = start()
    assert "not ready" in running.line
    ready = running.client.get("/v2/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"error": "no model is served yet"})
    assert running.client.get("/v1/models").json() == {"models": []}
    assert running.client.get("/openapi.json").status_code == 200
    served.serve("people", "1")
    wait_until(lambda: predict(running).status_code == 200)
    assert running.client.get("/v2/health/ready").status_code == 200


def test_it_prints_again_whenever_what_it_serves_changes(served: Served, start: Start) -> None:
    running = start()
    printed = running.process.stdout
    assert printed
    served.serve("people", "1")
    line = printed.readline()
    assert "is ready on http://" in line
    assert line.endswith("people (version 1)\n")
    time.sleep(0.2)  # looks that find nothing new
    served.serve("people", "2")
    assert printed.readline().endswith("people (version 2)\n")
    (served.folder / "people" / "current.json").unlink()
    assert "not ready" in printed.readline()
    assert running.stop() == 0
    assert printed.read() == ""


def test_a_version_is_swapped_without_a_lost_request(served: Served, start: Start) -> None:
    served.serve("people", "1", slope=1.0)
    running = start()
    served.add("people", "2", slope=-1.0)
    statuses, labels, stop = set[int](), dict[str, set[str]](), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=running.client.base_url, trust_env=False) as client:
            while not stop.is_set():
                reply = client.post("/v1/models/people/predict", json={"instances": [ROW]})
                statuses.add(reply.status_code)
                labels.setdefault(reply.json()["version"], set()).add(reply.json()["predictions"][0]["label"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: "1" in labels)
    served.point("people", "2")
    wait_until(lambda: "2" in labels)
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == {200}
    assert labels == {"1": {"high"}, "2": {"low"}}


def test_a_removed_pointer_unloads(served: Served, start: Start) -> None:
    served.serve("people", "1")
    running = start()
    assert predict(running).status_code == 200
    (served.folder / "people" / "current.json").unlink()
    wait_until(lambda: predict(running).status_code == 404)


def connect(running: Running) -> socket.socket:
    return socket.create_connection((running.client.base_url.host, running.client.base_url.port or 0), timeout=10)


def head(length: int) -> bytes:
    return f"POST /v1/models/people/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def test_sigterm_lets_what_is_in_flight_finish(served: Served, start: Start) -> None:
    served.serve("people", "1")
    running = start("--drain", "0.5")
    body = json.dumps({"instances": [ROW]}).encode()
    with connect(running) as connection:
        connection.sendall(head(len(body)) + body[:5])
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: running.client.get("/v2/health/ready").status_code == 503)
        time.sleep(0.7)  # longer than the drain: only the request in flight keeps the server
        assert running.client.get("/v2/health/live").status_code == 200
        assert running.client.get("/v2/models/people/ready").status_code == 503
        connection.sendall(body[5:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert running.process.wait(10) == 0


def test_what_does_not_finish_is_cut_after_the_grace_time(served: Served, start: Start) -> None:
    running = start("--grace", "0.3")
    with connect(running) as connection:
        connection.sendall(head(10) + b"{")
        assert running.stop() == 0


def test_ctrl_c_ends_with_130_and_a_client_that_went_away_leaves_no_trace(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    running = start()
    with connect(running) as connection:
        connection.sendall(head(10) + b"{")
    assert predict(running).status_code == 200
    assert running.stop(signal.SIGINT) == 130
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert "failed" not in log


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("127.0.0.1", None, "--port"),
        ("192.0.2.1", 0, "cannot listen on 192.0.2.1"),
        ("no such host", 0, "--host"),
        ("127.0.0.1", 99999, "cannot listen"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_message(
    served: Served, capsys: pytest.CaptureFixture[str], host: str, port: int | None, says: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if port is None else port
        assert main(["--served", str(served.folder), "--host", host, "--port", str(port)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("cannot listen on ")
    assert says in message


def test_a_broken_model_leaves_the_others_and_a_line_in_the_log(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    (served.add("broken", "2") / "bundle.json").unlink()
    served.point("broken", "2")
    running = start()
    assert predict(running).status_code == 200
    assert "broken: version 2 cannot be served" in (tmp_path / "server.log").read_text()


def test_the_access_log_is_json_and_off_by_default(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    assert predict(start()).status_code == 200
    assert "/predict" not in (tmp_path / "server.log").read_text()
    running = start("--access-log")
    running.client.get("/v2/no%0Asuch")
    assert running.stop() == 0
    (line,) = [line for line in (tmp_path / "server.log").read_text().splitlines() if "such" in line]
    values = json.loads(line[line.index("{") :])
    assert (values["method"], values["path"], values["status"]) == ("GET", "/v2/no\nsuch", 404)


def test_it_never_imports_what_trains(served: Served, start: Start) -> None:
    served.serve("people", "1")
    for name, make in (("moods", write_classifier), ("writer", write_language_model)):
        make(served.folder / name / "1")
        served.point(name, "1")
    script = f"import sys; from deploy.serving.__main__ import main; main(); print(*(name for name in {HEAVY!r} if name in sys.modules))"
    running = start(python=("-c", script))
    assert predict(running).status_code == 200
    assert running.client.post("/v1/models/moods/predict", json={"instances": ["a text"]}).status_code == 200
    assert running.client.post("/v1/models/writer/generate", json={"prompt": "a text"}).status_code == 200
    assert running.client.get("/openapi.json").status_code == 200
    assert running.stop() == 0
    assert running.process.stdout
    assert running.process.stdout.read().strip() == ""
