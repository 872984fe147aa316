"""MLflow's scoring protocol, asked by MLflow's own clients."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from PIL import Image

from tasks.core.api_keys import create_key
from tests.serving.conftest import Served, Start, end, start_server

ROW: dict[str, Any] = {"age": 40, "height": 1.7, "color": "blue"}
TABLE = pd.DataFrame([ROW, {**ROW, "age": 10}, {**ROW, "height": None}])
CSV = {"Content-Type": "text/csv"}


def address(client: httpx.Client) -> tuple[str, int]:
    assert client.base_url.port
    return client.base_url.host, client.base_url.port


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server of one model."""
    root = tmp_path_factory.mktemp("alone")
    served = Served(root / "served")
    served.serve("people", "3")
    running = start_server(served.folder, root / "server.log")
    yield running.client
    end(running)


@pytest.fixture
def scoring(alone: httpx.Client) -> Any:
    return ScoringServerClient(*address(alone))  # type: ignore[no-untyped-call]


@pytest.fixture
def deployments(client: httpx.Client) -> Any:
    return get_deploy_client(str(client.base_url))  # type: ignore[no-untyped-call]


def png(value: int = 255) -> str:
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def invoke(client: httpx.Client, model: str, body: Any) -> httpx.Response:
    return client.post(f"/invocations/{model}", json=body)


def test_mlflows_scoring_client_waits_and_asks_the_only_model(scoring: Any) -> None:
    scoring.wait_server_ready(timeout=5)
    assert scoring.get_version()
    assert scoring.invoke(TABLE)["predictions"] == ["high", "low", "high"]
    assert scoring.invoke(TABLE).get_predictions()[0].tolist() == ["high", "low", "high"]


def test_mlflows_scoring_client_gets_probabilities(scoring: Any) -> None:
    found = scoring.invoke(TABLE, params={"probabilities": True}).get_predictions()
    assert found["label"].tolist() == ["high", "low", "high"]
    assert found["probabilities"][0]["high"] == pytest.approx(0.7310585786, abs=1e-6)


def test_a_missing_number_is_a_gap_as_in_predict(alone: httpx.Client, scoring: Any) -> None:
    """Python's clients write NaN, which is not in JSON."""
    frame = pd.DataFrame({"age": [40.0], "height": [float("nan")], "color": ["blue"]})
    (found,) = scoring.invoke(frame, params={"probabilities": True})["predictions"]
    assert [found] == alone.post("/v1/models/people/predict", json={"instances": [{**ROW, "height": None}]}).json()["predictions"]


def test_mlflows_scoring_client_shows_what_is_wrong(scoring: Any) -> None:
    with pytest.raises(Exception, match=r"error code 400, response: .*1 missing \('color'\), 1 unknown \('colour'\)"):
        scoring.invoke(TABLE.rename(columns={"color": "colour"}))


def test_mlflows_deployment_client_asks_one_of_many(deployments: Any) -> None:
    rows = {"dataframe_records": [ROW, {**ROW, "age": 10}]}
    assert deployments.predict(endpoint="people", inputs=rows) == {"predictions": ["high", "low"]}
    assert deployments.predict(endpoint="moods", inputs={"instances": ["a good day"]}) == {"predictions": ["good"]}
    with pytest.raises(Exception, match="there is no model 'peopel'"):
        deployments.predict(endpoint="peopel", inputs=rows)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["color", "age", "height"], "data": [["blue", 40, 1.7], ["blue", 10, 1.7]]}},
        {"dataframe_split": {"index": [7, 8], "columns": ["color", "age"], "data": [["blue", 40], ["blue", 10]]}},
        {"dataframe_records": [ROW, {**ROW, "age": 10}]},
        {"instances": [ROW, {**ROW, "age": 10}], "params": None},
        {"inputs": [ROW, {**ROW, "age": 10}], "params": {}},
        {"inputs": {"age": [40, 10], "color": ["blue", "blue"], "height": [1.7, None]}},
    ],
)
def test_a_table_in_every_form(client: httpx.Client, body: Any) -> None:
    assert invoke(client, "people", body).json() == {"predictions": ["high", "low"]}


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_images_and_texts_in_every_form(client: httpx.Client, key: str) -> None:
    pixels = np.full((4, 4), 255).tolist()
    images: list[list[Any]] = [[png(), pixels], [{"picture": png()}, {"picture": pixels}]]
    texts: list[list[Any]] = [["good", "bad"], [["good"], ["bad"]], [{"review": "good"}, {"review": "bad"}]]
    for values in images:
        assert invoke(client, "marks", {key: values}).json() == {"predictions": ["high", "high"]}
    for values in texts:
        assert invoke(client, "moods", {key: values}).json() == {"predictions": ["good", "bad"]}


