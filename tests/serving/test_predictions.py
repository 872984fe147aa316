"""`/v1`: raw inputs, as people send them."""

import base64
import io
import math
from typing import Any

import httpx
import pytest
from PIL import Image

ROW: dict[str, Any] = {"age": 40, "height": 1.7, "color": "blue"}


def png(mode: str = "L", size: tuple[int, int] = (4, 4), value: int = 255) -> str:
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def predict(client: httpx.Client, model: str, *instances: Any) -> httpx.Response:
    return client.post(f"/v1/models/{model}/predict", json={"instances": instances})


def test_rows(client: httpx.Client) -> None:
    reply = predict(client, "people", ROW, {**ROW, "age": 10}, {"age": "40", "color": "green"})
    assert reply.status_code == 200
    values = reply.json()
    assert (values["model"], values["version"]) == ("people", "3")
    assert [prediction["label"] for prediction in values["predictions"]] == ["high", "low", "high"]
    first = values["predictions"][0]["probabilities"]
    assert list(first) == ["high", "low"]
    assert sum(first.values()) == pytest.approx(1)
    assert first["high"] == pytest.approx(0.7310585786, abs=1e-6)


def test_images_in_every_form_are_the_same(client: httpx.Client) -> None:
    forms = [png(), f"data:image/png;base64,{png()}", [[255] * 4] * 4, {"image": png()}, png(size=(9, 9)), [[[255] * 3] * 4] * 4]
    predictions = predict(client, "marks", *forms).json()["predictions"]
    assert len(predictions) == len(forms)
    assert all(prediction == predictions[0] for prediction in predictions)
    assert predict(client, "marks", png(value=0)).json()["predictions"][0]["label"] == "low"


def test_texts(client: httpx.Client) -> None:
    texts = ["A good day", {"text": "a bad, bad day"}, "good " * 100, "你好"]
    predictions = predict(client, "moods", *texts).json()["predictions"]
    assert [prediction["label"] for prediction in predictions] == ["good", "bad", "good", "good"]
    # Twelve tokens are read; a word is worth 2 to its logit.
    found = [prediction["probabilities"]["good"] for prediction in predictions]
    assert found == pytest.approx([1 / (1 + math.exp(-logit)) for logit in (2, -4, 24, 0)], abs=1e-6)
    assert predictions[0] == predict(client, "moods", texts[0]).json()["predictions"][0]


def test_a_language_model_predicts_nothing(client: httpx.Client) -> None:
    reply = predict(client, "writer", "a text")
    assert (reply.status_code, "ask /v1/models/writer/generate" in reply.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("model", "instance", "says"),
    [
        ("people", {**ROW, "hieght": 1}, "unknown key 'hieght'; did you mean 'height'?"),
        ("people", {**ROW, "age": "old"}, "'age' is 'old', expected a number"),
        ("people", {**ROW, "age": "nan"}, "expected a finite number"),
        ("people", {**ROW, "age": None}, "'age' is missing"),
        ("people", {"age": 1}, "'color' is missing"),
        ("people", [1, 2], "expected an object"),
        ("people", {**ROW, "age": 10**70}, "item 1"),
        ("marks", "not base64!", "not base64"),
        ("marks", "", "cannot be decoded"),
        ("marks", base64.b64encode(b"GIF89a nonsense").decode(), "cannot be decoded"),
        ("marks", png()[:60], "cannot be decoded"),
        ("marks", 7, "expected an image"),
        ("marks", {"picture": png()}, "found picture"),
        ("marks", [[0, 1], [2]], "differ in length"),
        ("marks", [[0, 256]], "from 0 to 255"),
        ("marks", [[0, 0.5]], "from 0 to 255"),
        ("marks", [], "expected rows of pixels"),
        ("marks", [[None]], "pixels"),
        ("moods", "", "the text is empty"),
        ("moods", " \n", "the text is empty"),
        ("moods", None, "expected a text, found nothing"),
        ("moods", ["good"], "expected a text, found list"),
        ("moods", {"words": "good"}, "expected the key 'text' alone, found words"),
    ],
)
def test_an_instance_that_cannot_be_used_is_named_by_its_index(client: httpx.Client, model: str, instance: Any, says: str) -> None:
    good = {"people": ROW, "marks": png(), "moods": "a good day"}[model]
    reply = predict(client, model, good, instance)
    assert reply.status_code == 422
    assert reply.json()["error"].startswith("item 1: ")
    assert says in reply.json()["error"]


def test_deep_nesting_inside_an_instance_is_refused(client: httpx.Client) -> None:
    deep = b"[" * 1000 + b"]" * 1000
    for model, instance in (("people", b'{"color": "blue", "age": ' + deep + b"}"), ("marks", deep)):
        body = b'{"instances": [' + instance + b"]}"
        reply = client.post(f"/v1/models/{model}/predict", content=body)
        assert reply.status_code in (400, 422)
        assert len(reply.content) < 1000


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ({}, 400),
        ({"instances": []}, 400),
        ({"instances": ROW}, 400),
        ({"instances": [ROW], "version": 3}, 400),
        ({"instances": [ROW] * 9}, 413),
    ],
)
def test_a_wrong_call_is_refused(client: httpx.Client, call: dict[str, Any], status: int) -> None:
    assert client.post("/v1/models/people/predict", json=call).status_code == status


def test_a_refusal_quotes_at_most_a_little_of_what_was_sent(client: httpx.Client) -> None:
    assert len(predict(client, "people", {"x" * 15_000: 1}).content) < 1000


def test_unknown_and_broken_models(client: httpx.Client) -> None:
    assert predict(client, "nobody", ROW).status_code == 404
    broken = predict(client, "broken", ROW)
    assert (broken.status_code, broken.headers["retry-after"]) == (503, "1")


def test_the_list_of_models(client: httpx.Client) -> None:
    models = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
    assert list(models) == ["broken", "marks", "moods", "people", "writer"]
    assert (models["writer"]["task"], models["writer"]["labels"]) == ("language_modelling", [])
    assert models["people"]["version"] == "3"
    assert models["people"]["labels"] == ["high", "low"]
    assert (models["broken"]["ready"], "is missing" in models["broken"]["problem"]) == (False, True)
