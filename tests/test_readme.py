"""The README: its blocks run, and it leaves out no command and no setting."""

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from flows.cli import cli
from tests.conftest import REPOSITORY
from tests.flows.conftest import environment, maasflow

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
EXAMPLE = re.compile(r"^\| `([a-z0-9-]+)` \|.*\| `(\{.*\})` \|$", re.MULTILINE)
"""A line of the table of recipes: the name first, the body that its server answers last."""
INTERNAL = {"MAASFLOW_FAILURE_FILE"}


def recipe_examples() -> dict[str, dict[str, Any]]:
    """The bodies in the table of recipes, by recipe."""
    return {name: json.loads(body) for name, body in EXAMPLE.findall(README)}


def test_make_knows_the_first_commands() -> None:
    assert SHELL[0] == "make demo\nmake test\n"
    subprocess.run(["make", "-n", "demo", "test"], cwd=REPOSITORY, check=True, capture_output=True)


def test_every_command_is_named() -> None:
    for name, command in cli.commands.items():
        names = [f"{name} {inner}" for inner in command.commands] if isinstance(command, click.Group) else [name]
        assert all(f"maasflow {each}" in README for each in names)


def test_every_option_is_named() -> None:
    commands = [cli, *cli.commands.values()]
    options = {name for command in commands for option in command.params for name in option.opts if name.startswith("--")}
    assert options - {"--version"} <= set(re.findall(r"--[a-z-]+", README))


def test_every_setting_is_named() -> None:
    sources = [path.read_text() for folder in ("flows", "tasks", "deploy") for path in (REPOSITORY / folder).rglob("*.py")]
    named = {name for source in sources for name in re.findall(r"MAASFLOW_[A-Z_]+", source)} - INTERNAL
    assert named <= set(re.findall(r"`(MAASFLOW_[A-Z_]+)`", README))


@pytest.fixture(scope="module")
def passengers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the README's files and a table for them."""
    folder = tmp_path_factory.mktemp("readme")
    assert maasflow(folder, "init", ".").code == 0
    for language, text in BLOCKS:
        if language == "yaml":
            path = folder / text.splitlines()[0].removeprefix("# ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    rows = [f"{18 + row / 7:.2f},{7 + row % 90 + row / 1000:.3f},{'SCQ'[row % 3]},{int(row % 90 > 45)}" for row in range(600)]
    (folder / "passengers.csv").write_text("\n".join(["age,fare,port,survived", *rows]) + "\n")
    return folder


def shell(folder: Path, text: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-euc", text], cwd=folder, env=environment(PATH=path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def answer_alone(passengers: Path) -> str:
    """What the block that runs and predicts prints last."""
    (block,) = [text for text in SHELL if "maasflow run passengers" in text]
    return shell(passengers, block).splitlines()[-1]


@pytest.fixture
def served(passengers: Path, answer_alone: str) -> Iterator[str]:
    """The curl block, while the block that serves runs; on any free port, because 8000 may be taken."""
    (serve,) = [text for text in SHELL if "maasflow serve" in text]
    (curl,) = [text for text in SHELL if "curl" in text and "passengers/predict" in text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euc", "exec " + serve.replace("--port 8000", "--port 0")]
    with subprocess.Popen(command, cwd=passengers, env=environment(PATH=path), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        try:
            assert address, answer_alone
            yield curl.replace("localhost:8000", address[0])
        finally:
            server.send_signal(signal.SIGTERM)


@pytest.mark.slow
def test_ones_own_csv_is_answered_over_http_as_alone(passengers: Path, answer_alone: str, served: str) -> None:
    (prediction,) = json.loads(shell(passengers, served))["predictions"]
    assert prediction == json.loads(answer_alone)


@pytest.mark.slow
def test_mlflows_client_is_answered_as_alone(passengers: Path, answer_alone: str, served: str) -> None:
    (block,) = [text for language, text in BLOCKS if language == "python" and "mlflow" in text]
    address = re.search(r"http://[0-9.:]+", served)
    assert address
    script = shlex.quote(block.replace("http://localhost:8000", address[0]))
    assert ast.literal_eval(shell(passengers, f"python -c {script}").splitlines()[-1]) == {
        "predictions": [json.loads(answer_alone)["label"]]
    }
