"""What the deployer could not bring is shown by the server, which goes on with what it has."""

import time
from collections.abc import Callable

from tasks.core.served import Problem, tell_problem
from tests.serving.conftest import Running, Served, Start

WHAT = "version 4 cannot be brought here: the registry did not hand it out"


def soon(true: Callable[[], bool]) -> None:
    end_of_patience = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end_of_patience
        time.sleep(0.05)


def problems(running: Running) -> dict[str, str]:
    found: dict[str, str] = running.client.get("/v2/health/ready").json()["problems"]
    return found


def test_a_version_that_did_not_come_is_told_until_it_heals(served: Served, start: Start) -> None:
    served.serve("people", "3")
    running = start()
    assert "problem" not in running.client.get("/v2/models/people").json()["properties"]
    tell_problem(served.folder / "people", Problem(WHAT, 2))
    soon(lambda: problems(running) == {"people": WHAT})
    assert running.client.get("/v2/models/people").json()["properties"]["problem"] == WHAT
    (listed,) = running.client.get("/v1/models").json()["models"]
    assert (listed["ready"], listed["version"], listed["problem"]) == (True, "3", WHAT)
    assert 'maasflow_deploy_failures{model="people"} 2.0' in running.client.get("/metrics").text
    tell_problem(served.folder / "people", None)
    soon(lambda: problems(running) == {})
    assert "maasflow_deploy_failures{" not in running.client.get("/metrics").text


def test_a_model_of_which_nothing_came_says_why_it_does_not_answer(served: Served, start: Start) -> None:
    served.serve("people", "3")
    tell_problem(served.folder / "new", Problem(WHAT, 1))
    running = start()
    soon(lambda: problems(running) == {"new": WHAT})
    answer = running.client.get("/v2/models/new/ready")
    assert (answer.status_code, answer.json()) == (503, {"error": f"model 'new' is not here yet: {WHAT}"})
    assert {"name": "new", "ready": False, "problem": WHAT} in running.client.get("/v1/models").json()["models"]
    assert running.client.get("/v2/models/another/ready").status_code == 404


def test_a_version_that_did_not_come_hides_none_that_cannot_be_loaded(served: Served, start: Start) -> None:
    served.serve("people", "3")
    running = start()
    (served.add("people", "4") / "bundle.json").unlink()
    served.point("people", "4")
    tell_problem(served.folder / "people", Problem("version 5 cannot be brought here: it is too large", 1))
    soon(lambda: problems(running).get("people", "").count("version") == 2)
    told = problems(running)["people"]
    assert told.startswith("version 4 cannot be served: ")
    assert told.endswith("; version 5 cannot be brought here: it is too large")


def test_a_registry_that_does_not_answer_is_told_beside_ready(served: Served, start: Start) -> None:
    served.serve("people", "3")
    running = start()
    tell_problem(served.folder, Problem("the registry does not answer the deployer", 7))
    soon(lambda: "registry" in running.client.get("/v2/health/ready").json())
    ready = running.client.get("/v2/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "problems": {}, "registry": "the registry does not answer the deployer"}
    assert 'maasflow_deploy_failures{model=""} 7.0' in running.client.get("/metrics").text
