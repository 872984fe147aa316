"""Deploy: bring the folder that the server reads in line with the registry's champions, and the challengers that get traffic.

Level-triggered: it compares what is with what should be, so it does not matter who moved an alias, or how often it runs.
"""

import argparse
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Container
from contextlib import nullcontext, suppress
from pathlib import Path

from filelock import FileLock

from tasks.core.bundle import Bundle
from tasks.core.command import report
from tasks.core.config import Config
from tasks.core.errors import BundleError, ConfigError, RegistryError, UnknownReleaseError, explain
from tasks.core.predictor import this_place
from tasks.core.retries import Retries
from tasks.core.served import POINTER, PointedChallenger, Problem, challenger_at, pointed_at, pointer_text, tell_problem
from tasks.core.stages import write_text
from tasks.core.traffic import Traffic
from tasks.core.workspace import Workspace
from tasks.delivery import clean_up, deliver, prune
from tasks.places import is_measured
from tasks.tracking import CHALLENGER, CHAMPION, TRAFFIC, Tracking
from tasks.webhook import SECRET, Webhook

_LEAST_SECONDS = 0.2
"""Between looks at the registry, however often it calls."""

_log = logging.getLogger("maasflow.deploy")

Versions = Retries[tuple[str, str]]
"""By name and version."""


class DeployResult(Config):
    """The champions, which version of each is served, which changed, and why any could not be brought here; the same of challengers."""

    wanted: dict[str, str]

    served: dict[str, str]
    changed: tuple[str, ...]
    failed: dict[str, str]
    challengers: dict[str, str]
    failed_challengers: dict[str, str]


def deploy(tracking: Tracking, served: Path, retries: Versions | None = None, trust: Path | None = None) -> DeployResult:
    """Fetch and verify every champion that is not here yet, then point at it. A failure leaves that model as it was.

    With `trust`, a file of public keys, nothing is pointed at that none of them signed: the server would refuse it.

    Why it failed is logged once, and left beside the pointer for the server to show. A version that rests, by `retries`, is
    passed over. Raises RegistryError where the registry cannot be asked.
    """
    retries = retries or Versions()
    aliases = tracking.aliases()
    champions = {name: found[CHAMPION] for name, found in aliases.items() if CHAMPION in found}
    challengers = {name: found[CHALLENGER] for name, found in aliases.items() if CHALLENGER in found}
    retries.keep({*champions.items(), *challengers.items()})
    changed, failed = [], {}
    served.mkdir(parents=True, exist_ok=True)
    with FileLock(served / ".lock"):
        for name, version in champions.items():
            if pointed_at(served / name) == version:
                tell_problem(served / name, None)
                continue
            if retries.rests((name, version)):
                continue
            try:
                deliver(tracking, name, version, served / name / version, trust)
                _point(tracking, name, version, served / name, challengers.get(name))
                changed.append(name)
            except Exception as error:  # noqa: BLE001 - whatever this one met, the others are to be brought
                failed[name] = _tell(error, name, version, served / name, retries)
        changed += _withdraw(served, champions)
        here = {name: current for name in champions if (current := pointed_at(served / name))}
        # After all champions, which wait for no challenger's download.
        beside = _Challengers(tracking, served, retries, trust)
        for name, champion in here.items():
            if beside.follow(name, champion, challengers.get(name)) and name not in changed:
                changed.append(name)
    return DeployResult(
        wanted=champions,
        served=here,
        changed=tuple(changed),
        failed=failed,
        challengers=challengers,
        failed_challengers=beside.failed,
    )


def _withdraw(served: Path, champions: Container[str]) -> list[str]:
    """Take away the pointers of models that have no champion any longer; whose there was one."""
    withdrawn = []
    for model in served.iterdir():
        if model.is_dir() and model.name not in champions:
            tell_problem(model, None)
            if (model / POINTER).exists():
                (model / POINTER).unlink()
                withdrawn.append(model.name)
    return withdrawn


