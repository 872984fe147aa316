"""`/metrics`: what is counted, in the text format of Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from deploy.serving.calls import Answer, Call
from deploy.serving.metrics import Metrics
from deploy.serving.models import Models
from deploy.serving.routes import Operation
from tasks.core.predictor import runtime_of


class Prometheus(Collector):
    """Its operation, and the families that it writes."""

    def __init__(self, models: Models, metrics: Metrics) -> None:
        self.models = models
        self.metrics = metrics
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/metrics",
                summary="What is counted, for Prometheus",
                handler=self.expose,
                reply=_media_type(CONTENT_TYPE_LATEST),
                scope="admin",
            )
        ]

    async def expose(self, _: Call) -> Answer:
        return Answer(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._work()
        yield from self._served()

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("maasflow_requests", "Answers", labels=("model", "operation", "status"))
        seconds = HistogramMetricFamily("maasflow_request_seconds", "From a request that was read to its answer", labels=("model",))
        for name, found in self.metrics.models.items():
            for (operation, status), count in found.requests.items():
                requests.add_metric((name, operation, str(status)), count)
            seconds.add_metric((name,), found.seconds.buckets, found.seconds.total)
        yield from (requests, seconds)

    def _work(self) -> Iterator[Metric]:
        stages = HistogramMetricFamily("maasflow_stage_seconds", "What a request spent its time on", labels=("model", "stage"))
        batches = HistogramMetricFamily("maasflow_batch_rows", "Rows that were run together", labels=("model",))
        tokens = CounterMetricFamily("maasflow_tokens", "Tokens that were computed, read or padding", labels=("model", "kind"))
        for name, found in self.metrics.models.items():
            for stage, histogram in found.stages.items():
                stages.add_metric((name, stage), histogram.buckets, histogram.total)
            batches.add_metric((name,), found.batches.buckets, found.batches.total)
            tokens.add_metric((name, "read"), found.tokens)
            tokens.add_metric((name, "padding"), found.padding)
        yield from (stages, batches, tokens)

    def _served(self) -> Iterator[Metric]:
        reloads = CounterMetricFamily("maasflow_reloads", "Versions that were to be loaded", labels=("model", "outcome"))
        for name, found in self.metrics.models.items():
            for outcome, count in found.reloads.items():
                reloads.add_metric((name, outcome), count)
        payloads = CounterMetricFamily("maasflow_payload_rows", "Rows of the payload log", labels=("model", "outcome"))
        if self.models.workers.payloads:
            for (name, outcome), count in self.models.workers.payloads.outcomes.items():
                payloads.add_metric((name, outcome), count)
        waiting = GaugeMetricFamily("maasflow_waiting_rows", "Rows that wait", labels=("model",))
        info = GaugeMetricFamily("maasflow_model_info", "What is served, and by what", labels=("model", "version", "variant", "provider"))
        for model in self.models.running():
            waiting.add_metric((model.name,), model.batcher.waiting.rows)
            provider = runtime_of(model.predictor.session).provider
            info.add_metric((model.name, model.version, model.predictor.variant.name, provider), 1)
        yield from (reloads, payloads, waiting, info)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0]