@pytest.mark.parametrize("column", ["text", "review", 0])
def test_the_one_column_of_a_text_may_have_any_name(client: httpx.Client, column: str | int) -> None:
    split = {"columns": [column], "data": [["a good day"], ["a bad day"]]}
    assert invoke(client, "moods", {"dataframe_split": split}).json() == {"predictions": ["good", "bad"]}


def test_a_language_model_continues(client: httpx.Client) -> None:
    params = {"max_tokens": 5, "temperature": 0}
    whole = client.post("/v1/models/writer/generate", json={"prompt": "a", **params}).json()["text"]
    reply = invoke(client, "writer", {"dataframe_split": {"columns": ["prompt"], "data": [["a"], ["a"]]}, "params": params})
    assert reply.json() == {"predictions": [whole, whole]}
    assert invoke(client, "writer", {"inputs": ["a"], "params": {"probabilities": True}}).status_code == 400
    assert invoke(client, "writer", {"inputs": ["a", 7]}).json() == {"error": "item 1: expected a text, found int"}


def test_csv(client: httpx.Client) -> None:
    body = TABLE.to_csv(index=False)
    assert client.post("/invocations/people", content=body, headers=CSV).json() == {"predictions": ["high", "low", "high"]}
    quoted = 'color,age\n"blue",40\r\n\n"it\'s red",10'.encode("utf-8-sig")
    assert client.post("/invocations/people", content=quoted, headers=CSV).json() == {"predictions": ["high", "low"]}
    texts = pd.DataFrame({"review": ["good, good", "bad\nbad"]}).to_csv(index=False)
    assert client.post("/invocations/moods", content=texts, headers=CSV).json() == {"predictions": ["good", "bad"]}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "the CSV is empty"),
        (b"age,height,color\n", 400, "at least one"),
        (b"age,height\n40,1.7\n", 400, "1 missing ('color')"),
        (b",age,color\n0,40,blue\n", 400, "1 unknown ('')"),
        (b"age,age,color\n40,40,blue\n", 400, "'age' twice"),
        (b"age,color\n40\n", 400, "line 2 of the CSV has 1 cells, its header 2"),
        (b'age,color\n40,"blue\n', 400, "line 2 of the CSV cannot be read"),
        ("age,color\n40,grün\n".encode("latin-1"), 400, "not UTF-8 (byte 15)"),
        (b"age,color\nold,blue\n", 422, "item 0: 'age' is 'old', expected a number"),
        (b"age,color\n,blue\n", 422, "item 0: 'age' is missing"),
        (b"age,color\n" + b"9" * 400 + b",blue\n", 422, "item 0"),
        (b"age,color\n" + b"40,blue\n" * 9, 413, "more than 8 rows"),
    ],
)
def test_a_wrong_csv_is_refused(client: httpx.Client, body: bytes, status: int, says: str) -> None:
    reply = client.post("/invocations/people", content=body, headers=CSV)
    assert (reply.status_code, says in reply.json()["error"]) == (status, True), reply.text


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{}", 400, "exactly one of dataframe_split, dataframe_records, instances, inputs is expected, found none"),
        (b'{"inputs": [], "instances": []}', 400, "found instances and inputs"),
        (b'{"inputs": [1], "rows": [1]}', 400, "unknown key 'rows'"),
        (b'{"inputs": 7}', 400, "a list of rows, or an object of columns"),
        (b'{"inputs": []}', 400, "at least one"),
        (b'{"inputs": {}}', 400, "at least one"),
        (b'{"inputs": {"age": 7}}', 400, "each column of 'inputs' is a list"),
        (b'{"inputs": {"age": [7], "color": []}}', 400, "differ in length: 0, 1"),
        (b'{"inputs": {"age": [7], "weight": [7]}}', 400, "1 missing ('color'), 1 unknown ('weight')"),
        (b'{"inputs": [[40, 1.7, "blue"]]}', 422, "expected an object with the keys age, height, color"),
        (b'{"dataframe_records": [[40]]}', 400, "an object by column"),
        (b'{"dataframe_split": {"columns": ["age"]}}', 400, "with the lists 'columns' and 'data'"),
        (b'{"dataframe_split": {"columns": ["age", "age"], "data": []}}', 400, "there once"),
        (b'{"dataframe_split": {"columns": ["age"], "data": [[1], [1, 2]]}}', 400, "row 1 of 'data' is not a list of 1"),
        (b'{"inputs": [1], "params": []}', 400, "'params' is an object"),
        (b'{"inputs": [{"age": 1, "color": "blue"}], "params": {"top": 1}}', 400, "unknown key 'top'; known: probabilities"),
        (b'{"inputs": [{"age": 1, "color": "blue"}], "params": {"probabilities": 1}}', 400, "true or false"),
        (b'{"inputs": [{"age": NaN, "color": "blue"}]}', 422, "'age' is missing"),
        (b'{"inputs": [{"age": Infinity, "color": "blue"}]}', 400, "not JSON"),
        (b'{"inputs": [{"age": 1, "height": NaN, "color": "\\ud800"}]}', 400, "not JSON"),
        (b'{"inputs": [NaN, ' + b"[" * 9000 + b"]" * 9000 + b"]}", 400, "not JSON"),
        (b'{"inputs": [{"age": 1, "color": "blue"}, {"age": ' + b"9" * 70 + b', "color": "blue"}]}', 422, "item 1"),
        (b'{"inputs": [{"age": ' + b"9" * 5000 + b', "color": "blue"}]}', 400, "not JSON"),
        (b'{"inputs": [{"age": ' + b"9" * 5000 + b', "height": NaN, "color": "blue"}]}', 400, "not JSON"),
        (b'{"inputs": [' + b"1, " * 8 + b"1]}", 413, "9 instances"),
        (b"[1]", 400, "expected a JSON object, found a list"),
        (b"\xff", 400, "not JSON"),
    ],
)
def test_a_wrong_body_is_refused(client: httpx.Client, body: bytes, status: int, says: str) -> None:
    reply = client.post("/invocations/people", content=body)
    assert (reply.status_code, says in reply.json()["error"]) == (status, True), reply.text


