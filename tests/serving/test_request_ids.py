"""Each answer says what its request is called."""

import json
import re
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from deploy.serving.calls import Call
from deploy.serving.request_ids import RequestIds
from tests.serving.conftest import Served, Start

BODY = {"instances": [{"age": 40, "color": "blue"}]}
PATH = "/v1/models/people/predict"


def test_the_clients_own_comes_back(client: httpx.Client) -> None:
    headers = {"X-Request-Id": "order-7/"}
    for reply in (
        client.post(PATH, json=BODY, headers=headers),
        client.get("/nowhere", headers=headers),
        client.get("/v2", headers=headers),
    ):
        assert reply.headers["x-request-id"] == "order-7/"
    assert client.post(PATH, json=BODY, headers=headers).json()["request_id"] == "order-7/"


def test_what_is_too_large_to_be_read_keeps_its_own(client: httpx.Client) -> None:
    reply = client.post(PATH, content=b" " * 30_000, headers={"X-Request-Id": "large"})
    assert (reply.status_code, reply.headers["x-request-id"]) == (413, "large")


def test_a_new_one_is_made_for_each_request(client: httpx.Client) -> None:
    replies = [client.post(PATH, json=BODY) for _ in range(3)] + [client.get("/nowhere"), client.get("/docs")]
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len(set(ids)) == len(ids)
    assert [reply.json()["request_id"] for reply in replies[:3]] == ids[:3]


@pytest.mark.parametrize("given", [b"", b"a b", b"a" * 129, b"a\xc3\xa9"])
def test_one_that_is_not_sane_is_replaced(client: httpx.Client, given: bytes) -> None:
    reply = client.get("/v2", headers={b"X-Request-Id": given})
    assert reply.status_code == 200
    assert reply.headers["x-request-id"].encode("latin-1") != given


def test_two_are_none(client: httpx.Client) -> None:
    assert client.get("/v2", headers=[("X-Request-Id", "a"), ("X-Request-Id", "b")]).headers["x-request-id"] not in ("a", "b", "a, b")


def test_a_stream_has_one(client: httpx.Client) -> None:
    call = {"prompt": "a", "max_tokens": 3, "stream": True}
    reply = client.post("/v1/models/writer/generate", json=call, headers={"X-Request-Id": "stream"})
    assert reply.headers["x-request-id"] == "stream"


def test_new_ones_tell_nothing_of_each_other() -> None:
    call = Call("GET", "/", {}, "")
    ids, others = RequestIds(), RequestIds()
    made = [each.of(call) for each in (ids, others) for _ in range(1000)]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)
    parts = [[int(each[start : start + 8], 16) for each in made] for start in range(0, 32, 8)]
    for values in parts:
        assert len(set(values)) > 1990, "no quarter of them repeats, as a process's or a counter's would"
        assert 900 < sum(later > earlier for earlier, later in pairwise(values)) < 1100, "nor do they go up"


def test_the_access_log_has_it(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    running = start("--access-log")
    made = running.client.get("/v2").headers["x-request-id"]
    running.client.get("/v2/health/live", headers={"X-Request-Id": 'a"b'})
    assert running.stop() == 0
    lines = [json.loads(line[line.index("{") :]) for line in (tmp_path / "server.log").read_text().splitlines() if "{" in line]
    assert [line["request_id"] for line in lines] == [made, 'a"b']
