"""Files that lie elsewhere: from the mirror where there is one, else over HTTPS into the workspace's cache."""

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tasks.core.errors import SourceError, UnreachableError
from tasks.core.file_digests import sha256
from tasks.core.workspace import Workspace

MIRROR: Final = "MAASFLOW_MIRROR"

_CHUNK_BYTES: Final = 1 << 20
_SECONDS: Final = 30.0
"""How long a server may be silent."""
_LATER: Final = (408, 425, 429)
"""Statuses below 500 that another try may not meet."""


def mirror_folder() -> Path | None:
    """The folder that MAASFLOW_MIRROR names. Raises SourceError where it names none that is there."""
    root = os.environ.get(MIRROR)
    if not root:
        return None
    if not Path(root).is_dir():
        raise SourceError(
            f"{MIRROR} is {root}, where there is no folder", f"set {MIRROR} to the folder with the mirrored datasets, or unset it"
        )
    return Path(root)


def is_allowed(url: str) -> bool:
    """HTTPS to anywhere; plain HTTP only to this machine."""
    parts = urllib.parse.urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")))


def place_in_mirror(url: str) -> str:
    """Where a mirror keeps the file unless told otherwise: host and path, as `wget --force-directories` writes them."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.hostname}{urllib.parse.unquote(parts.path)}"


def remote_file(url: str, workspace: Workspace, *, digest: str | None = None, mirror: str | None = None) -> Path:
    """A local copy of the file: in the mirror, else downloaded. `mirror` is its path below the mirror folder, `digest` its SHA-256.

    A download with a known digest is not done again; one without is, because the file may have changed.
    Raises SourceError: the URL, why it cannot be had, and the ways out; UnreachableError where another try may help.
    """
    place, folder = mirror or place_in_mirror(url), mirror_folder()
    if folder and (folder / place).is_file():
        return _verified(folder / place, digest, f"{place} in {MIRROR}, for {url},")
    cached = workspace.state / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16] / (Path(place).name or "file")
    if not (digest and cached.is_file() and sha256(cached) == digest):
        _download(url, cached, digest, f"{MIRROR} has no {place}, and " if folder else "", place)
    return cached


def _download(url: str, target: Path, expected: str | None, tried: str, place: str) -> None:
    """Write the file whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            for chunk in _chunks(url, tried, place):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        _verified(partial, expected, url)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _chunks(url: str, tried: str, place: str) -> Iterator[bytes]:
    out = f"put the file into a mirror (set {MIRROR} to a folder with {place}), or use a local file: `source.path` instead of `source.url`"
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "maasflow"})  # noqa: S310 - see is_allowed
        with _opener().open(request, timeout=_SECONDS) as response:
            length, found = response.headers.get("Content-Length"), 0
            while chunk := response.read(_CHUNK_BYTES):
                found += len(chunk)
                yield chunk
        if length is not None and found != int(length):
            raise UnreachableError(f"{url} cannot be fetched: {tried}the connection ended after {found:,} of {int(length):,} bytes", out)
    except urllib.error.HTTPError as error:
        error.close()
        what = f"{url} cannot be fetched: {tried}the server answers {error.code} {error.reason}"
        if error.code >= 500 or error.code in _LATER:
            raise UnreachableError(what, f"try again later, {out}") from None
        raise SourceError(what, f"correct `source.url` in the dataset file, {out}") from None
    except _InsecureError as error:
        raise SourceError(f"{url} cannot be fetched: {tried}{error}", f"correct `source.url` in the dataset file, {out}") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        why = str(getattr(error, "reason", None) or error).strip() or type(error).__name__
        raise UnreachableError(f"{url} cannot be fetched: {tried}the server does not answer ({why.splitlines()[0]})", out) from error


class _InsecureError(Exception):
    """A redirect away from HTTPS."""


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not is_allowed(newurl):
            fp.close()
            raise _InsecureError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SecureRedirects)


def _verified(file: Path, expected: str | None, name: str) -> Path:
    if expected is None or (found := sha256(file)) == expected:
        return file
    raise SourceError(
        f"{name} is not the file that the dataset was made for: its SHA-256 is {found}, expected {expected}",
        f"look at what changed, then correct `source.sha256` or `source.url` in the dataset file; or put the right file into a mirror "
        f"({MIRROR}), or use a local file: `source.path` instead of `source.url`",
    )
