"""A sample of what models are asked and what they answer, for whoever watches them: <folder>/<model>/<time>-<process>-<count>.parquet.

A row for each instance: request_id, index, time, version, variant, input (JSON, without what is redacted), label, probability.
"""

import asyncio
import base64
import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.serving.calls import Call
from deploy.serving.metrics import Metrics
from tasks.core.predictor import Prediction
from tasks.core.recipe import PayloadLog

ROWS: Final = 4096
"""In a file, at most; one is written sooner where the oldest of them waits for SECONDS."""
SECONDS: Final = 60.0
_MOST_WAITING: Final = 16 * ROWS

logger = logging.getLogger(__name__)


class Payloads:
    """Gathers rows in memory and writes them in a thread. What cannot be written is lost, and counted: answers never wait for it."""

    def __init__(self, folder: Path, most_bytes: int, metrics: Metrics) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        """Of the files of one model; the oldest make room."""
        self.metrics = metrics
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._since: dict[str, float] = {}
        self._writing: asyncio.Task[None] | None = None
        self._count = 0

    def add(
        self,
        name: str,
        served: Mapping[str, str],
        rule: PayloadLog,
        call: Call,
        instances: Sequence[Any],
        predictions: Sequence[Prediction],
    ) -> None:
        """Keep a request whole, or not at all; `served` is the model's version and variant."""
        if random.random() >= rule.sample:  # noqa: S311 - a sample is no secret
            return
        rows = self._rows.setdefault(name, [])
        if len(rows) + len(instances) > _MOST_WAITING:
            self.metrics.of(name).payloads["lost"] += len(instances)
            return
        self._since.setdefault(name, time.monotonic())
        now = datetime.now(UTC)
        rows += [
            {
                "request_id": call.request_id,
                "index": index,
                "time": now,
                **served,
                "input": _told(instance, rule.redact),
                "label": prediction.label,
                "probability": prediction.probabilities[prediction.label],
            }
            for index, (instance, prediction) in enumerate(zip(instances, predictions, strict=True))
        ]

    def tick(self) -> None:
        """To be called a few times a second: begin to write what is due."""
        due = [name for name, rows in self._rows.items() if len(rows) >= ROWS or time.monotonic() - self._since[name] >= SECONDS]
        if due and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write({name: self._take(name) for name in due}))

    async def close(self) -> None:
        """Write all that is left."""
        if self._writing:
            await self._writing
        await self._write({name: self._take(name) for name in list(self._rows)})

    def _take(self, name: str) -> list[dict[str, Any]]:
        self._since.pop(name)
        return self._rows.pop(name)

    async def _write(self, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        for name, some in rows.items():
            try:
                await asyncio.to_thread(self._write_file, self.folder / name, some)
                self.metrics.of(name).payloads["written"] += len(some)
            except Exception as error:  # noqa: BLE001 - a full disk, a missing library: the server goes on
                self.metrics.of(name).payloads["lost"] += len(some)
                logger.warning("%s: %d rows of the payload log are lost: %s", name, len(some), error)

    def _write_file(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        # Heavy, and needed only where a recipe asks for it.
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415

        folder.mkdir(parents=True, exist_ok=True)
        self._count += 1
        path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-{self._count:06}.parquet"
        partial = path.with_suffix(".partial")
        try:
            parquet.write_table(pa.Table.from_pylist(rows), partial, compression="zstd")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._make_room(folder)

    def _make_room(self, folder: Path) -> None:
        files = sorted(folder.glob("*.parquet"), reverse=True)
        taken = 0
        for file in files:
            # Another process may make room too.
            with suppress(FileNotFoundError):
                taken += file.stat().st_size
                if taken > self.most_bytes and file != files[0]:
                    file.unlink()


def _told(instance: Any, redact: Sequence[str]) -> str | None:
    """An instance as JSON without the columns that are redacted; None where nothing is left."""
    if isinstance(instance, dict):
        instance = {name: value for name, value in instance.items() if name not in redact}
    elif redact:
        # A text or an image alone: its model has one column.
        return None
    return orjson.dumps(instance, default=_in_base64).decode()


def _in_base64(value: Any) -> str:
    """An uploaded file, as JSON has it."""
    if not isinstance(value, bytes):
        raise TypeError
    return base64.b64encode(value).decode()