def _tell(error: Exception, name: str, version: str, model: Path, retries: Versions) -> str:
    """Tell the log and the server why a champion is not here; the same in full."""
    what, safe = _reasons(error)
    failure, is_news = retries.failed((name, version), safe)
    tell_problem(model, Problem(f"version {version} cannot be brought here: {safe}", failure.tries))
    if is_news:
        _log.warning("%s version %s is not served: %s", name, version, what)
    return what


def _reasons(error: Exception) -> tuple[str, str]:
    """Why a version is not here: in full, for the log, and what clients may know of it, which is no address and no folder."""
    known = explain(error)
    if isinstance(known, BundleError | UnknownReleaseError):
        return known.what, known.what
    if isinstance(known, RegistryError):
        return known.what, "the registry did not hand it out"
    return known.what if known else f"{type(error).__name__}: {error}", "the deployer could not store it, and says why in its log"


def follow(
    tracking: Tracking,
    served: Path,
    stop: threading.Event,
    seconds: float = 2.0,
    calls: threading.Event | None = None,
    trust: Path | None = None,
) -> None:
    """Deploy again and again, `seconds` apart, and sooner where the registry `calls`.

    A registry that is away leaves everything as it is, and is told of once.
    """
    calls = calls or stop
    retries = Versions()
    told, tries = "", 0
    while not stop.is_set():
        try:
            deploy(tracking, served, retries, trust)
            tell_problem(served, None)
            told, tries = "", 0
        except Exception as error:  # noqa: BLE001 - whatever it was, the server goes on with what it has, and the next look may do better
            text, tries = str(explain(error) or f"{type(error).__name__}: {error}"), tries + 1
            tell_problem(served, Problem("the registry does not answer the deployer", tries))
            if text != told:
                _log.warning("%s", text)
            told = text
        if calls.wait(seconds) and not stop.wait(min(_LEAST_SECONDS, seconds)):
            calls.clear()


def _point(tracking: Tracking, name: str, version: str, model: Path, challenger: str | None) -> None:
    previous, beside = pointed_at(model), _pointed_challenger(model)
    if beside and (beside.version != challenger or challenger == version):
        beside = None
    write_text(model / POINTER, pointer_text(version, beside))
    prune(model, {version, previous, challenger})
    with suppress(RegistryError):
        # Served all the same: whoever moved the alias in MLflow's page was not asked, and the registry is to be followed.
        _remark_on_figures(tracking, name, version, model / version)


class _Challengers:
    """Puts into the pointers which challengers get which part of the requests, as the tags of their versions say."""

    def __init__(self, tracking: Tracking, served: Path, retries: Versions, trust: Path | None) -> None:
        self.tracking = tracking
        self.served = served
        self.retries = retries
        self.trust = trust
        self.failed: dict[str, str] = {}

    def follow(self, name: str, champion: str, version: str | None) -> bool:
        """Whether the pointer was changed. Whatever fails leaves the champion as it is, and is told of in the pointer."""
        model = self.served / name
        old = _pointed_challenger(model)
        new = self._wanted(name, version, old) if version and version != champion else None
        if new == old:
            return False
        if new and new.problem:
            _log.warning("%s version %s gets none of the requests: %s", name, new.version, self.failed.get(name, new.problem))
        try:
            write_text(model / POINTER, pointer_text(champion, new))
        except OSError as error:
            self.failed[name] = f"its pointer cannot be written: {error}"
            if version:
                self.retries.failed((name, version), self.failed[name])
            return False
        if old and old.version not in (champion, version):
            shutil.rmtree(model / old.version, ignore_errors=True)
        return True

    def _wanted(self, name: str, version: str, old: PointedChallenger | None) -> PointedChallenger | None:
        """What the pointer is to say of a challenger, which is here then."""
        try:
            traffic = Traffic.read(self.tracking.version(name, version).tags.get(TRAFFIC, "none"))
            if traffic.traffic != "none" and not (old and old.version == version and not old.problem):
                if self.retries.rests((name, version)):
                    return old
                deliver(self.tracking, name, version, self.served / name / version, self.trust)
        except ConfigError as error:
            return PointedChallenger(version=version, problem=f"its tag '{TRAFFIC}': {error.what}")
        except Exception as error:  # noqa: BLE001 - as for champions
            self.failed[name], safe = _reasons(error)
            self.retries.failed((name, version), safe)
            # A registry that is gone in the middle of it says nothing of what is here.
            here = old and old.version == version
            return old if here else PointedChallenger(version=version, problem=f"it could not be brought here: {safe}")
        return None if traffic.traffic == "none" else PointedChallenger(version=version, traffic=traffic.traffic, share=traffic.share)


