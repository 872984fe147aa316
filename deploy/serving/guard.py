"""Who may ask for what, and how often."""

import logging
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final

from deploy.serving.buckets import Buckets, BucketsElsewhere, MemoryBuckets, RedisBuckets
from deploy.serving.calls import Call, Refusal
from deploy.serving.limits import Limits
from deploy.serving.routes import Operation
from tasks.core.api_keys import ApiKey, ApiKeys, Scope
from tasks.core.errors import ConfigError

_BEARER: Final = b"bearer "
_REMEMBERED: Final = 1024

logger = logging.getLogger(__name__)


class Guard:
    """Holds every call against the API keys in a file, which is read again when it changes. Where there is none yet, everyone may do all."""

    def __init__(self, file: Path | None = None, redis: str | None = None, parent: Buckets | None = None) -> None:
        """What keys have left is counted in the Redis at an address, or by the process that started this one; else here."""
        self.file = file
        self.limits = Limits(_buckets(redis, parent)) if file else None
        self._stamp = self._look()
        self._keys = ApiKeys.read(file) if file else ApiKeys()
        self._allowed: dict[tuple[bytes, Scope, str | None], ApiKey] = {}
        """Keys by the header that presented them, for what, and of which model: of what was allowed alone, so that only who has a key
        learns anything by the time it takes.
        """

    @property
    def demands(self) -> bool:
        """Whether a key is needed: from the first that was made on."""
        return bool(self._keys.keys)

    def refresh(self) -> None:
        """Read the keys again if their file changed; one that is gone or cannot be read leaves those that were."""
        stamp = self._look()
        if self.file is None or stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = ApiKeys.read(self.file)
        except ConfigError as error:
            logger.error("%s: the keys that were read before go on", error.what)  # noqa: TRY400 - the traceback says no more
        else:
            self._allowed.clear()

    def admit(self, call: Call, operation: Operation) -> None:
        """Note whose call it is. Raises Refusal: 401 or 403."""
        if operation.scope is None or not self._keys.keys:
            return
        asked = (call.headers.get(b"authorization", b""), operation.scope, call.params.get("name"))
        key = call.key = self._allowed.get(asked) or self._allow(*asked)
        if key.units_per_second:
            call.spend = partial(self._take, key, "units", key.units_per_second)

    async def spend(self, key: ApiKey) -> None:
        """Count a request. Raises Refusal (429)."""
        if key.requests_per_second:
            await self._take(key, "requests", key.requests_per_second, 1)

    async def _take(self, key: ApiKey, what: str, per_second: float, cost: int) -> None:
        assert self.limits
        bucket = f"{key.id}.{what}"
        if self.limits.spend(bucket, per_second, cost):
            return
        wait = await self.limits.take(bucket, per_second, cost)
        if wait:
            text = f"this API key may have {per_second:g} {what} a second: try again in {wait:.1f} s"
            raise Refusal(429, text, {"retry-after": str(ceil(wait))})

    def _allow(self, header: bytes, scope: Scope, model: str | None) -> ApiKey:
        """Raises Refusal: 401 or 403."""
        key = self._find(header)
        if not key.may(scope):
            raise Refusal(403, f"this API key may not do that: it takes the scope '{scope}'")
        if model is not None:
            allow(key, model)
        if len(self._allowed) >= _REMEMBERED:
            self._allowed.clear()
        self._allowed[header, scope, model] = key
        return key

    def _find(self, header: bytes) -> ApiKey:
        presented = header[len(_BEARER) :].strip() if header[: len(_BEARER)].lower() == _BEARER else b""
        key = self._keys.find(presented.decode("latin-1"))
        if key is None:
            what = (
                "this API key is not known, or was revoked"
                if header
                else "an API key is needed: send the header 'Authorization: Bearer <key>'"
            )
            raise Refusal(401, what, {"www-authenticate": "Bearer"})
        return key

    def _look(self) -> tuple[int, int] | None:
        if self.file is None:
            return None
        try:
            stat = self.file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino


def allow(key: ApiKey | None, model: str) -> None:
    """Raises Refusal (403) for a model that the key may not ask; of one that does not exist too, so that none can be guessed."""
    if key and not key.may_ask(model):
        raise Refusal(403, f"this API key may not ask model '{model[:80]}'")


def _buckets(redis: str | None, parent: Buckets | None) -> Buckets:
    """Raises MaasflowError where Redis cannot be asked at all."""
    if redis:
        return BucketsElsewhere(RedisBuckets(redis), "Redis")
    return BucketsElsewhere(parent, "the parent process") if parent else MemoryBuckets()
