"""`maasflow demo`: the whole way in one command, and an answer over HTTP at its end."""

import base64
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.predict import predict_file
from flows.run import run_recipe
from tasks.core.errors import MaasflowError
from tasks.core.splits import TARGET, Split
from tasks.core.workspace import Workspace

_RECIPE = "digits-mlp"


def run_demo() -> None:
    """Run the recipe, serve what it released, and ask the server about one image that training never saw."""
    summary = run_recipe(_RECIPE)
    print("\n" + summary.text() + "\n")
    workspace = Workspace.current()
    recipe = workspace.recipe(_RECIPE)
    dataset = workspace.dataset(recipe.dataset)
    test = Split.open(workspace.prepared(recipe.dataset), "test")
    row = test.columns(["image", TARGET], len(test) // 2, len(test) // 2 + 1)
    image, truth = row["image"][0], dataset.class_names[row[TARGET][0]]
    with served() as address:
        print(f"POST {address}/v1/models/{summary.name}/predict")
        answer = post(f"{address}/v1/models/{summary.name}/predict", {"instances": [base64.b64encode(image).decode()]})
        (predicted,) = answer["predictions"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.png"
        file.write_bytes(image)
        (alone,) = (json.loads(line) for line in predict_file(summary.name, file))
    label = predicted["label"]
    print(f"answer over HTTP   {label}  (probability {predicted['probabilities'][label]:.3f}, version {answer['version']})")
    print(f"maasflow predict   {alone['label']}  (probability {alone['probabilities'][alone['label']]:.3f})")
    print(f"true label         {truth}")
    if alone != predicted:
        raise MaasflowError("the server and `maasflow predict` disagree", "this is a defect of maasflow: please report it")


@contextmanager
def served() -> Iterator[str]:
    """The address of a server on this workspace's champions, running for the block."""
    server = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "serve", "--port", "0", "--no-follow"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout
        line = server.stdout.readline()
        address = re.search(r"http://\S+?(?=[\s,]|$)", line)
        if address is None or "ready" not in line or "not ready" in line:
            raise MaasflowError(f"the server did not start: {line.strip() or 'it said nothing'}", "run maasflow serve to see why")
        yield address[0]
    finally:
        server.terminate()
        server.communicate()


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)
