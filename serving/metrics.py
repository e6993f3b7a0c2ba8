"""What Prometheus is told. Each server has its own collector registry, so that two in one process do not mix."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.exposition import exposition_of_all_workers
from serving.models import Live, LoadedModel

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters and histograms of one server, and gauges of what it serves."""

    def __init__(self, live: Live) -> None:
        self._registry = CollectorRegistry()
        served = ("model", "version")
        self._requests = Counter(
            "serving_requests", "Requests answered.", ("route", *served, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "serving_request_seconds",
            "Seconds from the request's head to the answer's.",
            ("route", *served),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._rows = Counter("serving_rows", "Rows predicted.", served, registry=self._registry)
        self._failures = Counter(
            "serving_model_failures", "Answers that the model owed.", (*served, "kind"), registry=self._registry
        )
        self._refusals = Counter(
            "serving_refusals",
            "Versions that were not taken, each attempt.",
            ("model", "kind"),
            registry=self._registry,
        )
        self._cut = Counter(
            "serving_connections_cut",
            "Connections ended by a fault of their clients.",
            ("reason",),
            registry=self._registry,
        )
        self._table = _TableCollector(live)

    def request_answered(self, *, route: str, model: str, version: str, status: int, seconds: float) -> None:
        """Counts a request; model and version are empty where none answered."""
        self._requests.labels(route, model, version, str(status)).inc()
        self._seconds.labels(route, model, version).observe(seconds)

    def rows_predicted(self, loaded: LoadedModel, n_rows: int) -> None:
        """Counts rows that got an answer."""
        self._rows.labels(loaded.model, loaded.version).inc(n_rows)

    def model_failed(self, loaded: LoadedModel, kind: str) -> None:
        """Counts a call that the model did not answer."""
        self._failures.labels(loaded.model, loaded.version, kind).inc()

    def version_refused(self, model: str, kind: str) -> None:
        """Counts an attempt to take a version that ended in a refusal."""
        self._refusals.labels(model, kind).inc()

    def connection_cut(self, reason: str) -> None:
        """Counts a connection that was ended by a fault of its client."""
        self._cut.labels(reason).inc()

    def exposition(self) -> bytes:
        """Returns all of it in Prometheus' text format."""
        return exposition_of_all_workers(self._registry, self._table)


class _TableCollector(Collector):
    """Reads the gauges from the route table when they are asked for, so that they cannot disagree with it."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def collect(self) -> Iterator[GaugeMetricFamily]:
        table = self._live.table
        names = ("model", "version", "digest", "engine")
        info = GaugeMetricFamily("serving_model_info", "The version that answers: always 1.", labels=names)
        since = GaugeMetricFamily("serving_model_live_since_seconds", "When it went live.", labels=["model"])
        refused = GaugeMetricFamily(
            "serving_model_refused", "1 while the named version is not the live one.", labels=["model"]
        )
        for loaded in table.loaded.values():
            info.add_metric((loaded.model, loaded.version, loaded.digest, loaded.package.engine_name), 1)
            since.add_metric((loaded.model,), loaded.since.timestamp())
        for name in table.names:
            refused.add_metric((name,), float(name in table.troubled))
        yield from (info, since, refused)
        contact = table.contact
        yield GaugeMetricFamily(
            "serving_registry_reachable",
            "1 if the registry answered last time.",
            value=float(contact.reachable is True),
        )
        if contact.last_success is not None:
            yield GaugeMetricFamily(
                "serving_registry_last_success_seconds", "When it last did.", value=contact.last_success.timestamp()
            )
