"""Promote: move the champion alias to a registered version. Whoever moves it, the deployer follows."""

import getpass
import os
from datetime import UTC, datetime
from typing import Final

from tasks.core.config import Config
from tasks.tracking import CHALLENGER, CHAMPION, Release, Tracking

PREVIOUS: Final = "previous_champion"
"""The tag with the version that was champion before."""
_NONE: Final = "none"


class PromoteResult(Config):
    """Which alias the version bears now, and which version was champion before it."""

    name: str
    version: str
    alias: str
    previous: str | None


def promote(tracking: Tracking, release: Release) -> PromoteResult:
    """Make the version champion, and note on it who did so, when, and whom it followed. Doing it twice changes nothing."""
    champion = tracking.aliased(release.name, CHAMPION)
    if champion and champion.version == release.version:
        noted = champion.tags.get(PREVIOUS, _NONE)
        previous = None if noted == _NONE else noted
    else:
        previous = champion.version if champion else None
        # The note goes first: a champion without one would be a promotion that nobody made.
        tracking.tag(
            release.name,
            release.version,
            {
                "promoted_by": _who(),
                "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
                PREVIOUS: previous or _NONE,
            },
        )
        tracking.set_alias(release.name, CHAMPION, release.version)
    challenger = tracking.aliased(release.name, CHALLENGER)
    if challenger and challenger.version == release.version:
        tracking.drop_alias(release.name, CHALLENGER)
    return PromoteResult(name=release.name, version=release.version, alias=CHAMPION, previous=previous)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # Containers run under numbers that have no account.
        return f"user {os.getuid()}"
