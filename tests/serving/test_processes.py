"""Several processes on one port: `--workers`."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from deploy.serving import open_inference_pb2 as pb
from deploy.serving.__main__ import main
from deploy.serving.metrics import Metrics
from deploy.serving.settings import Settings
from deploy.serving.workers import Workers
from tasks.core.api_keys import create_key
from tasks.core.bundle import Bundle
from tests.serving.conftest import Running, Served, Start
from tests.serving.test_server import wait_until

ROW = {"instances": [{"age": 40, "height": 1.7, "color": "blue"}]}
PREDICT = "/v1/models/people/predict"


@pytest.fixture
def running(served: Served, start: Start) -> Running:
    """Two processes."""
    served.serve("people", "1")
    return start("--workers", "2")


def workers(running: Running) -> list[int]:
    """Their process ids."""
    return sorted(child.pid for child in psutil.Process(running.process.pid).children())


def connections(running: Running, stack: ExitStack, count: int) -> list[httpx.Client]:
    """Clients with a connection each, which the processes share among them."""
    opened = [stack.enter_context(httpx.Client(base_url=running.client.base_url, timeout=20, trust_env=False)) for _ in range(count)]
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(lambda client: client.get("/v2/health/live"), opened))
    return opened


def metric(running: Running, start: str) -> float:
    """Of any of the processes."""
    with httpx.Client(base_url=running.client.base_url, timeout=20, trust_env=False) as asking:
        lines = asking.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


def answered(running: Running) -> float:
    return metric(running, f'maasflow_requests_total{{model="people",operation="{PREDICT.replace("people", "{name}")}",status="200"}}')


def test_it_is_ready_once_all_are_and_says_so_once(running: Running) -> None:
    assert "is ready on http://127.0.0.1:" in running.line
    assert running.line.endswith("people (version 1)\n")
    assert len(workers(running)) == 2
    assert running.client.get("/v2/health/ready").status_code == 200
    assert running.stop() == 0
    assert running.process.stdout
    assert running.process.stdout.read() == ""


def test_connections_that_come_at_once_are_shared(running: Running) -> None:
    with ExitStack() as stack:
        opened = connections(running, stack, 16)
        assert all(client.post(PREDICT, json=ROW).status_code == 200 for client in opened)
        taken = Counter[int]()
        for pid in workers(running):
            taken[pid] += sum(connection.status == psutil.CONN_ESTABLISHED for connection in psutil.Process(pid).net_connections("tcp"))
        assert min(taken[pid] for pid in workers(running)) >= 2, taken


def test_each_tells_what_all_have_counted(running: Running) -> None:
    with ExitStack() as stack:
        opened = connections(running, stack, 8)
        for client in opened:
            client.post(PREDICT, json=ROW)
        wait_until(lambda: answered(running) == 8)
        for client in opened:
            text = client.get("/metrics").text
            assert "maasflow_workers 2.0" in text
            assert "maasflow_worker_restarts_total 0.0" in text
            assert text.count("maasflow_model_info{") == 1
            assert 'maasflow_stage_seconds_count{model="people",stage="infer"} 8.0' in text
            assert 'maasflow_reloads_total{model="people",outcome="loaded"} 2.0' in text
            assert client.get("/v1/traffic").json()["models"]["people"]["requests"] == 8


def test_one_that_is_killed_under_load_costs_no_answer_and_comes_back(running: Running, tmp_path: Path) -> None:
    stop, answers, counted = threading.Event(), Counter[int](), [0.0]

    def ask() -> None:
        """As clients do, which ask once more where a connection breaks."""
        with httpx.Client(base_url=running.client.base_url, timeout=20, trust_env=False) as client:
            while not stop.is_set():
                try:
                    answers[client.post(PREDICT, json=ROW).status_code] += 1
                except httpx.TransportError:
                    answers[0] += 1

    def count() -> None:
        while not stop.is_set():
            try:
                counted.append(answered(running))
            except httpx.TransportError:
                continue

    threads = [*(threading.Thread(target=ask) for _ in range(6)), threading.Thread(target=count)]
    for thread in threads:
        thread.start()
    for number in range(1, 3):
        seen, before = answers[200], workers(running)
        wait_until(lambda: answers[200] > seen + 50 and counted[-1] > 0)  # noqa: B023 - called within the loop
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: metric(running, "maasflow_worker_restarts_total") == number and metric(running, "maasflow_workers") == 2)  # noqa: B023
        assert len(set(workers(running)) - set(before)) == 1
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) <= {0, 200}
    assert answers[0] <= 12, "each client's connection can break once for each process that was killed"
    assert counted == sorted(counted), "no count falls"
    log = (tmp_path / "server.log").read_text()
    assert log.count("was killed by SIGKILL: another is started") == 2
    assert "Traceback" not in log
    assert running.stop() == 0


def test_sigterm_lets_what_is_in_flight_finish(running: Running) -> None:
    body = json.dumps(ROW).encode()
    host, port = running.client.base_url.host, running.client.base_url.port or 0
    with socket.create_connection((host, port), timeout=10) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body[:5])
        busy = set(workers(running))
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(workers(running)) == 1)
        assert set(workers(running)) < busy, "who is done ends, and is not started again"
        assert running.client.get("/v2/health/ready").status_code == 503
        connection.sendall(body[5:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert running.process.wait(10) == 0


def test_ctrl_c_ends_all_with_130(running: Running) -> None:
    processes = [psutil.Process(pid) for pid in workers(running)]
    assert running.stop(signal.SIGINT) == 130
    assert not any(process.is_running() for process in processes)


def test_what_does_not_finish_is_cut_after_the_grace_time(served: Served, start: Start) -> None:
    running = start("--workers", "2", "--grace", "0.3")
    with socket.create_connection((running.client.base_url.host, running.client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert running.stop() == 0


def test_without_its_parent_none_stays(running: Running) -> None:
    processes = [psutil.Process(pid) for pid in workers(running)]
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not any(process.is_running() for process in processes))
    with pytest.raises(httpx.ConnectError):
        running.client.get("/v2/health/live")


@pytest.mark.parametrize("limits", [{"requests_per_second": 0.001}, {"units_per_second": 0.001}])
def test_a_key_has_its_limit_once(served: Served, start: Start, tmp_path: Path, limits: dict[str, float]) -> None:
    _, secret = create_key(tmp_path / "keys.json", "app", **limits)
    served.serve("people", "1")
    running = start("--workers", "2", "--keys", str(tmp_path / "keys.json"))
    with ExitStack() as stack:
        headers = {"Authorization": f"Bearer {secret}"}
        statuses = Counter(client.post(PREDICT, json=ROW, headers=headers).status_code for client in connections(running, stack, 8))
    assert statuses == {200: 1, 429: 7}


def test_a_pointer_reaches_all(served: Served, running: Running) -> None:
    served.serve("people", "2", slope=-1.0)
    assert running.process.stdout
    assert running.process.stdout.readline().endswith("people (version 2)\n")
    with ExitStack() as stack:
        for client in connections(running, stack, 8):
            assert client.post(PREDICT, json=ROW).json()["version"] == "2"


def test_one_that_cannot_start_again_leaves_the_others_and_is_tried_on(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": []}))
    running = start("--workers", "2", "--keys", str(tmp_path / "keys.json"))
    (tmp_path / "keys.json").write_text("{")
    os.kill(workers(running)[0], signal.SIGKILL)
    wait_until(lambda: "cannot start, and is tried again: the API keys" in (tmp_path / "server.log").read_text())
    assert running.client.post(PREDICT, json=ROW).status_code == 200
    (tmp_path / "keys.json").write_text(json.dumps({"keys": []}))
    wait_until(lambda: metric(running, "maasflow_workers") == 2)


@pytest.mark.slow
def test_a_server_of_which_nothing_is_left_gives_up(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": []}))
    running = start("--workers", "2", "--keys", str(tmp_path / "keys.json"))
    (tmp_path / "keys.json").write_text("{")
    for pid in workers(running):
        os.kill(pid, signal.SIGKILL)
    assert running.process.wait(120) == 1
    assert "restore it, or remove it and make new keys" in (tmp_path / "server.log").read_text().splitlines()[-1]


def test_workers_that_cannot_start_at_all_are_one_message(served: Served, tmp_path: Path) -> None:
    # Stands for whatever kills a process as it begins.
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif 'deploy.serving.child' in sys.orig_argv: os._exit(3)")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "deploy.serving", "--served", str(served.folder), "--port", "0", "--workers", "2"]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "ended with exit code 3 before it was ready" in ended.stderr
    assert len(ended.stderr.splitlines()) == 2, ended.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--workers", "0"), "--workers"), (("--workers", "2", "--host", "192.0.2.1"), "cannot listen on 192.0.2.1")],
)
def test_what_cannot_be_served_is_one_message(
    served: Served, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    assert main(["--served", str(served.folder), "--port", "0", *options]) == 1
    assert says in capsys.readouterr().err


def test_grpc_is_spoken_by_all_on_one_port_which_no_other_server_gets(
    served: Served, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    served.serve("people", "1")
    running = start("--workers", "2", "--grpc-port", "0")
    place = running.line.partition("gRPC on ")[2].split(")")[0]
    request, name = pb.ServerReadyRequest(), "/inference.GRPCInferenceService/ServerReady"
    for _ in range(8):
        # A connection for each, where channels would share one.
        with grpc.insecure_channel(place, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            ask = channel.unary_unary(name, type(request).SerializeToString, pb.ServerReadyResponse.FromString)
            assert ask(request, timeout=10).ready
    for workers in ("1", "2"):
        assert main(["--served", str(served.folder), "--port", "0", "--workers", workers, "--grpc-port", place.rpartition(":")[2]]) == 1
        assert "for gRPC" in capsys.readouterr().err
    assert running.stop() == 0


def test_tls(served: Served, start: Start, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *names]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    served.serve("people", "1")
    running = start("--workers", "2", "--tls-cert", str(certificate), "--tls-key", str(key))
    with pytest.raises(httpx.TransportError), httpx.Client(trust_env=False) as careless:
        careless.get(str(running.client.base_url).replace("https", "http"))
    with httpx.Client(verify=ssl.create_default_context(cafile=str(certificate)), trust_env=False) as careful:
        assert careful.post(f"{str(running.client.base_url).rstrip('/')}{PREDICT}", json=ROW).status_code == 200
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_each_takes_its_share_of_the_cores(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.serving.workers.usable_cores", lambda: 5)
    manifest = Bundle.open(served.add("people", "1")).manifest
    shares = {processes: Workers(Settings(processes=processes)) for processes in (1, 2, 8)}
    assert {processes: workers.cores for processes, workers in shares.items()} == {1: 5, 2: 2, 8: 1}
    assert [shares[2].threads(manifest.model_copy(update={"threads": threads})) for threads in (0, 1, 4)] == [2, 1, 2]


def test_what_one_process_counted_is_added_to_anothers() -> None:
    one, other = Metrics(), Metrics()
    for metrics, requests in ((one, 1), (other, 2)):
        found = metrics.of("people")
        found.requests["/", 200] += requests
        found.reloads["loaded"] += 1
        found.tokens += 7
        found.seconds.add(0.002)
        found.stages["infer"].add(100.0)
    other.of("others").payloads["lost"] += 4
    one.add(json.loads(json.dumps(other.snapshot())))
    people = one.of("people")
    assert (people.requests, people.reloads, people.tokens) == ({("/", 200): 3}, {"loaded": 2}, 14)
    assert (people.seconds.total, people.seconds.buckets[-1]) == (0.004, ("+Inf", 2.0))
    assert people.stages["infer"].counts[-1] == 2
    assert one.of("others").payloads == {"lost": 4}
