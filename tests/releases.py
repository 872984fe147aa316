"""Releases of the small problem in a real MLflow store, and real and unreal servers over one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import onnx

from tasks.core.bundle import Bundle, describe_variant
from tasks.core.machine import Machine
from tasks.export import BUNDLE
from tasks.tracking import BUNDLE_PATH, CHAMPION, Release, Tracking
from tests.tiny import Stages

ANOTHER = Machine(system="Linux riscv64", processor="Another Processor", instructions=(), cores=3)


def as_from_elsewhere(folder: Path) -> Bundle:
    """Write into a bundle that its variants were measured on a machine that is not this one."""
    bundle = Bundle.open(folder)
    variants = [
        variant.model_copy(update={"measurements": variant.measurements.model_copy(update={"machine": ANOTHER})})
        for variant in bundle.manifest.variants
        if variant.measurements
    ]
    return Bundle(folder, bundle.manifest.replace(variants=tuple(variants))).write()


def spoil(folder: Path) -> None:
    """Give a bundle's chosen variant, under a right digest, a model whose logits have the other sign: it answers otherwise than it was measured."""
    bundle = Bundle.open(folder)
    chosen = bundle.manifest.variant()
    model = onnx.load(bundle.file())
    for node in model.graph.node:
        node.output[:] = ["spoilt" if name == "logits" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["spoilt"], ["logits"]))
    bundle.file().unlink()
    onnx.save(model, bundle.file())
    spoilt = describe_variant(folder, chosen.name, chosen.measurements, chosen.batch)
    variants = tuple(spoilt if variant.name == chosen.name else variant for variant in bundle.manifest.variants)
    Bundle(folder, bundle.manifest.replace(variants=variants)).write()


def add_release(
    tracking: Tracking, stages: Stages, name: str = "points", key: str = "k", change: Callable[[Path], object] | None = None
) -> Release:
    """A version that holds the stages' bundle, or what `change` made of it, of a run of its own."""
    run = tracking.run(name, name, key)
    with tempfile.TemporaryDirectory() as folder:
        made = Bundle.open(Path(shutil.copytree(stages.folder("compressed") / BUNDLE, f"{folder}/{BUNDLE}")))
        if made.manifest.name != name:
            Bundle(made.folder, made.manifest.replace(name=name)).write()
        if change:
            change(made.folder)
        run.artifacts(made.folder, BUNDLE_PATH)
    run.end()
    return tracking.register(name, run.id, key, {}, "")


def add_champion(
    tracking: Tracking, stages: Stages, name: str = "points", key: str = "k", change: Callable[[Path], object] | None = None
) -> Release:
    release = add_release(tracking, stages, name, key, change)
    tracking.set_alias(name, CHAMPION, release.version)
    return release


def stored(tracking: Tracking, release: Release) -> Path:
    """Where the embedded store keeps the version's bundle."""
    return Path(tracking.client.get_run(release.run).info.artifact_uri) / BUNDLE_PATH


def flip_a_byte(bundle: Path) -> None:
    path = Bundle.open(bundle, verify=False).file()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    # Anew, because other names of the file hold the same bytes.
    path.unlink()
    path.write_bytes(content)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, empty_store: Path) -> Iterator[str]:
    """A real server over a store in the folder; its address."""
    shutil.copyfile(empty_store, folder / "mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    # Its webhooks may come here, unencrypted, and it looks at once whether there are any.
    webhooks = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",
    }
    environment = {**os.environ, **webhooks, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None, (folder / "server.log").read_text()
            try:
                if httpx.get(f"{address}/health", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Broken(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"oops")

    do_POST = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Nothing: the test tells what it finds."""


@contextmanager
def broken_server() -> Iterator[str]:
    """A server that answers everything with 500; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
