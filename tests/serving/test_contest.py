"""A challenger beside its champion: who answers, what is found out, and that no client suffers for it."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.serving import open_inference_pb2 as pb
from tasks.core.bundle import Bundle, describe_variant
from tasks.core.comparison import Comparison, read_comparison
from tasks.core.transforms import NumberColumn, TableTransform
from tests.serving.conftest import IMAGE, Running, Served, Start
from tests.serving.test_grpc import Stub
from tests.serving.test_server import wait_until
from tests.texts import write_language_model

ROW = {"age": 40, "height": 1.7, "color": "blue"}
PREDICT = "/v1/models/people/predict"
INFER = "/v2/models/people/infer"
TENSORS = {"inputs": [{"name": "x", "shape": [1, 6], "datatype": "FP32", "data": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]}]}
LABELS = {"3": "high", "4": "low"}
"""What the versions say of the row; 4 is 3 with the other sign."""


def predict(running: Running, key: str | None = None, path: str = PREDICT, rows: int = 1, **row: Any) -> httpx.Response:
    headers = {} if key is None else {"X-Sticky-Key": key}
    return running.client.post(path, json={"instances": [ROW | row] * rows}, headers=headers)


def answered(running: Running, key: str | None = None) -> str:
    """The version that answered, which is what it says of the row too."""
    reply = predict(running, key).json()
    assert [each["label"] for each in reply["predictions"]] == [LABELS[reply["version"]]]
    version: str = reply["version"]
    return version


def challenger(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = running.client.get("/v1/models").json()["models"][0].get("challenger", {})
    return found


def serve_both(served: Served, traffic: str, slope: float = -1.0) -> None:
    served.add("people", "3")
    served.add("people", "4", slope=slope)
    served.point("people", "3", "4", traffic)


def start_both(start: Start, *options: str) -> Running:
    running = start(*options)
    wait_until(lambda: bool(challenger(running)))
    return running


def rewrite(folder: Path, model: onnx.ModelProto) -> None:
    """Another model for a bundle, under a right digest."""
    (folder / "variants" / "fp32.onnx").unlink()
    onnx.save(model, folder / "variants" / "fp32.onnx")
    bundle = Bundle.open(folder, verify=False)
    Bundle(folder, bundle.manifest.replace(variants=(describe_variant(folder, "fp32"),))).write()


def fail_at_140_years(folder: Path) -> None:
    """Have a bundle's model load and run, and fail for a row whose first input is 10: it looks into a table for it."""
    model = onnx.load(folder / "variants" / "fp32.onnx")
    added = [
        helper.make_node("Gather", ["x", "first"], ["years"], axis=1),
        helper.make_node("Cast", ["years"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["nothing"]),
        helper.make_node("Add", ["answer", "nothing"], ["logits"]),
    ]
    model.graph.node[-1].output[0] = "answer"
    model.graph.node.extend(added)
    constants = {"first": np.array([0]), "table": np.zeros(4, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    rewrite(folder, model)


def slow_down(folder: Path, layers: int = 150, width: int = 1024) -> None:
    """Have a bundle's model take some ten milliseconds for a row, and answer as before."""
    model = onnx.load(folder / "variants" / "fp32.onnx")
    nodes = [helper.make_node("MatMul", ["flat", "widen"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{layer}", "square"], [f"h{layer + 1}"]) for layer in range(layers)]
    nodes += [helper.make_node("MatMul", [f"h{layers}", "narrow"], ["nothing"]), helper.make_node("Add", ["answer", "nothing"], ["logits"])]
    model.graph.node[-1].output[0] = "answer"
    model.graph.node.extend(nodes)
    constants = {"widen": np.zeros((6, width)), "square": np.full((width, width), 1e-4), "narrow": np.zeros((width, 2))}
    model.graph.initializer.extend(numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items())
    rewrite(folder, model)


def test_a_canary_answers_about_its_share(served: Served, start: Start) -> None:
    serve_both(served, "canary 30%")
    running = start_both(start)
    counts = Counter(answered(running) for _ in range(400))
    # Five standard deviations of 120.
    assert 74 <= counts["4"] <= 166
    assert challenger(running)["requests"] == counts["4"]


def test_a_key_keeps_its_version_while_the_share_grows(served: Served, start: Start) -> None:
    serve_both(served, "canary 20%")
    running = start_both(start)
    keys = [f"user-{number}" for number in range(200)]
    few = {key for key in keys if answered(running, key) == "4"}
    assert 12 <= len(few) <= 68
    assert few == {key for key in keys if answered(running, key) == "4"}
    served.point("people", "3", "4", "canary 60%")
    wait_until(lambda: challenger(running)["traffic"] == "canary 60%")
    many = {key for key in keys if answered(running, key) == "4"}
    assert few < many
    assert len(many) < len(keys)
    served.point("people", "3", "4", "canary 100%")
    wait_until(lambda: challenger(running)["traffic"] == "canary 100%")
    assert {answered(running, key) for key in keys} == {"4"}


def test_each_protocol_says_which_version_answered(served: Served, start: Start) -> None:
    serve_both(served, "canary 100%")
    running = start_both(start, "--grpc-port", "0")
    assert running.client.post(INFER, json=TENSORS).json()["model_version"] == "4"
    invoked = running.client.post("/invocations", json={"dataframe_records": [ROW]})
    assert (invoked.json(), invoked.headers["X-Model-Version"]) == ({"predictions": ["low"]}, "4")
    request = pb.ModelInferRequest(model_name="people")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 6])
    tensor.contents.fp32_contents.extend(TENSORS["inputs"][0]["data"])
    stub = Stub(running)
    assert stub("ModelInfer", request).model_version == "4"
    stub.channel.close()


def test_either_is_asked_by_its_version(served: Served, start: Start) -> None:
    serve_both(served, "canary 50%")
    running = start_both(start)
    for version in LABELS:
        path = f"/v2/models/people/versions/{version}"
        assert running.client.post(f"{path}/infer", json=TENSORS).json()["model_version"] == version
        assert running.client.get(f"{path}/ready").status_code == 200
    missing = running.client.post("/v2/models/people/versions/5/infer", json=TENSORS)
    assert (missing.status_code, missing.json()["error"]) == (404, "model 'people' serves version 3 and 4, not '5'")
    metadata = running.client.get("/v2/models/people").json()
    assert (metadata["versions"], metadata["properties"]["traffic"]) == (["3", "4"], "version 4: canary 50%")
    assert challenger(running)["requests"] == 0


@pytest.mark.parametrize(("slope", "agreement"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_shadow_answers_nothing_and_is_compared(served: Served, start: Start, slope: float, agreement: float) -> None:
    serve_both(served, "shadow", slope)
    running = start_both(start)
    assert {answered(running) for _ in range(5)} == {"3"}
    assert {running.client.post(INFER, json=TENSORS).json()["model_version"] for _ in range(5)} == {"3"}
    wait_until(lambda: challenger(running)["rows"] == 10)
    found = challenger(running)
    assert (found["version"], found["traffic"], found["requests"], found["agreement"]) == ("4", "shadow 100%", 0, agreement)


def test_what_a_canary_answers_the_champion_is_asked_too(served: Served, start: Start) -> None:
    serve_both(served, "canary 100%")
    running = start_both(start)
    predict(running, rows=3)
    wait_until(lambda: challenger(running)["rows"] == 3)
    metrics = running.client.get("/metrics").text
    pair = 'challenger="4",champion="3",model="people"'
    assert f'maasflow_pair_requests_total{{{pair},version="4"}} 1.0' in metrics
    assert f'maasflow_pair_requests_total{{{pair},version="3"}} 0.0' in metrics
    assert f'maasflow_pair_rows_total{{agree="false",{pair}}} 3.0' in metrics
    for version in LABELS:
        assert f'maasflow_pair_seconds_count{{{pair},version="{version}"}} 1.0' in metrics
    # The copy is no work for a client.
    assert 'maasflow_batch_rows_count{model="people"} 1.0' in metrics


def test_each_version_reads_raw_inputs_by_its_own_transform(served: Served, start: Start) -> None:
    narrow = TableTransform(numbers=(NumberColumn(column="age", mean=0.0, std=10.0, nullable=False),), categories=())
    served.add("people", "3")
    served.add("people", "4", narrow)
    served.point("people", "3", "4", "canary 100%")
    running = start_both(start)
    assert predict(running, age=400).json()["version"] == "3"  # it knows no height
    row = {"instances": [{"age": 40}]}
    assert running.client.post(PREDICT, json=row).json()["version"] == "4"
    # A client that sends tensors made them for the champion.
    assert running.client.post(INFER, json=TENSORS).json()["model_version"] == "3"


def test_what_a_challenger_fails_on_the_champion_answers(served: Served, start: Start, tmp_path: Path) -> None:
    serve_both(served, "canary 100%")
    fail_at_140_years(served.folder / "people" / "4")
    running = start_both(start)
    assert predict(running).json()["version"] == "4"
    for _ in range(3):
        reply = predict(running, age=140)
        assert (reply.status_code, reply.json()["version"]) == (200, "3")
    tensors = {"inputs": [TENSORS["inputs"][0] | {"data": [10.0, 0, 0, 0, 0, 0]}]}
    assert running.client.post(INFER, json=tensors).json()["model_version"] == "3"
    assert challenger(running)["failures"] == 4
    asked = running.client.post("/v2/models/people/versions/4/infer", json=tensors)
    assert (asked.status_code, challenger(running)["failures"]) == (500, 4)
    assert (tmp_path / "server.log").read_text().count("version 4 failed where another is asked too") == 1


def test_a_shadow_that_fails_is_counted(served: Served, start: Start) -> None:
    serve_both(served, "shadow")
    fail_at_140_years(served.folder / "people" / "4")
    running = start_both(start)
    assert predict(running, age=140).json()["version"] == "3"
    wait_until(lambda: challenger(running)["failures"] == 1)
    assert challenger(running)["rows"] == 0


def test_a_bad_input_is_no_failure_of_the_challenger(served: Served, start: Start) -> None:
    serve_both(served, "canary 100%")
    running = start_both(start)
    assert predict(running, age="forty").status_code == 422
    assert running.client.post(INFER, json={"inputs": []}).status_code == 400
    assert challenger(running)["failures"] == 0


def break_a_file(folder: Path) -> None:
    (folder / "variants" / "fp32.onnx").write_bytes(b"not a model")


def become_another_task(folder: Path) -> None:
    bundle = Bundle.open(folder)
    Bundle(folder, bundle.manifest.replace(task="language_modelling")).write()


@pytest.mark.parametrize(
    ("harm", "says"),
    [(break_a_file, "version 4 cannot be served: "), (become_another_task, "version 4 "), (None, "version 5 cannot be served: ")],
)
def test_a_challenger_that_cannot_be_loaded_leaves_the_champion_alone(
    served: Served, start: Start, harm: Callable[[Path], None] | None, says: str
) -> None:
    serve_both(served, "canary 100%")
    if harm:
        harm(served.folder / "people" / "4")
    else:
        served.point("people", "3", "5", "canary 100%")
    running = start_both(start)
    assert {answered(running) for _ in range(5)} == {"3"}
    assert challenger(running)["problem"].startswith(says)
    metadata = running.client.get("/v2/models/people").json()
    assert metadata["properties"]["challenger_problem"].startswith(says)
    assert "problem" not in metadata["properties"]
    assert 'maasflow_reloads_total{model="people",outcome="challenger failed"}' in running.client.get("/metrics").text


@pytest.mark.parametrize(
    "beside", ['"4"', '{"version": "../4"}', '{"version": "4", "traffic": "half"}', '{"version": "4", "traffic": "canary"}']
)
def test_a_challenger_that_cannot_be_read_leaves_the_champion_alone(served: Served, start: Start, beside: str) -> None:
    serve_both(served, "none")
    (served.folder / "people" / "current.json").write_text(f'{{"version": "3", "challenger": {beside}}}')
    running = start_both(start)
    assert answered(running) == "3"
    assert "problem" in challenger(running)


def test_copies_of_a_slow_challenger_are_dropped_rather_than_queued(served: Served, start: Start, tmp_path: Path) -> None:
    serve_both(served, "shadow")
    slow_down(served.folder / "people" / "4")
    running = start_both(start, "--comparisons", str(tmp_path / "comparisons"))
    assert {answered(running) for _ in range(300)} == {"3"}
    assert running.stop() == 0
    found = read_comparison(tmp_path / "comparisons", "people", "3", "4")
    assert found
    assert found.champion.requests == 300
    assert found.dropped >= 300 - 64 - 60
    assert found.rows + found.dropped <= 300


def test_an_answer_of_many_rows_is_compared_in_part(served: Served, start: Start) -> None:
    serve_both(served, "shadow", slope=1.0)
    running = start_both(start)
    predict(running, rows=500)
    wait_until(lambda: challenger(running)["rows"] == 64)
    assert challenger(running)["agreement"] == 1.0


def kept(folder: Path) -> Comparison:
    found = read_comparison(folder, "people", "3", "4")
    assert found
    return found


def test_what_was_found_out_outlives_the_servers_and_is_summed(served: Served, start: Start, tmp_path: Path) -> None:
    serve_both(served, "shadow", slope=1.0)
    folder = tmp_path / "comparisons"
    first, second = (start_both(start, "--comparisons", str(folder)) for _ in range(2))
    for running, rows in ((first, 2), (second, 3)):
        predict(running, rows=rows)
        wait_until(lambda running=running, rows=rows: challenger(running)["rows"] == rows)  # type: ignore[misc]
    wait_until(lambda: read_comparison(folder, "people", "3", "4") is not None)
    assert (first.stop(), second.stop()) == (0, 0)
    found = kept(folder)
    assert (found.rows, found.agreed, found.agreement) == (5, 5, 1.0)
    assert (found.champion.requests, found.challenger.requests) == (2, 0)
    assert sum(found.champion.seconds.counts) == sum(found.challenger.seconds.counts) == 2
    assert len(list((folder / "people").iterdir())) == 2


def test_a_folder_that_cannot_be_written_to_is_told_of_once(served: Served, start: Start, tmp_path: Path) -> None:
    serve_both(served, "canary 100%")
    (tmp_path / "comparisons").write_text("a file")
    running = start_both(start, "--comparisons", str(tmp_path / "comparisons"))
    for _ in range(2):
        assert answered(running) == "4"
        time.sleep(2.2)  # longer than the pause between two tries
    assert running.stop() == 0
    assert (tmp_path / "server.log").read_text().count("comparisons cannot be written") == 1


def test_processes_on_one_port_count_together_and_draw_alike(served: Served, start: Start, tmp_path: Path) -> None:
    serve_both(served, "canary 50%")
    running = start_both(start, "--workers", "2", "--comparisons", str(tmp_path / "comparisons"))
    keys = [f"user-{number}" for number in range(20)]
    found = dict[str, set[str]]()
    for _ in range(4):
        with httpx.Client(base_url=running.client.base_url, timeout=20, trust_env=False) as client:
            for key in keys:
                reply = client.post(PREDICT, json={"instances": [ROW]}, headers={"X-Sticky-Key": key})
                found.setdefault(key, set()).add(reply.json()["version"])
    assert all(len(versions) == 1 for versions in found.values())
    assert running.stop() == 0
    both = kept(tmp_path / "comparisons")
    assert both.champion.requests + both.challenger.requests == 80


def test_a_language_model_s_challenger_answers_its_share(served: Served, start: Start) -> None:
    for version in LABELS:
        write_language_model(served.folder / "writer" / version)
    served.point("writer", "3", "4", "canary 100%")
    running = start_both(start)
    generated = running.client.post("/v1/models/writer/generate", json={"prompt": "A", "max_tokens": 2})
    assert (generated.status_code, generated.json()["version"]) == (200, "4")
    call = {"model": "writer", "prompt": "A", "max_tokens": 2}
    for stream in (False, True):
        completed = running.client.post("/v1/completions", json={**call, "stream": stream})
        assert (completed.status_code, completed.headers["X-Model-Version"]) == (200, "4")
    assert challenger(running)["requests"] == 3


def test_images_are_compared_too(served: Served, start: Start) -> None:
    served.add("marks", "3", IMAGE)
    served.add("marks", "4", IMAGE, slope=-1.0)
    served.point("marks", "3", "4", "shadow")
    running = start_both(start)
    reply = running.client.post("/v1/models/marks/predict", json={"instances": [[[0] * 4] * 4]})
    assert reply.json()["version"] == "3"
    wait_until(lambda: challenger(running)["rows"] == 1)
    assert challenger(running)["agreement"] == 0.0