def test_a_text_has_one_column(client: httpx.Client) -> None:
    body = {"dataframe_records": [{"text": "good", "stars": 5}]}
    assert "1 unknown ('stars'); it takes 'text'" in invoke(client, "moods", body).json()["error"]
    assert invoke(client, "moods", {"dataframe_records": [{"text": "good"}, {}]}).json()["error"].startswith("item 1: expected a text")


def test_other_types_are_refused(client: httpx.Client) -> None:
    for kind in ("application/vnd.apache.parquet", "text/plain", "text/csv; charset=latin-1"):
        assert client.post("/invocations/people", content=b"PAR1", headers={"Content-Type": kind}).status_code == 415


def test_without_a_name_several_models_are_named(client: httpx.Client) -> None:
    reply = client.post("/invocations", json={"inputs": [ROW]})
    assert reply.status_code == 400
    assert reply.json() == {"error": "several models are served: ask /invocations/NAME for one of broken, marks, moods, people, writer"}


def test_without_a_name_a_key_for_one_model_asks_that(
    start: Start, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("people", "others"):
        served.serve(name, "1")
    keys = tmp_path / "state" / "keys.json"
    _, secret = create_key(keys, "billing", models=("people",))
    client = start("--keys", str(keys)).client
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/ping").status_code == 200
    assert client.post("/invocations", json={"inputs": [ROW]}).status_code == 401
    assert client.post("/invocations", json={"inputs": [ROW]}, headers=headers).json() == {"predictions": ["high"]}
    assert client.post("/invocations/others", json={"inputs": [ROW]}, headers=headers).status_code == 403
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", secret)
    found = get_deploy_client(str(client.base_url)).predict(endpoint="people", inputs={"inputs": [ROW]})  # type: ignore[no-untyped-call]
    assert found == {"predictions": ["high"]}


def test_with_no_model_it_is_not_ready(start: Start, served: Served, tmp_path: Path) -> None:
    client = start().client
    for path in ("/ping", "/health"):
        assert client.get(path).status_code == 503
    assert client.post("/invocations", json={"inputs": [ROW]}).status_code in (404, 503)


def test_a_page_of_another_site_may_not_send_csv(client: httpx.Client) -> None:
    headers = {**CSV, "Origin": "https://elsewhere.example"}
    assert client.post("/invocations/people", content=b"age,color\n40,blue\n", headers=headers).status_code == 403
