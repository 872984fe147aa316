"""`/v1/completions`, by the words of OpenAI's reference."""

import json
import time
from typing import Any

import httpx
import pytest

CALL: dict[str, Any] = {"model": "writer", "prompt": "First Citizen:\n", "seed": 1}


def complete(client: httpx.Client, **call: Any) -> dict[str, Any]:
    reply = client.post("/v1/completions", json={**CALL, **call})
    assert reply.status_code == 200, reply.text
    values: dict[str, Any] = reply.json()
    return values


def chunks(client: httpx.Client, **call: Any) -> list[dict[str, Any]]:
    with client.stream("POST", "/v1/completions", json={**CALL, **call, "stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        *lines, last = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert last == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_completion(client: httpx.Client) -> None:
    values = complete(client)
    generated = client.post("/v1/models/writer/generate", json={"prompt": CALL["prompt"], "seed": 1, "max_tokens": 16}).json()
    assert values.pop("id").startswith("cmpl-")
    assert values.pop("created") == pytest.approx(time.time(), abs=60)
    assert values == {
        "object": "text_completion",
        "model": "writer",
        "choices": [{"text": generated["text"], "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 15, "completion_tokens": 16, "total_tokens": 31},
    }


def test_several_prompts_and_echo(client: httpx.Client) -> None:
    one = complete(client)["choices"][0]["text"]
    values = complete(client, prompt=["All:\n", CALL["prompt"]], echo=True)
    assert [choice["index"] for choice in values["choices"]] == [0, 1]
    assert values["choices"][1]["text"] == CALL["prompt"] + one
    assert values["usage"]["total_tokens"] == 5 + 15 + 2 * 16


def test_what_changes_nothing_is_taken(client: httpx.Client) -> None:
    neutral = {"n": 1, "best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "user": "a", "logprobs": None}
    assert complete(client, **neutral, stop=None, max_tokens=None, suffix=None)["choices"] == complete(client)["choices"]


@pytest.mark.parametrize("prompt", ["First Citizen:\n", ["All:\n", "First"]])
@pytest.mark.parametrize("echo", [False, True])
def test_a_stream(client: httpx.Client, prompt: Any, echo: bool) -> None:
    whole = complete(client, prompt=prompt, echo=echo, max_tokens=300)
    found = chunks(client, prompt=prompt, echo=echo, max_tokens=300)
    assert {chunk["object"] for chunk in found} == {"text_completion"}
    assert len({chunk["id"] for chunk in found}) == 1
    assert not any("usage" in chunk for chunk in found)
    choices = [choice for chunk in found for choice in chunk["choices"]]
    for expected in whole["choices"]:
        own = [choice for choice in choices if choice["index"] == expected["index"]]
        assert "".join(choice["text"] for choice in own) == expected["text"]
        assert [choice["finish_reason"] for choice in own] == [None] * (len(own) - 1) + ["length"]


def test_a_stream_may_end_with_its_usage(client: httpx.Client) -> None:
    last = chunks(client, stream_options={"include_usage": True})[-1]
    assert (last["choices"], last["usage"]) == ([], complete(client)["usage"])


@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        ({"model": None}, 400, "'model' is the name of a model"),
        ({"model": "writr"}, 404, "did you mean 'writer'?"),
        ({"model": "people"}, 400, "ask /v1/models/people/predict"),
        ({"model": "broken"}, 503, "is missing"),
        ({"prompt": [1, 2]}, 400, "token ids are not taken"),
        ({"prompt": []}, 400, "'prompt' is a text, or a list of texts"),
        ({"prompt": ["a"] * 9}, 413, "the limit is 8"),
        ({"n": 2}, 400, "'n' is not supported"),
        ({"logprobs": 1}, 400, "'logprobs' are not supported"),
        ({"suffix": "x"}, 400, "'suffix' is not supported"),
        ({"messages": []}, 400, "unknown key 'messages'"),
        ({"max_tokens": 501}, 400, "this server's limit is 500"),
        ({"temperature": "hot"}, 400, "temperature: 'hot' is not a number"),
        ({"stream": "yes"}, 400, "'stream' is true or false"),
        ({"stream_options": []}, 400, "'stream_options' is an object"),
    ],
)
def test_a_wrong_call_is_told(client: httpx.Client, call: dict[str, Any], status: int, says: str) -> None:
    reply = client.post("/v1/completions", json={**CALL, **call})
    assert (reply.status_code, list(reply.json()), says in reply.json()["error"]) == (status, ["error"], True), reply.text
