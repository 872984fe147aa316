"""API keys: who may ask the server, for what. Only digests of them are kept.

A key is 256 random bits, which nobody can guess, so a plain SHA-256 of it is as good as a slow hash that passwords need
(NIST SP 800-63B, section 5.1.2 on look-up secrets), and is checked on every request.
"""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from filelock import FileLock
from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import ConfigError, MaasflowError
from tasks.core.stages import write_text

Scope = Literal["infer", "admin"]
"""`infer` asks models; `admin` reads what is counted too."""

_PREFIX: Final = "maasflow"
_KEY: Final = re.compile(rf"{_PREFIX}_([0-9a-f]{{8}})_([A-Za-z0-9_-]{{43}})")


class ApiKey(Config):
    """One key, without the key itself."""

    id: str
    """Eight hexadecimal digits, which the key shows too."""
    name: str
    """Whose it is."""
    sha256: str
    scopes: tuple[Scope, ...] = ("infer",)
    models: tuple[str, ...] = ("*",)
    """Names of models, or patterns with * and ?, that it may ask."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    units_per_second: Annotated[float, Field(gt=0)] | None = None
    """Compute units: rows, or tokens where rows differ in length."""
    created: str
    revoked: str | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def may_ask(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)


class ApiKeys(Config):
    """All keys of a server, as they are kept in a file that only its owner may read."""

    keys: tuple[ApiKey, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ConfigError for a file that cannot be read, so that a server never goes on without."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise ConfigError(f"the API keys in {path} cannot be read: {error}", "restore it, or remove it and make new keys") from None

    def find(self, presented: str) -> ApiKey | None:
        """The key that was presented, unless there is none such, or it was revoked."""
        match = _KEY.fullmatch(presented)
        if not match:
            return None
        identity, secret = match.groups()
        key = next((key for key in self.keys if key.id == identity), None)
        # Compared in the same time whether or not there is such a key.
        same = hmac.compare_digest(_digest(secret), key.sha256 if key else "0" * 64)
        return key if key and same and not key.revoked else None


def create_key(path: Path, name: str, **options: object) -> tuple[ApiKey, str]:
    """A new key in the file, and the key itself, which is told once. Raises ConfigError."""
    secret = secrets.token_urlsafe(32)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    key = ApiKey.parse({"id": secrets.token_hex(4), "name": name, "sha256": _digest(secret), "created": now, **options})
    with _locked(path):
        _write(path, (*ApiKeys.read(path).keys, key))
    return key, f"{_PREFIX}_{key.id}_{secret}"


def revoke_key(path: Path, identity: str) -> ApiKey:
    """Revoke a key by its id; a running server heeds it within a second. Raises MaasflowError where there is none."""
    with _locked(path):
        keys = ApiKeys.read(path).keys
        found = next((key for key in keys if key.id == identity), None)
        if found is None:
            raise MaasflowError(f"there is no API key '{identity}'", "maasflow keys list shows them all")
        revoked = found.model_copy(update={"revoked": found.revoked or datetime.now(UTC).isoformat(timespec="seconds")})
        _write(path, tuple(revoked if key is found else key for key in keys))
    return revoked


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    write_text(path, ApiKeys(keys=keys).model_dump_json(indent=1) + "\n")
    path.chmod(0o600)
