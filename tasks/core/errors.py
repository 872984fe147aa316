"""Failures that a person can act on, and how they are told."""

import difflib
import errno
from collections.abc import Iterable
from typing import Any, Final


class MaasflowError(Exception):
    """What went wrong, with which value, and what to do next.

    Commands print it without a traceback and exit with `exit_code`.
    """

    exit_code: int = 1

    def __init__(self, what: str, do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.do = do

    def __str__(self) -> str:
        return f"{self.what}\n  → {self.do}" if self.do else self.what

    def __reduce__(self) -> tuple[type["MaasflowError"], tuple[Any, ...]]:
        return type(self), (self.what, self.do)


class ConfigError(MaasflowError):
    """A recipe or dataset file, or a `--set`, that says something it may not."""


class SourceError(MaasflowError):
    """Raw data that cannot be reached or read."""


class UnreachableError(SourceError):
    """A remote source that did not answer: another try may find it there."""


class DataError(MaasflowError):
    """Data that was read but cannot be used: it failed validation, or is too small to split."""


class InputError(MaasflowError):
    """One input to a model that cannot be turned into tensors. Its text is safe to send to a client."""


class TooLargeError(InputError):
    """Inputs to a model of which each could be used, and which together are more than may be read at once."""


class BundleError(MaasflowError):
    """A bundle that is incomplete, altered, or of a format that this version does not read."""


class GateError(MaasflowError):
    """A release that a gate stopped."""


class RegistryError(MaasflowError):
    """MLflow's tracking server or registry cannot be reached, or refuses."""


class TookTooLongError(MaasflowError):
    """Something that was waited for in vain."""


class UnknownReleaseError(RegistryError):
    """A version that the registry does not have."""


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """The closest of the choices as a question, or nothing where none is close."""
    known = {str(choice).lower(): str(choice) for choice in choices}
    close = difflib.get_close_matches(str(value).lower(), known, n=1, cutoff=0.6)
    return f"; did you mean '{known[close[0]]}'?" if close else ""


_OWN: Final = ("flows", "tasks", "deploy")
_FULL: Final = ("database or disk is full", "no space left on device", "disk quota exceeded")


def explain(error: BaseException) -> MaasflowError | None:
    """The actionable form of an error that any stage may meet, or None where only a traceback helps.

    Walks the causes, because libraries wrap what the system said.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        known = cause if isinstance(cause, MaasflowError) else _of_the_system(cause)
        if known:
            return known
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def _of_the_system(error: BaseException) -> MaasflowError | None:
    """What an error of the operating system, or of Python's own, means to a person."""
    name = getattr(error, "filename", None)
    if _disk_is_full(error):
        return MaasflowError(
            f"the disk is full{f' while writing {name}' if name else ''}",
            "free some space (`maasflow clean` removes cached stages), then run the same command again: finished stages are kept",
        )
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in _OWN:
        return MaasflowError(
            f"this needs the package '{error.name.partition('.')[0]}', which is not installed",
            "install all of maasflow, in its folder: pip install '.[serve,pipeline]'",
        )
    if isinstance(error, TimeoutError):
        return TookTooLongError(f"it took too long: {error}", "run the same command again: finished stages are kept")
    if name and isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return MaasflowError(f"no permission for {name}", "make it readable and writable for this account")
    if name and isinstance(error, OSError) and error.errno == errno.EROFS:
        return MaasflowError(f"{name} is on a read-only disk", "work in a folder that this account may write to")
    return None


def _disk_is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(text in str(error).lower() for text in _FULL)
