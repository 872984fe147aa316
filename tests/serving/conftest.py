"""Tiny real bundles, and a real server over them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.core.bundle import Bundle, DatasetVersion, Lineage, Manifest, describe_variant
from tasks.core.dataset import Column
from tasks.core.served import PointedChallenger, pointer_text
from tasks.core.stages import write_text
from tasks.core.traffic import Traffic
from tasks.core.transforms import CategoryColumn, ImageTransform, NumberColumn, TableTransform, TensorSpec, Transform
from tests.texts import write_classifier, write_language_model

IMAGE = ImageTransform(column="image", mode="L", size=(4, 4), mean=0.0, std=1.0)
TABLE = TableTransform(
    numbers=(
        NumberColumn(column="age", mean=40.0, std=10.0, nullable=False),
        NumberColumn(column="height", mean=1.7, std=0.1, nullable=True),
    ),
    categories=(CategoryColumn(column="color", values=("blue", "it's red"), nullable=False),),
)


def write_onnx(path: Path, transform: Transform, slope: float, classes: int = 2) -> None:
    """logits = slope × [sum(x) − 0.5, 0.5 − sum(x)], the latter for every class but the first."""
    (spec,) = transform.inputs
    slopes = np.array([slope] + [-slope] * (classes - 1), np.float32)
    weight = np.tile(slopes, (int(np.prod(spec.shape)), 1))
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *spec.shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(-slopes / 2, "bias")],
    )
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@dataclass(frozen=True)
class Served:
    """A folder as the deployer leaves it."""

    folder: Path

    def add(
        self, name: str, version: str, transform: Transform = TABLE, slope: float = 1.0, labels: tuple[str, ...] = ("high", "low")
    ) -> Path:
        """A bundle, and no pointer to it yet."""
        folder = self.folder / name / version
        write_onnx(folder / "variants" / "fp32.onnx", transform, slope, len(labels))
        manifest = Manifest(
            name=name,
            description="A tiny model for tests.",
            columns={"image": Column(type="image")} if transform is IMAGE else {"age": Column(type="number")},
            inputs=transform.inputs,
            outputs=(TensorSpec(name="logits", dtype="FP32", shape=(len(labels),)),),
            labels=labels,
            transform=transform,
            variants=(describe_variant(folder, "fp32"),),
            chosen="fp32",
            threads=1,
            parity=0.0,
            recipe={},
            lineage=Lineage(dataset=DatasetVersion(name="tiny", raw="0", digest="0", rows={})),
        )
        Bundle(folder, manifest).write()
        return folder

    def point(self, name: str, version: str, challenger: str | None = None, traffic: str = "none") -> None:
        """`traffic` in words, as in `canary 10%`."""
        beside = PointedChallenger(version=challenger, **Traffic.read(traffic).model_dump()) if challenger else None
        write_text(self.folder / name / "current.json", pointer_text(version, beside))

    def serve(self, name: str, version: str, transform: Transform = TABLE, slope: float = 1.0) -> None:
        self.add(name, version, transform, slope)
        self.point(name, version)


@dataclass(frozen=True)
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    line: str
    """What it printed when it was ready."""
    client: httpx.Client

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.process.wait(10)


Start = Callable[..., Running]


def start_server(folder: Path, log: Path, *options: str, python: tuple[str, ...] = ("-m", "deploy.serving")) -> Running:
    command = [sys.executable, *python, "--served", str(folder), "--port", "0", "--watch", "0.05", "--drain", "0", *options]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    assert process.stdout
    line = process.stdout.readline()
    assert "://" in line, log.read_text()
    address = next(word for word in line.replace(",", " ").split() if "://" in word)
    return Running(process, line, httpx.Client(base_url=address, timeout=10, trust_env=False))


def end(running: Running) -> None:
    running.client.close()
    running.process.kill()
    running.process.wait()
    if running.process.stdout:
        running.process.stdout.close()


def until(running: Running, name: str, reached: Callable[[httpx.Response], bool]) -> dict[str, Any]:
    """What the server says of a model, once that is so."""
    deadline = time.monotonic() + 20
    while not reached(reply := running.client.get(f"/v2/models/{name}")):
        assert time.monotonic() < deadline, reply.text
        time.sleep(0.02)
    found: dict[str, Any] = reply.json()
    return found


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path / "served")


@pytest.fixture
def start(served: Served, tmp_path: Path) -> Iterator[Start]:
    """Starts a server over `served`; its log is `server.log`."""
    started: list[Running] = []

    def begin(*options: str, python: tuple[str, ...] = ("-m", "deploy.serving")) -> Running:
        started.append(start_server(served.folder, tmp_path / "server.log", *options, python=python))
        return started[-1]

    yield begin
    for running in started:
        end(running)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of one server that tests share: an image model `marks`, a table model `people`, the text models `moods` and
    `writer`, a broken one, small limits.
    """
    root = tmp_path_factory.mktemp("serving")
    served = Served(root / "served")
    served.serve("marks", "1", IMAGE)
    served.serve("people", "3")
    write_classifier(served.folder / "moods" / "1")
    served.point("moods", "1")
    write_language_model(served.folder / "writer" / "2")
    served.point("writer", "2")
    (served.add("broken", "1") / "variants" / "fp32.onnx").unlink()
    served.point("broken", "1")
    running = start_server(served.folder, root / "server.log", "--max-body-bytes", "20000", "--max-rows", "8", "--max-tokens", "500")
    yield running.client
    end(running)
