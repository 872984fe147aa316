"""What the server keeps of requests and answers."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deploy.serving.metrics import Metrics
from deploy.serving.payloads import Payloads
from tasks.core.bundle import Bundle
from tests.serving.conftest import TABLE, Running, Served, Start

ROWS = [{"age": 40 + row, "height": 1.7, "color": "blue"} for row in range(5)]


def serve_keeping(served: Served, start: Start, folder: Path, rule: dict[str, Any]) -> Running:
    bundle = Bundle.open(served.add("people", "7", TABLE))
    Bundle(bundle.folder, bundle.manifest.replace(recipe={"serving": {"payloads": rule}})).write()
    served.point("people", "7")
    return start("--payloads", str(folder))


def ask(running: Running, identity: str) -> list[dict[str, Any]]:
    reply = running.client.post("/v1/models/people/predict", json={"instances": ROWS}, headers={"X-Request-Id": identity})
    assert reply.status_code == 200
    found: list[dict[str, Any]] = reply.json()["predictions"]
    return found


def kept(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in sorted((folder / "people").glob("*.parquet"))], ignore_index=True)


def test_what_was_asked_and_answered_is_kept_under_the_request_s_id(served: Served, start: Start, tmp_path: Path) -> None:
    running = serve_keeping(served, start, tmp_path / "payloads", {"sample": 1.0, "redact": ["height"]})
    predictions = ask(running, "first")
    ask(running, "second")
    assert running.stop() == 0
    rows = kept(tmp_path / "payloads")
    assert rows["request_id"].tolist() == ["first"] * 5 + ["second"] * 5
    assert rows["index"].tolist() == [*range(5), *range(5)]
    assert [json.loads(each) for each in rows["input"][:5]] == [{"age": row["age"], "color": "blue"} for row in ROWS]
    assert rows["label"][:5].tolist() == [each["label"] for each in predictions]
    assert rows["probability"][0] == pytest.approx(predictions[0]["probabilities"][predictions[0]["label"]])
    assert set(rows["version"]) == {"7"}
    assert str(rows["time"].dt.tz) == "UTC"


def test_nothing_is_kept_unless_the_recipe_says_so(served: Served, start: Start, tmp_path: Path) -> None:
    running = serve_keeping(served, start, tmp_path / "payloads", {})
    ask(running, "first")
    assert running.stop() == 0
    assert not (tmp_path / "payloads").exists()


def test_what_cannot_be_written_is_lost_and_counted_and_answers_go_on(served: Served, start: Start, tmp_path: Path) -> None:
    (tmp_path / "payloads").write_text("this is no folder")
    running = serve_keeping(served, start, tmp_path / "payloads", {"sample": 1.0})
    ask(running, "first")
    assert running.stop() == 0
    log = (tmp_path / "server.log").read_text()
    assert "people: 5 rows of the payload log are lost" in log
    assert "Traceback" not in log


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    payloads = Payloads(tmp_path, most_bytes=5000, metrics=Metrics())
    row = {"request_id": "a", "index": 0, "label": "high"}
    for number in range(6):
        payloads._write_file(tmp_path / "people", [row | {"input": f"{number}" * 10}] * 3)
    files = sorted(tmp_path.glob("people/*.parquet"))
    assert sum(file.stat().st_size for file in files) <= 5000
    assert pd.read_parquet(files[-1])["input"][0] == "5" * 10
    assert not list(tmp_path.glob("people/*.partial"))
