"""The folder that the server reads: what the deployer leaves in it, for whoever reads it.

served/problem.json              why the registry cannot be followed, where it cannot
served/<model>/current.json      {"version": "3"}, the pointer; {"version": "3", "challenger": {"version": "4", "traffic": "canary",
                                 "share": 0.1}} where a challenger gets some of the requests
served/<model>/<version>/        a verified bundle, of the champion or the challenger
served/<model>/problem.json      {"what": "version 4 …", "tries": 2}, why what the registry wants of this model is not here
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.core.errors import ConfigError
from tasks.core.stages import write_text
from tasks.core.traffic import Traffic

POINTER = "current.json"
PROBLEM = "problem.json"


@dataclass(frozen=True)
class Problem:
    """What the deployer could not do."""

    what: str
    """Safe to send to a client."""
    tries: int
    """That failed, one after the other."""


class PointedChallenger(Traffic):
    """The version beside the champion, and what it gets of the requests."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    problem: str = ""
    """Why it gets nothing although it should, or might; safe to send to a client."""


def pointed_at(model: Path) -> str | None:
    """The version that the model's pointer names, or None where there is no readable pointer."""
    try:
        return str(json.loads((model / POINTER).read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def challenger_at(model: Path) -> PointedChallenger | None:
    """The challenger that the model's pointer names, or None where there is none. Raises ConfigError for one that cannot be read."""
    try:
        found = json.loads((model / POINTER).read_text()).get("challenger")
    except (OSError, ValueError, AttributeError):
        # Whoever reads the champion's version tells of it.
        return None
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ConfigError("the pointer's challenger is no object")
    return PointedChallenger.parse(found)


def pointer_text(version: str, challenger: PointedChallenger | None) -> str:
    """What the pointer's file holds."""
    if challenger is None:
        return json.dumps({"version": version})
    beside = {"version": challenger.version, "traffic": challenger.traffic, "share": challenger.share}
    return json.dumps({"version": version, "challenger": beside | ({"problem": challenger.problem} if challenger.problem else {})})


def problem_in(folder: Path) -> Problem | None:
    """What was told of in this folder, of a model or of all, and did not heal since."""
    try:
        values = json.loads((folder / PROBLEM).read_text())
        return Problem(str(values["what"]), int(values["tries"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def problems_below(served: Path) -> dict[str, Problem]:
    """What was told of models, by name."""
    try:
        folders = [folder for folder in served.iterdir() if not folder.name.startswith(".")]
    except OSError:
        return {}
    return {folder.name: problem for folder in folders if (problem := problem_in(folder))}


def tell_problem(folder: Path, problem: Problem | None) -> None:
    """Leave a problem for the server to show, or with None take away what was left. A full disk may be the problem: then nothing is left."""
    with suppress(OSError):
        if problem:
            write_text(folder / PROBLEM, json.dumps(asdict(problem)))
        else:
            (folder / PROBLEM).unlink(missing_ok=True)
