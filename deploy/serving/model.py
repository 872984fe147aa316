"""One version of a model, loaded and warm."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import ref

from deploy.serving.batcher import Batcher
from deploy.serving.calls import Call
from deploy.serving.warm_up import UnfitError, warm_up
from deploy.serving.workers import Workers
from tasks.core.bundle import Bundle, Manifest
from tasks.core.errors import BundleError, ConfigError, MaasflowError
from tasks.core.generator import Generator
from tasks.core.golden import Golden
from tasks.core.predictor import Prediction, Predictor
from tasks.core.recipe import PayloadLog
from tasks.core.signature import Trust

if TYPE_CHECKING:
    from deploy.serving.contest import Contest

VERSION: Final = "X-Model-Version"
_LITTLE: Final = 4096
"""Bytes that are read into tensors in less time than a thread would take to be handed them."""


class LoadError(MaasflowError):
    """A version that cannot be served. Its text is safe to send to a client; what it was raised from is not."""


@dataclass(frozen=True)
class Model:
    """What answers a request. A request keeps the version that it began with, whatever is swapped in meanwhile."""

    name: str
    version: str
    predictor: Predictor
    batcher: Batcher
    generator: Generator | None = None
    """For a language model."""
    keep: Callable[[Call, Sequence[Any], Sequence[Prediction]], None] | None = None
    """Takes what was asked and answered, where the recipe says that some of it is kept."""
    contest: "ref[Contest] | None" = None
    """Takes what was answered, where another version is to be asked too. It holds the model, which by holding it would never be freed."""

    @classmethod
    def load(cls, folder: Path, name: str, version: str, workers: Workers) -> Self:
        """Verify a bundle, load its chosen variant and run it. Takes as long as the bundle is large. Raises LoadError."""
        try:
            trust = Trust.read(workers.settings.trust) if workers.settings.trust else None
            bundle = Bundle.open(folder, trust=trust)
            golden = Golden.read(bundle)
        except BundleError as error:
            what = error.what.replace(f"{folder}{os.sep}", "").replace(str(folder), "its folder")
            raise LoadError(f"version {version} cannot be served: {what}") from error
        except OSError as error:
            raise LoadError(f"version {version} cannot be served: its files cannot be read") from error
        except ConfigError as error:
            raise LoadError(f"version {version} cannot be served: the keys that are trusted cannot be read") from error
        if trust and bundle.manifest.name != name:
            raise LoadError(f"version {version} cannot be served: it was signed as a version of '{bundle.manifest.name}'")
        try:
            predictor = Predictor(bundle, threads=workers.threads(bundle.manifest))
            generator = Generator(predictor) if predictor.manifest.task == "language_modelling" else None
            batcher = workers.batcher(name, predictor, warm_up(predictor))
            _check(golden, predictor)
            predictor.manifest.transform.limit(characters=workers.settings.max_characters, pixels=workers.settings.max_pixels)
            return cls(name, version, predictor, batcher, generator, _keeper(name, version, predictor, workers))
        except UnfitError as error:
            raise LoadError(f"version {version} cannot be served: {error.what}") from None
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            what = f"ONNX Runtime cannot load and run its variant '{bundle.manifest.chosen}'"
            raise LoadError(f"version {version} cannot be served: {what}") from error

    @property
    def told(self) -> dict[str, str]:
        """The header that says which version answered, of a protocol whose body has no room for it."""
        return {VERSION: self.version}

    @property
    def manifest(self) -> Manifest:
        return self.predictor.manifest

    async def predict(self, call: Call, instances: Sequence[Any], deadline: float) -> list[Prediction]:
        """One prediction for each raw instance of a call. Raises InputError and Refusal."""
        start = time.perf_counter()
        self.batcher.admit(len(instances), 0, deadline)
        # An image of a few bytes may have millions of pixels.
        if len(call.body) < _LITTLE and self.manifest.transform.kind != "image":
            tensors = self.predictor.tensors(instances)
        else:
            tensors = await asyncio.to_thread(self.predictor.tensors, instances)
        if call.spend:
            await call.spend(self.batcher.units(tensors))
        work = await self.batcher.run(tensors, deadline)
        found = self.predictor.predictions(work.outputs["logits"])
        self.batcher.around(work, start)
        if call.trace:
            call.trace.note_work(self, work, start)
        if self.keep:
            self.keep(call, instances, found)
        if self.contest and (contest := self.contest()):
            contest.answered(self, tensors, work, instances)
        return found


def _check(golden: Golden | None, predictor: Predictor) -> None:
    """Raises UnfitError for a variant that answers otherwise than it did when it was released."""
    if golden and (otherwise := golden.otherwise(predictor)):
        raise UnfitError(f"it answers {len(otherwise)} of {len(golden.rows)} golden rows otherwise than when it was released")


def _keeper(
    name: str, version: str, predictor: Predictor, workers: Workers
) -> Callable[[Call, Sequence[Any], Sequence[Prediction]], None] | None:
    rule = PayloadLog.parse(predictor.manifest.recipe.get("serving", {}).get("payloads", {}))
    if workers.payloads is None or not rule.sample:
        return None
    return partial(workers.payloads.add, name, {"version": version, "variant": predictor.variant.name}, rule)
