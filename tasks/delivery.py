"""Delivery: a release's bundle, brought from the registry into the served folder whole and verified, or not at all."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from filelock import FileLock

from tasks.core.bundle import MANIFEST, Bundle
from tasks.core.errors import BundleError, ConfigError
from tasks.core.file_digests import sha256
from tasks.core.signature import Trust
from tasks.core.stages import replace_folder
from tasks.tracking import CONTENT, KEY, Tracking


def deliver(tracking: Tracking, name: str, version: str, target: Path, trust: Path | None = None) -> None:
    """Fetch a bundle unless it lies there whole. With `trust`, signed by one of the keys in that file. Raises RegistryError, BundleError."""
    try:
        # Each time, as keys change while the deployer runs.
        keys = Trust.read(trust) if trust else None
    except ConfigError as error:
        raise BundleError("the keys that are trusted cannot be read", error.do) from error
    if not is_whole(target, keys):
        fetch(tracking, name, version, target, keys)


def is_whole(folder: Path, trust: Trust | None = None) -> bool:
    """Whether a verified bundle lies there; with `trust`, a signed one."""
    try:
        Bundle.open(folder, trust=trust)
    except BundleError:
        return False
    return True


def fetch(tracking: Tracking, name: str, version: str, target: Path, trust: Trust | None = None) -> None:
    """Download a bundle, and put it in its place once it is verified. Raises RegistryError, BundleError."""
    tags = tracking.version(name, version).tags
    if KEY not in tags:
        # Said before the download: on a registry that others use too, it may be of any size.
        raise BundleError(f"{name} version {version} was not registered by maasflow")
    partial = target.with_name(f".{version}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        bundle = tracking.fetch_bundle(name, version, partial)
        _verify(bundle, name, tags.get(CONTENT), trust)
        replace_folder(bundle, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _verify(folder: Path, name: str, digest: str | None, trust: Trust | None) -> None:
    """Raises BundleError unless it is a whole bundle of this model and, where the registry knows its digest, that very one."""
    try:
        found = Bundle.open(folder, trust=trust).manifest.name
    except BundleError as error:
        # The folder is about to go.
        raise BundleError(error.what.replace(f"{folder}{os.sep}", "").replace(str(folder), "what was fetched"), error.do) from None
    if found != name:
        raise BundleError(f"its bundle is one of the model '{found}', not of '{name}'", "move the alias to a version of its own")
    if digest and sha256(folder / MANIFEST) != digest:
        raise BundleError(f"bundle '{name}': {MANIFEST} differs from the digest in the version's tag {CONTENT}", "register it again")


def prune(model: Path, kept: Collection[str | None]) -> None:
    """Remove all versions but the served one, the one before it, for a rollback without a download, and the challenger."""
    for folder in model.iterdir():
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def clean_up(served: Path) -> None:
    """Remove what a killed deployer had half fetched or written, also of what nobody wants any longer."""
    served.mkdir(parents=True, exist_ok=True)
    with FileLock(served / ".lock"):
        for path in (*served.glob(".*.partial"), *served.glob("*/.*.partial"), *served.glob("*/*.old")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
