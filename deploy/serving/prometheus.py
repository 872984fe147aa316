"""`/metrics`: what is counted, in the text format of Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from deploy.serving.calls import Answer, Call
from deploy.serving.comparisons import Record
from deploy.serving.models import Models
from deploy.serving.parent import Parent, whole_tally
from deploy.serving.routes import Operation
from deploy.serving.tally import Tally


class Prometheus:
    """Its operation."""

    def __init__(self, models: Models, parent: Parent | None = None) -> None:
        self.models = models
        self.parent = parent

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
        """What this process counted, and those beside it. Raises Refusal (503) where these cannot be asked for."""
        tally = await whole_tally(self.models, self.parent)
        registry = CollectorRegistry()
        registry.register(Families(tally, self.models))
        return Answer(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class Families(Collector):
    """What is counted, as the text format has it."""

    def __init__(self, tally: Tally, models: Models) -> None:
        self.models = models
        self.tally = tally
        self.metrics = tally.metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._work()
        yield from self._served()
        yield from self._pairs()
        yield from self._workers()

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
        undelivered = GaugeMetricFamily(
            "maasflow_deploy_failures",
            "Failed tries, one after the other, to bring the newest version; no model: the registry",
            labels=("model",),
        )
        registry = {"": self.models.registry} if self.models.registry else {}
        for name, problem in (self.models.undelivered | registry).items():
            undelivered.add_metric((name,), problem.tries)
        payloads = CounterMetricFamily("maasflow_payload_rows", "Rows of the payload log", labels=("model", "outcome"))
        for name, found in self.metrics.models.items():
            for outcome, count in found.payloads.items():
                payloads.add_metric((name, outcome), count)
        waiting = GaugeMetricFamily("maasflow_waiting_rows", "Rows that wait", labels=("model",))
        for name, rows in self.tally.waiting.items():
            waiting.add_metric((name,), rows)
        info = GaugeMetricFamily("maasflow_model_info", "What is served, and by what", labels=("model", "version", "variant", "provider"))
        for served in sorted(self.tally.served):
            info.add_metric(served, 1)
        yield from (reloads, undelivered, payloads, waiting, info)

    def _pairs(self) -> Iterator[Metric]:
        pair = ("model", "champion", "challenger")
        share = GaugeMetricFamily("maasflow_challenger_share", "Of the requests, what the challenger gets", labels=(*pair, "traffic"))
        for *names, part in sorted(self.tally.challengers):
            share.add_metric(names, part)
        requests = CounterMetricFamily("maasflow_pair_requests", "That each of the two answered", labels=(*pair, "version"))
        failures = CounterMetricFamily("maasflow_pair_failures", "That each of the two failed on", labels=(*pair, "version"))
        seconds = HistogramMetricFamily("maasflow_pair_seconds", "To compute what both computed", labels=(*pair, "version"))
        rows = CounterMetricFamily("maasflow_pair_rows", "That both computed, by whether they agree", labels=(*pair, "agree"))
        dropped = CounterMetricFamily("maasflow_pair_dropped", "Copies that were not run, for want of a pause", labels=pair)
        for name, found in self.metrics.models.items():
            for versions, counted in found.pairs.items():
                record = Record(name, versions, counted)
                both = (name, record.champion.version, record.challenger.version)
                for side in (record.champion, record.challenger):
                    requests.add_metric((*both, side.version), side.requests)
                    failures.add_metric((*both, side.version), side.failures)
                    seconds.add_metric((*both, side.version), side.seconds.buckets, side.seconds.total)
                rows.add_metric((*both, "true"), record.counts["agreed"])
                rows.add_metric((*both, "false"), record.counts["rows"] - record.counts["agreed"])
                dropped.add_metric(both, record.counts["dropped"])
        yield from (share, requests, failures, seconds, rows, dropped)

    def _workers(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("maasflow_workers", "Processes that answer", self.tally.workers)
        yield CounterMetricFamily("maasflow_worker_restarts", "Processes that were started again because one died", self.tally.restarts)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0]
