"""Releases by the names that people give them."""

from tasks.core.errors import RegistryError
from tasks.tracking import CHAMPION, Release, Tracking


def find_release(tracking: Tracking, model: str) -> Release:
    """The version that `NAME`, `NAME@ALIAS` or `NAME@VERSION` means; without either the champion. Raises RegistryError."""
    name, _, wanted = model.partition("@")
    if wanted.isdigit():
        return tracking.version(name, wanted)
    release = tracking.aliased(name, wanted or CHAMPION)
    if release is None:
        raise RegistryError(
            f"no version of '{name}' is {wanted or CHAMPION}", f"name a version, as in {name}@1, or see what there is: maasflow ui"
        )
    return release
