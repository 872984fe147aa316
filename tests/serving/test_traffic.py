"""What `/v1/traffic` tells of the last minutes."""

import asyncio
from pathlib import Path

import orjson
import pytest

from deploy.serving.calls import Call
from deploy.serving.metrics import SECONDS
from deploy.serving.models import Models
from deploy.serving.settings import Settings
from deploy.serving.traffic import PERIODS, Counted, History, Traffic, quantile
from deploy.serving.workers import Workers
from tasks.core.api_keys import create_key
from tests.serving.conftest import Served, Start

ROW = {"age": 40, "color": "blue"}


def test_it_tells_what_was_asked_and_refused(served: Served, start: Start) -> None:
    served.serve("people", "1")
    client = start().client
    for rows in ([ROW, ROW], [{**ROW, "color": None}]):
        client.post("/v1/models/people/predict", json={"instances": rows})
    client.post("/v1/models/nobody/predict", json={"instances": [ROW]})
    models = client.get("/v1/traffic").json()["models"]
    assert models.keys() == {"people"}
    people = models["people"]
    assert people["statuses"] == {"200": 1, "422": 1}
    assert (people["requests"], people["errors"], people["rows_per_batch"]) == (2, 1, 2)
    assert 0 < people["median"] <= people["p99"]
    assert sum(people["periods"]["requests"]) == 2


def test_a_key_sees_the_models_that_it_may_ask(served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    served.serve("wages", "1")
    keys = tmp_path / "keys.json"
    _, secret = create_key(keys, "billing", models=["peo*"])
    client = start("--keys", str(keys)).client
    assert client.get("/v1/traffic").status_code == 401
    client.headers["Authorization"] = f"Bearer {secret}"
    assert client.get("/v1/traffic").json()["models"].keys() == {"people"}


def test_what_is_older_than_all_periods_is_forgotten() -> None:
    history, counted = History(), Counted(statuses={200: 5})
    history.add(counted)
    for _ in range(PERIODS - 1):
        history.add(counted)
    assert history.described(counted)["requests"] == 5
    history.add(counted)
    found = history.described(Counted(statuses={200: 7, 503: 1}))
    assert (found["requests"], found["errors"], found["statuses"]) == (3, 1, {"200": 2, "503": 1})
    assert found["periods"]["requests"] == [0] * PERIODS + [3]


def test_what_was_counted_before_a_process_was_started_again_is_not_of_late() -> None:
    found = History(Counted(statuses={200: 70})).described(Counted(statuses={200: 72}))
    assert (found["requests"], found["periods"]["requests"]) == (2, [2])


def test_a_period_ends_by_itself(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.serving.traffic.PERIOD", 0.01)
    served.serve("people", "1")
    models = Models(served.folder, Workers(Settings()))
    models.refresh()
    traffic = Traffic(models)

    async def periods() -> list[int]:
        answer = await traffic.tell(Call("GET", "/v1/traffic", {}, ""))
        found: list[int] = orjson.loads(answer.body)["models"]["people"]["periods"]["requests"]
        return found

    async def follow() -> None:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(traffic.follow())
            await asyncio.sleep(0)
            models.workers.metrics.of("people").requests["/", 200] += 3
            assert await periods() == [3]
            await asyncio.sleep(0.1)
            assert 3 in (await periods())[:-1]
            following.cancel()

    asyncio.run(follow())


def test_a_quantile_lies_within_the_bounds_that_it_was_counted_between() -> None:
    counts = [0] * (len(SECONDS) + 1)
    assert quantile(0.5, counts) is None
    counts[3] = 10
    assert quantile(0.5, counts) == pytest.approx((SECONDS[2] + SECONDS[3]) / 2)
    counts[-1] = 1000
    assert quantile(0.99, counts) == SECONDS[-1]
