"""From a call to its answer: the operations, and what stands around each of them."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote

import orjson

from deploy.serving.calls import Answer, Call, Refusal, Stream
from deploy.serving.completions import Completions
from deploy.serving.contest import Contest
from deploy.serving.documentation import Documentation
from deploy.serving.generations import Generations
from deploy.serving.guard import Guard
from deploy.serving.inference import Inference
from deploy.serving.invocations import Invocations
from deploy.serving.open_inference import OpenInference
from deploy.serving.parent import Parent
from deploy.serving.predictions import Predictions
from deploy.serving.prometheus import Prometheus
from deploy.serving.request_ids import RequestIds
from deploy.serving.routes import Routes
from deploy.serving.traffic import Traffic
from deploy.serving.writers import Writers

if TYPE_CHECKING:
    from deploy.serving.tracing import Tracing

logger = logging.getLogger(__name__)


class Application:
    """Everything that the server answers."""

    def __init__(self, inference: Inference, guard: Guard, tracing: "Tracing | None" = None, parent: Parent | None = None) -> None:
        """`parent` is the process that started this one, where several answer."""
        models, settings = inference.models, inference.settings
        writers = Writers(settings.max_generations)
        models.shadows.heed(lambda: writers.busy > 0)
        open_inference = OpenInference(inference)
        operations = [*open_inference.operations(), *Predictions(models, settings).operations()]
        operations += Invocations(models, writers, open_inference.ready, settings).operations()
        operations += [*Generations(models, writers, settings).operations(), *Completions(models, writers, settings).operations()]
        self.traffic = Traffic(models, parent)
        operations += [*Prometheus(models, parent).operations(), *self.traffic.operations()]
        operations += Documentation(models, settings, operations.copy()).operations()
        self.routes = Routes(operations)
        self.guard = guard
        self.tracing = tracing
        self.metrics = models.workers.metrics
        self.request_ids = RequestIds()
        self.access_log = settings.access_log

    def admit(self, call: Call) -> None:
        """Find its operation, once its headers were read. Raises Refusal for what no body can mend."""
        found = self.routes.find(call.path)
        if found is None:
            raise Refusal(404, f"there is no {unquote(call.path)}; /docs lists what there is")
        operations, call.params = found
        call.operation = operations.get("GET" if call.method == "HEAD" else call.method)
        if call.operation is None:
            allowed = ", ".join([*operations, *(["HEAD"] if "GET" in operations else [])])
            raise Refusal(405, f"{call.method} is not allowed here, only {allowed}", {"Allow": allowed})
        self.guard.admit(call, call.operation)

    async def respond(self, call: Call) -> Answer | Stream:
        """The answer to a call that was read; whatever is raised becomes one."""
        start = time.perf_counter()
        call.request_id = self.request_ids.of(call)
        if self.tracing:
            call.trace = self.tracing.begin(call)
        answer = call.refusal.answer() if call.refusal else await self._handle(call)
        self._count(call, answer.status, time.perf_counter() - start)
        if self.access_log:
            self._log(call, answer.status, time.perf_counter() - start)
        if call.trace:
            call.trace.end(answer)
        return answer

    async def _handle(self, call: Call) -> Answer | Stream:
        assert call.operation
        try:
            if call.key:
                await self.guard.spend(call.key)
            return await call.operation.handler(call)
        except asyncio.CancelledError:
            _abandon(call)
            raise
        except Exception as error:  # noqa: BLE001 - it is answered, and logged
            if call.contest and call.contest.yields(call, error):
                return await self._ask_champion(call, call.contest, error)
            return _refused(call, error)

    async def _ask_champion(self, call: Call, contest: Contest, error: Exception) -> Answer | Stream:
        """The answer to a call that the challenger was to answer, and failed on."""
        assert call.operation
        try:
            answer = await call.operation.handler(call)
        except asyncio.CancelledError:
            _abandon(call)
            raise
        except Exception as again:  # noqa: BLE001 - as above
            return _refused(call, again)
        contest.lost(error)
        return answer

    def _count(self, call: Call, status: int, seconds: float) -> None:
        name = call.params.get("name", "")
        metrics = self.metrics.models.get(name) or self.metrics.of("")
        metrics.requests[call.operation.path if call.operation else "", status] += 1
        if name:
            metrics.seconds.add(seconds)

    def _log(self, call: Call, status: int, seconds: float) -> None:
        """One line of JSON; of a stream, the time until it began."""
        line = {
            "request_id": call.request_id,
            "client": call.client,
            "method": call.method,
            "path": unquote(call.path),
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        if call.trace:
            line["trace_id"] = call.trace.id
        logger.info(orjson.dumps(line).decode())


def _abandon(call: Call) -> None:
    if call.trace:
        call.trace.abandon()


def _refused(call: Call, error: Exception) -> Answer:
    """What is answered where an operation raised."""
    if isinstance(error, Refusal):
        return error.answer()
    logger.error("%s %r failed, request %s", call.method, unquote(call.path), call.request_id, exc_info=error)
    return Refusal(500, "the server failed on this request; its log says why").answer()
