"""Releases by hand."""

import shutil
from datetime import UTC, datetime
from typing import Final

from tasks.core.errors import GateError, RegistryError
from tasks.core.imports import quick_imports
from tasks.core.predictor import this_place
from tasks.core.traffic import Kind, Traffic
from tasks.core.workspace import Workspace
from tasks.deploy import deploy
from tasks.places import FAILED, is_measured, tag_of
from tasks.promote import promote
from tasks.tracking import CHALLENGER, CHAMPION, KEY, TRAFFIC, Release, Tracking

_DONE: Final[dict[Kind, str]] = {
    "none": "gets none of the requests, version {champion} answers all",
    "shadow": "is asked in pauses what it would have answered to {share} of the requests, version {champion} answers all",
    "canary": "answers {share} of the requests, version {champion} the others and what it fails on",
}


def promote_version(name: str, version: str, *, unmeasured: bool = False) -> str:
    """Make a version champion and bring it to the served folder; what happened, in a line or two.

    Raises RegistryError for an unknown version, GateError for one that never passed maasflow's gates, and as `hold_here` does.
    """
    workspace = Workspace.current()
    tracking = Tracking.of(workspace)
    release = tracking.version(name, version)
    if KEY not in release.tags:
        raise GateError(f"{name} version {version} was not registered by maasflow, so no gate has seen it", "release it with maasflow run")
    told = hold_here(workspace, tracking, release, unmeasured=unmeasured)
    result = promote(tracking, release)
    deploy(tracking, workspace.served)
    done = f"{name} version {version} is champion, after {f'version {result.previous}' if result.previous else 'none'}"
    return f"{done}\n{told}" if told else done


def direct_traffic(name: str, words: str) -> str:
    """Have the challenger of a model get this of the requests, as in `canary 10%`; what will happen, in a line.

    Raises ConfigError for words that say no traffic, RegistryError where the model has no challenger.
    """
    workspace = Workspace.current()
    traffic = Traffic.read(words)
    tracking = Tracking.of(workspace)
    challenger, champion = tracking.aliased(name, CHALLENGER), tracking.aliased(name, CHAMPION)
    if challenger is None:
        raise RegistryError(f"the model '{name}' has no challenger", "register one: maasflow run RECIPE, or set the alias: maasflow ui")
    tracking.tag(name, challenger.version, {TRAFFIC: traffic.words})
    deploy(tracking, workspace.served)
    if champion is None:
        return f"{name} version {challenger.version} is to get {traffic.words}, once the model has a champion"
    return f"{name} version {challenger.version} {_DONE[traffic.traffic].format(share=f'{traffic.share * 100:.6g}%', champion=champion.version)}"


def hold_here(workspace: Workspace, tracking: Tracking, release: Release, *, unmeasured: bool = False) -> str:
    """See that a release keeps its recipe's limits on this machine, by measuring it again where that is not known; what to tell, if anything.

    With `unmeasured` it is only noted that it is not known. Raises GateError where a figure is beyond its limit here, DataError where
    the rows to measure it with cannot be had.
    """
    manifest = tracking.manifest(release.name, release.version)
    here = this_place(manifest.threads, manifest.device)
    if is_measured(release, manifest, here):
        return ""
    words = f"{release.name} version {release.version}"
    why = f"{words} was measured on another machine (here: {here.unlike(manifest.variant().place)})"
    if not unmeasured:
        with quick_imports():
            from flows.measuring import measure_again

        return measure_again(workspace, tracking, release, manifest, why)
    if (known := release.tags.get(tag_of(here), "")).startswith(FAILED):
        raise GateError(f"{words} was measured on this machine and {known}", "without --unmeasured it is measured once more")
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    tracking.tag(release.name, release.version, {tag_of(here): f"not measured, as was asked for; {here}; {moment}"})
    return f"not measured here: {why}"


def clean_stages() -> str:
    """Remove every cached stage; what was freed, in a line."""
    folder = Workspace.current().stages
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return f"freed {size / 1e6:.1f} MB; the next run does every stage after the data again"
