"""The threads that run models, shared by all of them."""

from concurrent.futures import ThreadPoolExecutor

from deploy.serving.batcher import Batcher
from deploy.serving.comparisons import Comparisons
from deploy.serving.cost import Cost
from deploy.serving.metrics import Metrics
from deploy.serving.payloads import Payloads
from deploy.serving.settings import Settings
from tasks.core.bundle import Manifest
from tasks.core.lanes import Lanes
from tasks.core.machine import usable_cores
from tasks.core.predictor import Predictor


class Workers:
    """As many as there are cores, or as are this process' share of them: a model whose batches use one thread each has as many lanes, one that uses all has one."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.payloads = Payloads(settings.payloads, settings.payload_bytes, self.metrics) if settings.payloads else None
        self.comparisons = Comparisons(settings.comparisons, self.metrics)
        self.cores = max(1, usable_cores() // settings.processes)
        self._threads = ThreadPoolExecutor(self.cores, thread_name_prefix="infer")

    def threads(self, manifest: Manifest) -> int:
        """Those of one batch of a model."""
        return min(manifest.threads or self.cores, self.cores)

    def batcher(self, name: str, predictor: Predictor, cost: Cost) -> Batcher:
        """For one version of a model, whose batches take so long."""
        session, threads = predictor.session, self.threads(predictor.manifest)
        lanes = session.count if isinstance(session, Lanes) else max(1, self.cores // threads)
        return Batcher(
            predictor, cost, lanes, self._threads, self.metrics.of(name), self.settings.max_waiting, self.settings.max_waiting_bytes
        )