def _pointed_challenger(model: Path) -> PointedChallenger | None:
    """The challenger that the model's pointer names; None also where it cannot be read, as it is written anew then."""
    try:
        return challenger_at(model)
    except ConfigError:
        return None


def _remark_on_figures(tracking: Tracking, name: str, version: str, folder: Path) -> None:
    """Say where nobody knows how the version fares on this machine: its int8 may answer otherwise here, and in another time."""
    manifest = Bundle.open(folder, verify=False).manifest
    here = this_place(manifest.threads, manifest.device)
    if not is_measured(tracking.version(name, version), manifest, here):
        _log.warning(
            "%s version %s is served, but its figures are of another machine (here: %s); to take them again: maasflow promote %s %s",
            *(name, version, here.unlike(manifest.variant().place), name, version),
        )


def main() -> int:
    """`python -m tasks.deploy [WORKSPACE]`: the exit code is 0, or 1 where `--once` could not ask the registry."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = _parser()
    options = parser.parse_args()
    if options.once and options.webhook:
        parser.error("--webhook is for a deployer that stays: leave it or --once out")
    workspace = Workspace(options.workspace.resolve())
    tracking, served = Tracking.of(workspace), options.served or workspace.served
    stop = threading.Event()

    def end(*_: object) -> None:
        # Python throws away what is raised in the middle of a finalizer: then the next look ends it.
        stop.set()
        sys.exit(0)

    if options.once or options.until == "sigterm":
        # As the first process of a container it would ignore the signal otherwise. What is half fetched is removed on the way out.
        signal.signal(signal.SIGTERM, end)
    try:
        clean_up(served)
        if options.once:
            # Of a champion that cannot be brought it tells, and that keeps no other from being served.
            deploy(tracking, served, trust=options.trust)
        else:
            _follow(tracking, served, options, stop)
    except Exception as error:  # noqa: BLE001 - the last frame before the shell
        return report(error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.deploy", description="Follow the registry: fetch, verify and point at its champions."
    )
    parser.add_argument("workspace", type=Path, nargs="?", default=Path(), help="where the embedded store is, where no server is set")
    parser.add_argument("--served", type=Path, help="the folder to fill (default: that of the workspace)")
    parser.add_argument("--seconds", type=float, default=2.0, help="between looks at the registry (default: %(default)s)")
    parser.add_argument(
        "--webhook",
        metavar="HOST:PORT",
        help=f"look at once when MLflow posts an event here, signed with the secret in {SECRET}",
    )
    parser.add_argument("--trust", type=Path, metavar="FILE", help="bring only what one of the public keys in this file signed")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--until", choices=["stdin", "sigterm"], default="stdin", help="end with standard input, or at SIGTERM")
    until.add_argument("--once", action="store_true", help="look once")
    return parser


def _follow(tracking: Tracking, served: Path, options: argparse.Namespace, stop: threading.Event) -> None:
    """Until standard input ends, or SIGTERM. Raises ConfigError for an address where webhooks cannot be taken."""
    # It asks again by itself, and tells meanwhile.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    calls = threading.Event()
    with Webhook.at(options.webhook, calls) if options.webhook else nullcontext():
        if options.until == "sigterm":
            follow(tracking, served, stop, options.seconds, calls, options.trust)
            return
        follower = threading.Thread(target=follow, args=(tracking, served, stop, options.seconds, calls, options.trust), daemon=True)
        follower.start()
        sys.stdin.buffer.read()
        stop.set()


if __name__ == "__main__":
    sys.exit(main())
