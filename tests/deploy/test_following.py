"""The server and the deployer as `maasflow serve` runs them, before a real MLflow server: what moves an alias moves the answers."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.core.bundle import GOLDEN, Bundle
from tasks.core.served import pointed_at
from tasks.tracking import CHAMPION, Tracking
from tests.conftest import REPOSITORY
from tests.registry_proxy import RegistryProxy, registry_proxy
from tests.releases import add_champion, add_release, free_port, spoil
from tests.tiny import Stages

pytestmark = pytest.mark.slow

ROW = {"a": 1.5, "b": -0.5, "color": "red"}


def soon(true: Callable[[], bool], said: Callable[[], str] = str) -> None:
    """Wait until it is true, for as long as a busy machine may take."""
    end_of_patience = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end_of_patience, said()
        time.sleep(0.05)


def environment(registry: str, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MAASFLOW_W"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": registry, "NO_PROXY": "127.0.0.1", **changes}


@dataclass
class System:
    """`maasflow serve` in a workspace."""

    folder: Path
    registry: str
    changes: dict[str, str]
    process: "subprocess.Popen[str]" = field(init=False)
    client: httpx.Client = field(init=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "flows.cli", "serve", "--port", "0"]
        with (self.folder / "serve.log").open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment(self.registry, **self.changes), stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert "://" in line, self.log
        address = next(word for word in line.replace(",", " ").split() if "://" in word)
        self.client = httpx.Client(base_url=address, timeout=120, trust_env=False)

    def end(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    @property
    def served(self) -> Path:
        return self.folder / ".maasflow" / "served"

    def deployer(self) -> int | None:
        """The process id of its deployer, while there is one."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"tasks.deploy" in (path.parent / "cmdline").read_bytes():
                    return int(path.parent.name)
            except (OSError, ValueError):
                continue
        return None

    def ask(self, name: str) -> tuple[int, str]:
        """Status and label."""
        answer = self.client.post(f"/v1/models/{name}/predict", json={"instances": [ROW]})
        return answer.status_code, answer.json()["predictions"][0]["label"] if answer.is_success else ""

    def version(self, name: str) -> str:
        answer = self.client.get(f"/v2/models/{name}")
        return str(answer.json()["versions"][0]) if answer.is_success else ""

    def problem(self, name: str) -> str:
        return str(self.client.get("/v2/health/ready").json().get("problems", {}).get(name, ""))

    def registry_problem(self) -> str:
        return str(self.client.get("/v2/health/ready").json().get("registry", ""))


Serve = Callable[..., System]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    begun: list[System] = []

    def begin(registry: str, **changes: str) -> System:
        system = System(tmp_path, registry, changes)
        (tmp_path / "data").mkdir(exist_ok=True)
        begun.append(system)
        system.start()
        return system

    yield begin
    for system in begun:
        system.end()


@pytest.fixture
def remote(mlflow_address: str, tmp_path: Path) -> Tracking:
    return Tracking(mlflow_address, tmp_path / "unused")


@pytest.fixture
def proxy(mlflow_address: str) -> Iterator[RegistryProxy]:
    with registry_proxy(mlflow_address) as proxy:
        yield proxy


def answer_otherwise(folder: Path) -> None:
    """Make of a bundle another good one, whose answers differ."""
    spoil(folder)
    (folder / GOLDEN).unlink()
    Bundle(folder, Bundle.open(folder, verify=False).manifest.replace(golden=None)).write()


def move(address: str, name: str, version: str) -> None:
    """Move the alias as MLflow's page does when a person saves it there."""
    alias = {"name": name, "alias": CHAMPION, "version": version}
    answer = httpx.post(f"{address}/ajax-api/2.0/mlflow/registered-models/alias", json=alias, trust_env=False, timeout=60)
    assert answer.is_success, answer.text


