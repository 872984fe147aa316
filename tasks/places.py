"""Where a release was measured: its bundle names one place, and its tags those where its figures were taken again."""

from typing import Final

from tasks.core.bundle import Manifest
from tasks.core.machine import Place
from tasks.tracking import Release

PASSED: Final = "passed"
FAILED: Final = "failed"
"""How the tag of a place begins where a release kept its limits, or did not."""


def tag_of(place: Place) -> str:
    """The version's tag that says how it fared there."""
    return f"machine.{place.fingerprint}"


def is_measured(release: Release, manifest: Manifest, here: Place) -> bool:
    """Whether the figures of what a release serves hold here: the bundle's own are of here, or others that were taken here passed."""
    return manifest.variant().place == here or release.tags.get(tag_of(here), "").startswith(PASSED)
