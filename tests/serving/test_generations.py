"""`/v1/models/{name}/generate`: whole texts and streams, at their ends and while they run."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.conftest import Running, Served, Start
from tests.serving.test_server import wait_until
from tests.texts import TEXTS, write_language_model

GENERATE = "/v1/models/writer/generate"
PROMPT = "First Citizen:\n"
FOREVER = {"prompt": PROMPT, "max_tokens": 10**8}


def generate(client: httpx.Client, **call: Any) -> dict[str, Any]:
    reply = client.post(GENERATE, json={"prompt": PROMPT, **call})
    assert reply.status_code == 200, reply.text
    values: dict[str, Any] = reply.json()
    return values


def events(client: httpx.Client, **call: Any) -> Iterator[Any]:
    with client.stream("POST", GENERATE, json={"prompt": PROMPT, "stream": True, **call}) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            if line:
                assert line.startswith("data: ")
                yield json.loads(line.removeprefix("data: "))


@pytest.fixture
def endless(served: Served, start: Start) -> Running:
    """A server that generates as long as it is asked to, two texts at once."""
    write_language_model(served.folder / "writer" / "1")
    served.point("writer", "1")
    served.serve("people", "1")
    return start("--max-tokens", str(10**9), "--max-generations", "2", "--grace", "0.3")


def test_a_text_is_continued(client: httpx.Client) -> None:
    values = generate(client, max_tokens=20, seed=1)
    assert (values["model"], values["version"], values["finish_reason"]) == ("writer", "2", "length")
    assert len(values["text"]) == 20
    assert values["usage"] == {"prompt_tokens": len(PROMPT), "completion_tokens": 20}
    assert generate(client, max_tokens=20, seed=1)["text"] == values["text"]
    assert generate(client, max_tokens=20, seed=2)["text"] != values["text"]
    assert len(generate(client)["text"]) == 128


def test_a_text_ends_before_a_stop(client: httpx.Client) -> None:
    text = generate(client, seed=1)["text"]
    values = generate(client, seed=1, stop=text[20:25])
    assert (values["text"], values["finish_reason"]) == (text[: text.index(text[20:25])], "stop")


def test_a_stream_has_the_same_text_in_pieces(client: httpx.Client) -> None:
    calls: list[dict[str, Any]] = [{"seed": 1, "max_tokens": 500}, {"seed": 2, "stop": ["e"]}, {"seed": 3, "max_tokens": 1, "prompt": ""}]
    for call in calls:
        *pieces, last = events(client, **call)
        whole = generate(client, **call)
        assert "".join(piece["text"] for piece in pieces) == whole["text"]
        assert last == {**whole, "text": ""}


def test_pieces_come_while_the_text_is_written(endless: Running) -> None:
    begun = time.monotonic()
    with endless.client.stream("POST", GENERATE, json={**FOREVER, "stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in reply.iter_lines() if line)
        assert all("text" in json.loads(next(lines).removeprefix("data: ")) for _ in range(5))
    assert time.monotonic() - begun < 5


def test_a_stream_of_a_bytewise_model_has_whole_characters(served: Served, start: Start) -> None:
    write_language_model(served.folder / "writer" / "1", kind="byte_bpe", texts=[*TEXTS, "你好,世界 🙂"])
    served.point("writer", "1")
    running = start()
    call = {"prompt": "你好", "seed": 1, "max_tokens": 300, "temperature": 2}
    assert "".join(event["text"] for event in events(running.client, **call)) == generate(running.client, **call)["text"]


@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        ({"prompt": None}, 400, "'prompt' is a text"),
        ({"prompt": ["a"]}, 400, "'prompt' is a text"),
        ({"max_tokens": 501}, 400, "max_tokens is 501, this server's limit is 500"),
        ({"max_tokens": 0}, 400, "max_tokens: 0 is too small"),
        ({"max_tokens": "9"}, 400, "max_tokens: '9' is not a whole number"),
        ({"temperature": -1}, 400, "temperature: -1 is too small"),
        ({"top_p": 2}, 400, "top_p: 2 is too large"),
        ({"stop": ["a"] * 5}, 400, "the most allowed is 4"),
        ({"stream": 1}, 400, "'stream' is true or false"),
        ({"promt": "a"}, 400, "unknown key 'promt'; known: prompt, max_tokens"),
        ({"prompt": "x" * 30_000}, 413, "20,000 bytes"),
    ],
)
def test_a_wrong_call_is_told(client: httpx.Client, call: dict[str, Any], status: int, says: str) -> None:
    for stream in ({}, {"stream": True}):
        reply = client.post(GENERATE, json={"prompt": PROMPT, **stream, **call})
        assert (reply.status_code, says in reply.json()["error"]) == (status, True), reply.text


def test_other_models_are_told(client: httpx.Client) -> None:
    reply = client.post("/v1/models/people/generate", json={"prompt": PROMPT})
    assert (reply.status_code, "ask /v1/models/people/predict" in reply.json()["error"]) == (400, True)
    assert client.post("/v1/models/nobody/generate", json={"prompt": PROMPT}).status_code == 404


def test_a_prompt_that_the_tokenizer_knows_nothing_of_is_refused(served: Served, start: Start) -> None:
    write_language_model(served.folder / "writer" / "1", kind="wordpiece")
    served.point("writer", "1")
    client = start().client
    for stream in (False, True):
        reply = client.post(GENERATE, json={"prompt": "  ", "stream": stream})
        assert (reply.status_code, reply.json()["error"].startswith("the prompt cannot be read: ")) == (422, True)
    assert len(generate(client, prompt="", max_tokens=5)["text"]) > 0


Ask = Callable[..., socket.socket]


@pytest.fixture
def ask(endless: Running) -> Iterator[Ask]:
    """Opens a connection on which a generation is asked for."""
    with ExitStack() as opened:

        def begin(*, stream: bool) -> socket.socket:
            body = json.dumps({**FOREVER, "stream": stream}).encode()
            address = (endless.client.base_url.host, endless.client.base_url.port or 0)
            connection = opened.enter_context(socket.create_connection(address, timeout=10))
            connection.sendall(f"POST {GENERATE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            # It is taken when it begins to be answered, or, as a whole, when it is not answered at once.
            connection.settimeout(0.3)
            with suppress(TimeoutError):
                assert connection.recv(12) == b"HTTP/1.1 200"
            return connection

        yield begin


def refused(endless: Running) -> bool:
    reply = endless.client.post(GENERATE, json={"prompt": PROMPT, "max_tokens": 1})
    if reply.status_code == 503:
        assert reply.headers["retry-after"] == "1"
        assert "2 texts are being generated" in reply.json()["error"]
    return reply.status_code == 503


@pytest.mark.parametrize("stream", [False, True])
def test_texts_over_the_limit_are_refused_until_a_client_goes_away(endless: Running, ask: Ask, stream: bool) -> None:
    assert not refused(endless)
    first, _ = ask(stream=stream), ask(stream=stream)
    assert refused(endless)
    assert endless.client.get("/v2/health/ready").status_code == 200
    first.close()
    wait_until(lambda: not refused(endless))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs to see what a process has used")
def test_a_client_that_goes_away_ends_the_work_and_leaves_no_trace(endless: Running, ask: Ask, tmp_path: Path) -> None:
    def worked() -> int:
        """Hundredths of a second of the processor's time."""
        times = Path(f"/proc/{endless.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(times[11]) + int(times[12])

    connections = [ask(stream=stream) for stream in (False, True)]
    assert refused(endless)
    before = worked()
    time.sleep(0.5)
    assert worked() - before > 10
    for connection in connections:
        connection.close()
    wait_until(lambda: not refused(endless))
    time.sleep(0.1)
    before = worked()
    time.sleep(0.5)
    assert worked() - before < 10
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert "failed" not in log


def test_others_are_answered_while_texts_are_written(endless: Running, ask: Ask) -> None:
    for stream in (False, True):
        ask(stream=stream)
    assert refused(endless)
    row = {"instances": [{"age": 40, "height": 1.7, "color": "blue"}]}
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        assert endless.client.get("/v2/health/live").status_code == 200
        assert endless.client.post("/v1/models/people/predict", json=row).status_code == 200
        seconds.append(time.perf_counter() - begun)
    assert refused(endless)
    assert sorted(seconds)[len(seconds) // 2] < 0.5


def test_each_of_several_texts_at_once_is_as_alone(client: httpx.Client) -> None:
    alone = [generate(client, seed=seed, max_tokens=300)["text"] for seed in range(3)]
    found: dict[int, str] = {}

    def ask(seed: int) -> None:
        found[seed] = generate(client, seed=seed, max_tokens=300)["text"]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(3)] == alone


def test_sigterm_cuts_texts_after_the_grace_time(endless: Running, ask: Ask) -> None:
    for stream in (False, True):
        ask(stream=stream)
    assert refused(endless)
    assert endless.stop() == 0