@contextmanager
def asking(system: System, name: str, clients: int = 2) -> Iterator["Counter[tuple[int, str]]"]:
    """Clients that ask all the time, and what they were answered."""
    answered: Counter[tuple[int, str]] = Counter()
    stop, lock = threading.Event(), threading.Lock()

    def ask() -> None:
        while not stop.is_set():
            try:
                found = system.ask(name)
            except httpx.HTTPError as error:
                found = (0, repr(error))
            with lock:
                answered[found] += 1

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_moving_the_alias_in_mlflows_page_moves_the_answers_and_loses_no_request(
    remote: Tracking, stages: Stages, serve: Serve, mlflow_address: str
) -> None:
    add_champion(remote, stages, "flipped", "first")
    add_release(remote, stages, "flipped", "second", answer_otherwise)
    system = serve(mlflow_address)
    soon(lambda: system.version("flipped") == "1", lambda: system.log)
    _, first = system.ask("flipped")
    with asking(system, "flipped") as answered:
        soon(lambda: answered[200, first] > 20)
        move(mlflow_address, "flipped", "2")
        soon(lambda: system.version("flipped") == "2", lambda: system.log)
        _, second = system.ask("flipped")
        assert second != first
        soon(lambda: answered[200, second] > 20)
        before = answered[200, first]
        move(mlflow_address, "flipped", "1")
        soon(lambda: answered[200, first] > before + 20, lambda: system.log)
    assert set(answered) == {(200, first), (200, second)}
    assert system.process.poll() is None


def test_a_deployer_that_is_killed_is_begun_again_and_none_outlives_the_server(
    remote: Tracking, stages: Stages, serve: Serve, mlflow_address: str
) -> None:
    add_champion(remote, stages, "revived", "first")
    add_release(remote, stages, "revived", "second", answer_otherwise)
    system = serve(mlflow_address)
    soon(lambda: system.version("revived") == "1", lambda: system.log)
    killed = system.deployer()
    assert killed
    os.kill(killed, signal.SIGKILL)
    move(mlflow_address, "revived", "2")
    soon(lambda: system.version("revived") == "2", lambda: system.log)
    assert "the deployer ended with -9; it is begun again in 1 s, and what is served goes on" in system.log
    last = system.deployer()
    assert last not in (None, killed)
    system.process.send_signal(signal.SIGINT)
    assert system.process.wait(60) == 130
    assert not Path(f"/proc/{last}").exists()


def test_a_killed_server_begun_again_without_a_registry_serves_what_is_on_disk(
    remote: Tracking, stages: Stages, serve: Serve, proxy: RegistryProxy
) -> None:
    add_champion(remote, stages, "kept")
    system = serve(proxy.address)
    soon(lambda: system.version("kept") == "1", lambda: system.log)
    deployer, label = system.deployer(), system.ask("kept")
    system.process.kill()
    system.process.wait()
    soon(lambda: not Path(f"/proc/{deployer}").exists())
    proxy.shutdown()
    proxy.server_close()
    again = serve(proxy.address)
    soon(lambda: again.version("kept") == "1", lambda: again.log)
    assert again.ask("kept") == label
    soon(lambda: again.registry_problem() == "the registry does not answer the deployer", lambda: again.log)
    assert f"MLflow at {proxy.address} did not do what was asked" in again.log


def test_a_registry_that_falls_silent_changes_nothing_and_is_followed_again(
    remote: Tracking, stages: Stages, serve: Serve, proxy: RegistryProxy
) -> None:
    add_champion(remote, stages, "silenced", "first")
    add_release(remote, stages, "silenced", "second", answer_otherwise)
    system = serve(proxy.address, MLFLOW_HTTP_REQUEST_TIMEOUT="2")
    soon(lambda: system.version("silenced") == "1", lambda: system.log)
    _, first = system.ask("silenced")
    with asking(system, "silenced", clients=1) as answered:
        proxy.mode = "silent"
        soon(lambda: system.registry_problem() == "the registry does not answer the deployer", lambda: system.log)
        assert set(answered) == {(200, first)}
        remote.set_alias("silenced", CHAMPION, "2")
        proxy.mode = "well"
        soon(lambda: system.version("silenced") == "2", lambda: system.log)
        soon(lambda: system.registry_problem() == "", lambda: system.log)
    assert {status for status, _ in answered} == {200}
    assert system.log.count("did not do what was asked") == 1


