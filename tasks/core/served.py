"""The folder that the server reads: what the deployer leaves in it, for whoever reads it.

served/<model>/current.json      {"version": "3"}, the pointer; {"version": "3", "challenger": {"version": "4", "traffic": "canary",
                                 "share": 0.1}} where a challenger gets some of the requests
served/<model>/<version>/        a verified bundle, of the champion or the challenger
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.core.errors import ConfigError
from tasks.core.traffic import Traffic

POINTER = "current.json"


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
