"""Promote: move the champion alias to a registered version. Whoever moves it, the deployer follows."""

import getpass
from datetime import UTC, datetime

from tasks.core.config import Config
from tasks.tracking import CHALLENGER, CHAMPION, Release, Tracking


class PromoteResult(Config):
    """Which alias the version bears now, and the champion before it."""

    name: str
    version: str
    alias: str
    previous: str | None


def promote(tracking: Tracking, release: Release) -> PromoteResult:
    """Make the version champion, and note on it who did so, when, and whom it followed. Doing it twice changes nothing."""
    champion = tracking.aliased(release.name, CHAMPION)
    previous = champion.version if champion else None
    if previous != release.version:
        # The note goes first: a champion without one would be a promotion that nobody made.
        tracking.tag(
            release.name,
            release.version,
            {
                "promoted_by": getpass.getuser(),
                "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "previous_champion": previous or "none",
            },
        )
        tracking.set_alias(release.name, CHAMPION, release.version)
    challenger = tracking.aliased(release.name, CHALLENGER)
    if challenger and challenger.version == release.version:
        tracking.drop_alias(release.name, CHALLENGER)
    return PromoteResult(name=release.name, version=release.version, alias=CHAMPION, previous=previous)
