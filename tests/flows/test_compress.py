"""`maasflow compress`: another budget for a release that is there."""

import json
import re
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from tests.flows.conftest import maasflow

pytestmark = pytest.mark.slow

WIDER = "compression.compressors=[{kind: graph}, [{kind: prune, neurons: 0.75, epochs: 1}, {kind: int8_weights, smallest: 64}]]"


@pytest.fixture(scope="module")
def again(own_release: Path) -> str:
    """Where no stage of the training is left, as on another machine with the same registry."""
    assert maasflow(own_release, "clean").code == 0
    done = maasflow(own_release, "compress", "small", "--set", WIDER, "--set", "compression.limits.metric_drop=0.9", "--set", "gates=[]")
    assert done.code == 0, done.err
    return done.out


def test_it_registers_a_challenger_that_names_its_parent_and_says_why(again: str, own_release: Path) -> None:
    assert "(challenger), from small version 1" in again
    assert "→  prune.int8_weights" in again
    assert "chosen   prune.int8_weights, the best by size within the limits" in again
    client = MlflowClient(f"sqlite:///{own_release / 'mlruns' / 'mlflow.db'}")
    version = client.get_model_version_by_alias("small", "challenger")
    assert version.tags["parent"] == "small version 1"
    assert client.get_model_version_by_alias("small", "champion").tags["variant"] != "prune.int8_weights"
    store = f"sqlite:///{own_release / 'mlruns' / 'mlflow.db'}"
    file = download_artifacts(run_id=version.run_id, artifact_path="bundle/bundle.json", tracking_uri=store)
    manifest = json.loads(Path(file).read_text())
    assert manifest["lineage"]["parent"] == "small version 1"
    assert [variant["name"] for variant in manifest["variants"]] == ["fp32", "graph", "prune.int8_weights"]
    assert {path.path for path in client.list_artifacts(str(version.run_id), "compression")} >= {
        "compression/pareto.html",
        "compression/pareto.png",
        "compression/candidates.txt",
        "compression/candidates.csv",
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["small", "--set", "training.epochs=9"], "'training' decides what is trained, and this model is trained already"),
        (["small@99"], "the registry has no version 99 of a model 'small'"),
        (["small@blessed"], "no version of 'small' is blessed"),
        (["large"], "no version of 'large' is champion"),
        (["small", "--set", "compression.compressors=[{kind: int9}]"], "unknown compressor 'int9'"),
    ],
)
def test_what_cannot_be_is_told_in_a_line_and_registers_nothing(arguments: list[str], told: str, own_release: Path) -> None:
    client = MlflowClient(f"sqlite:///{own_release / 'mlruns' / 'mlflow.db'}")
    before = len(client.search_model_versions("name='small'"))
    done = maasflow(own_release, "compress", *arguments)
    assert done.code == 1
    assert told in done.err
    assert "Traceback" not in done.err
    assert len(client.search_model_versions("name='small'")) == before


@pytest.mark.parametrize("command", ["run", "compress"])
def test_where_nothing_is_within_the_limits_all_that_was_found_is_printed_and_kept(command: str, own_release: Path) -> None:
    client = MlflowClient(f"sqlite:///{own_release / 'mlruns' / 'mlflow.db'}")
    before = len(client.search_model_versions("name='small'"))
    done = maasflow(own_release, command, "small", "--set", "compression.limits.size_ratio=0.001")
    assert done.code == 1
    assert "error: infeasible; the nearest is " in done.err
    assert "size beside fp32 1 is over 0.001" in done.err
    page = re.search(r"^all of them in a picture: (.+/pareto\.html)$", done.err, re.MULTILINE)
    assert page, done.err
    assert "nothing is within the limits" in Path(page[1]).read_text()
    assert client.get_run(Path(page[1]).parents[2].name).info.status == "FAILED"
    assert len(client.search_model_versions("name='small'")) == before


def test_the_table_is_in_prefects_run(again: str, own_release: Path) -> None:
    with sqlite3.connect(own_release / ".maasflow" / "prefect" / "prefect.db") as store:
        (table,) = store.execute("select data from artifact where key = 'small-variants' order by created desc limit 1").fetchone()
    assert "| variant | kB |" in json.loads(table)
    assert "prune.int8_weights" in again
