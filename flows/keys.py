"""`maasflow keys`: who may ask the workspace's server, and whose releases it may serve."""

from pathlib import Path

from tasks.core.api_keys import ApiKey, ApiKeys, create_key, revoke_key
from tasks.core.signature import SETTING, create_signing_key
from tasks.core.workspace import Workspace


def make_key(
    name: str, scopes: tuple[str, ...], models: tuple[str, ...], requests: float | None, units: float | None
) -> tuple[ApiKey, str]:
    """A new key, and the key itself, which is told this once."""
    limits = {"requests_per_second": requests, "units_per_second": units}
    given = {"scopes": list(scopes or ("infer",)), "models": list(models or ("*",)), **limits}
    return create_key(Workspace.current().keys, name, **given)


def listed_keys() -> str:
    """A table of all keys, of which none can be used."""
    rows: list[tuple[str, ...]] = [("id", "name", "scopes", "models", "requests/s", "units/s", "created", "revoked")]
    for key in ApiKeys.read(Workspace.current().keys).keys:
        limits = (f"{limit:g}" if limit else "any" for limit in (key.requests_per_second, key.units_per_second))
        rows.append((key.id, key.name, ", ".join(key.scopes), ", ".join(key.models), *limits, key.created, key.revoked or ""))
    if len(rows) == 1:
        return "there are no API keys: the server asks for none"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def end_key(identity: str) -> ApiKey:
    """Revoke a key."""
    return revoke_key(Workspace.current().keys, identity)


def make_signing_key(file: Path) -> str:
    """Make a key pair; what to do with it."""
    public = create_signing_key(file)
    return f"{file} signs what is released while {SETTING}={file} is set; servers with --trust {public} serve nothing else"