def test_a_download_that_is_cut_off_is_told_and_healed(remote: Tracking, stages: Stages, serve: Serve, proxy: RegistryProxy) -> None:
    add_champion(remote, stages, "cut", "first")
    system = serve(proxy.address)
    soon(lambda: system.version("cut") == "1", lambda: system.log)
    proxy.mode = "cut"
    add_champion(remote, stages, "cut", "second")
    soon(lambda: system.problem("cut") != "", lambda: system.log)
    assert system.problem("cut") == "version 2 cannot be brought here: the registry did not hand it out"
    assert (system.version("cut"), pointed_at(system.served / "cut")) == ("1", "1")
    proxy.mode = "well"
    soon(lambda: system.version("cut") == "2", lambda: system.log)
    soon(lambda: system.problem("cut") == "", lambda: system.log)
    assert system.log.count("cut version 2 is not served") == 1


def begin(registry: str, served: Path, *options: str, **changes: str) -> "subprocess.Popen[Any]":
    command = [sys.executable, "-m", "tasks.deploy", "--served", str(served), "--until", "sigterm", *options]
    return subprocess.Popen(command, env=environment(registry, **changes), stdin=subprocess.DEVNULL)


@contextmanager
def deployer(registry: str, served: Path, *options: str, **changes: str) -> Iterator["subprocess.Popen[Any]"]:
    process = begin(registry, served, *options, **changes)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("wanted", ["2", "1"])
def test_a_deployer_that_is_killed_while_it_fetches_leaves_nothing_half(
    wanted: str, remote: Tracking, stages: Stages, proxy: RegistryProxy, tmp_path: Path
) -> None:
    name, served = f"killed-{wanted}", tmp_path / "served"
    add_champion(remote, stages, name, "first")
    with deployer(proxy.address, served):
        soon(lambda: pointed_at(served / name) == "1")
    add_champion(remote, stages, name, "second")
    proxy.mode = "silent about files"
    with deployer(proxy.address, served) as process:
        assert proxy.silenced.wait(120)
        process.kill()
        process.wait()
    assert (served / name / ".2.partial").is_dir()
    assert pointed_at(served / name) == "1"
    proxy.mode = "well"
    remote.set_alias(name, CHAMPION, wanted)
    with deployer(proxy.address, served):
        soon(lambda: pointed_at(served / name) == wanted and not list(served.glob("*/.*.partial")))
    Bundle.open(served / name / wanted)


def test_an_event_of_mlflows_makes_the_deployer_look(remote: Tracking, stages: Stages, mlflow_address: str, tmp_path: Path) -> None:
    served, port = tmp_path / "served", free_port()
    add_champion(remote, stages, "hooked", "first")
    add_release(remote, stages, "hooked", "second")
    webhook = remote.client.create_webhook(
        "deployer", f"http://127.0.0.1:{port}/", ["model_version_alias.created", "model_version_alias.deleted"], secret="hush"
    )
    options = ("--seconds", "3600", "--webhook", f"127.0.0.1:{port}")
    try:
        with deployer(mlflow_address, served, *options, MAASFLOW_WEBHOOK_SECRET="hush"):
            soon(lambda: pointed_at(served / "hooked") == "1")
            move(mlflow_address, "hooked", "2")
            soon(lambda: pointed_at(served / "hooked") == "2")
            remote.drop_alias("hooked", CHAMPION)
            soon(lambda: pointed_at(served / "hooked") is None)
    finally:
        remote.client.delete_webhook(webhook.webhook_id)


def test_a_webhook_without_a_secret_is_refused(mlflow_address: str, tmp_path: Path) -> None:
    with deployer(mlflow_address, tmp_path / "served", "--webhook", "127.0.0.1:0", MAASFLOW_WEBHOOK_SECRET="") as process:
        assert process.wait(60) == 1
