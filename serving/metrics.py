"""What Prometheus is told. Each server has its own collector registry, so that two in one process do not mix."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from release_platform.domain.prediction import Predictions
from serving.exposition import exposition_of_all_workers
from serving.models import BESIDE, Live, LoadedModel
from serving.tallies import MOST_PUT_DOWN

_BUCKETS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BUCKETS_ITEMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_BUCKETS_SCORE = tuple(round(0.05 * step, 2) for step in range(1, 21))
_SERVED = ("model", "version")

_Answer = tuple[str, str, str, int]
_Version = tuple[str, str]
_Key = TypeVar("_Key")
_Item = TypeVar("_Item")


class Fate(StrEnum):
    """What became of an outcome that was told."""

    COUNTED = "counted"
    REPEATED = "repeated"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    HELD = "held"
    FULL = "full"
    CARRIED = "carried"
    LOST = "lost"


class Metrics:
    """Counters and histograms of one server, and gauges of what it serves.

    Args:
        live: What is served.
    """

    def __init__(self, live: Live) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "serving_requests", "Requests answered.", ("route", *_SERVED, "status"), registry=registry
        )
        self._seconds = Histogram(
            "serving_request_seconds",
            "Seconds from the request's head to the answer's.",
            ("route", *_SERVED),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._problems = Counter("serving_problems", "Problems told to clients.", ("model", "kind"), registry=registry)
        self._rows = Counter("serving_rows", "Rows predicted.", _SERVED, registry=registry)
        self._scores = Histogram(
            "serving_score",
            "The probability of a row's answer: of the second class of two, else of the likeliest.",
            _SERVED,
            buckets=_BUCKETS_SCORE,
            registry=registry,
        )
        self._batches = Histogram(
            "serving_batch_requests",
            "Requests that were computed together.",
            _SERVED,
            buckets=_BUCKETS_ITEMS,
            registry=registry,
        )
        self._failures = Counter(
            "serving_model_failures", "Answers that the model owed.", (*_SERVED, "kind"), registry=registry
        )
        self._refusals = Counter(
            "serving_refusals", "Versions that were not taken, each attempt.", ("model", "kind"), registry=registry
        )
        self._swaps = Histogram(
            "serving_swap_seconds",
            "Seconds from naming a version to its first possible answer: fetch, verify, load, warm up.",
            ("model",),
            registry=registry,
        )
        self._routed = Counter(
            "serving_routed_requests",
            "Requests that were routed, by what came of them: `answered`, or the kind of error.",
            (*_SERVED, "model_route", "result"),
            registry=registry,
        )
        self._outcomes = Counter(
            "serving_outcomes",
            "Outcomes that came for predictions.",
            (*_SERVED, "model_route", "outcome"),
            registry=registry,
        )
        self._fates = Counter(
            "serving_outcome_fates",
            "Outcomes by what became of them: `counted`, `repeated`, `refused`, `unknown`; `held` for another server, "
            "or not, as too many were (`full`); and of those held `carried`, `unknown`, or `lost` after an hour.",
            ("fate",),
            registry=registry,
        )
        for fate in Fate:  # an alert must see the first one
            self._fates.labels(fate.value)
        self._shadow_dropped = Counter(
            "serving_shadow_dropped",
            "Requests that a shadow was not asked: `queue_full`, `too_slow`, `ended`, or `no_copy` on disk.",
            (*_SERVED, "reason"),
            registry=registry,
        )
        self._windows_lost = Counter(
            "serving_windows_lost",
            "Windows of routed requests that were dropped before anybody fetched them.",
            registry=registry,
        )
        self._samples_lost = Counter(
            "serving_samples_lost",
            "Sampled requests that were dropped before anybody fetched them.",
            registry=registry,
        )
        self._samples_left_out = Counter(
            "serving_samples_left_out",
            "Sampled requests that were not kept because their rows are too large.",
            registry=registry,
        )
        self._cut = Counter(
            "serving_connections_cut",
            "Connections ended by a fault of their clients.",
            ("reason",),
            registry=registry,
        )
        self._table = _TableCollector(live)
        # What comes with each request is only put down here; counting it takes longer, and is quicker for many at once.
        self._answers: deque[tuple[_Answer, float]] = deque()
        self._predictions: deque[tuple[_Version, Predictions]] = deque()
        self._n_together: deque[tuple[_Version, int]] = deque()

    def watch_queue(self, n_waiting: Callable[[], int]) -> None:
        """Shows from now on how many requests wait for a thread."""
        self._table.n_waiting = n_waiting

    def watch_memory(self, n_remembered: Callable[[], int], most: int) -> None:
        """Shows from now on how many predictions are remembered, and how many there is room for."""
        self._table.n_remembered, self._table.most_remembered = n_remembered, most

    def request_answered(self, *, route: str, model: str, version: str, status: int, seconds: float) -> None:
        """Counts a request; model and version are empty where none answered."""
        self._answers.append(((route, model, version, status), seconds))
        if len(self._answers) >= MOST_PUT_DOWN:
            self.count()

    def problem_told(self, model: str, kind: str) -> None:
        """Counts a problem that a client was told; the model is empty where none was asked."""
        self._problems.labels(model, kind).inc()

    def predicted(self, loaded: LoadedModel, predictions: Predictions) -> None:
        """Counts rows that got an answer, and the probabilities of their answers."""
        self._predictions.append(((loaded.model, loaded.version), predictions))

    def count(self) -> None:
        """Counts what was put down since; to be called now and then, as others may read the counters."""
        for (route, model, version, status), values in _taken_up(self._answers).items():
            self._requests.labels(route, model, version, str(status)).inc(len(values))
            observe_all(self._seconds.labels(route, model, version), np.array(values))
        for served, several in _taken_up(self._predictions).items():
            self._rows.labels(*served).inc(sum(len(one.values) for one in several))
            scores = [_scores(one.probabilities) for one in several if one.probabilities is not None]
            if scores:
                observe_all(self._scores.labels(*served), np.concatenate(scores))
        for served, sizes in _taken_up(self._n_together).items():
            observe_all(self._batches.labels(*served), np.array(sizes, dtype=np.float64))

    def batch_computed(self, loaded: LoadedModel, n_requests: int) -> None:
        """Counts requests that one call of the model answered."""
        self._n_together.append(((loaded.model, loaded.version), n_requests))

    def model_failed(self, loaded: LoadedModel, kind: str) -> None:
        """Counts a call that the model did not answer."""
        self._failures.labels(loaded.model, loaded.version, kind).inc()

    def version_refused(self, model: str, kind: str) -> None:
        """Counts an attempt to take a version that ended in a refusal."""
        self._refusals.labels(model, kind).inc()

    def version_live(self, model: str, seconds: float) -> None:
        """Counts how long it took until a version could answer."""
        self._swaps.labels(model).observe(seconds)

    def routed(self, model: str, version: str, route: str, *, n_answered: int, errors: Iterable[str]) -> None:
        """Counts routed requests: how many were answered, and the kinds of the errors of the others."""
        if n_answered:
            self._routed.labels(model, version, route, "answered").inc(n_answered)
        for kind in errors:
            self._routed.labels(model, version, route, kind).inc()

    def outcome_came(self, model: str, version: str, route: str, name: str) -> None:
        """Counts an outcome of a prediction."""
        self._outcomes.labels(model, version, route, name).inc()

    def outcomes_became(self, fate: Fate, n: int) -> None:
        """Counts what became of outcomes."""
        if n:
            self._fates.labels(fate.value).inc(n)

    def shadow_dropped(self, loaded: LoadedModel, reason: str) -> None:
        """Counts a request that a shadow was not asked."""
        self._shadow_dropped.labels(loaded.model, loaded.version, reason).inc()

    def windows_lost(self, n: int) -> None:
        """Counts windows that nobody fetched in time."""
        self._windows_lost.inc(n)

    def samples_lost(self, n: int) -> None:
        """Counts sampled requests that nobody fetched in time."""
        self._samples_lost.inc(n)

    def sample_left_out(self) -> None:
        """Counts a sampled request whose rows are too large to be kept."""
        self._samples_left_out.inc()

    def connection_cut(self, reason: str) -> None:
        """Counts a connection that was ended by a fault of its client."""
        self._cut.labels(reason).inc()

    def exposition(self) -> bytes:
        """Returns all of it in Prometheus' text format."""
        self.count()
        return exposition_of_all_workers(self._registry, self._table)


def _taken_up(put_down: deque[tuple[_Key, _Item]]) -> dict[_Key, list[_Item]]:
    """Empties what was put down and returns it by its keys."""
    found: dict[_Key, list[_Item]] = {}
    while put_down:
        key, item = put_down.popleft()
        found.setdefault(key, []).append(item)
    return found


def observe_all(histogram: Histogram, values: npt.NDArray[np.float64]) -> None:
    """Observes each of some values: the same as one by one, for thousands in microseconds."""
    if len(values) <= 4:
        for value in values.tolist():
            histogram.observe(value)
        return
    places = np.searchsorted(histogram._upper_bounds, values)
    for place, n in enumerate(np.bincount(places, minlength=len(histogram._buckets)).tolist()):
        if n:
            histogram._buckets[place].inc(n)
    histogram._sum.inc(float(values.sum()))


def _scores(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    return probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities.max(axis=1)


class _TableCollector(Collector):
    """Reads the gauges from the route table when they are asked for, so that they cannot disagree with it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.n_waiting: Callable[[], int] = lambda: 0
        self.n_remembered: Callable[[], int] = lambda: 0
        self.most_remembered = 0

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
        weight = GaugeMetricFamily(
            "serving_route_weight",
            "The share of the requests that a version on a route beside Production is asked.",
            labels=["model", "version", "model_route"],
        )
        for route in BESIDE:
            for beside in table.beside(route).values():
                weight.add_metric((beside.loaded.model, beside.loaded.version, route.value), beside.weight)
        for name in table.names:
            refused.add_metric((name,), float(name in table.troubled))
        yield from (info, since, refused, weight)
        yield GaugeMetricFamily("serving_waiting_requests", "Requests that wait for a thread.", value=self.n_waiting())
        yield GaugeMetricFamily(
            "serving_remembered_predictions",
            "Predictions of this process that an outcome may still be told of.",
            value=self.n_remembered(),
        )
        yield GaugeMetricFamily(
            "serving_remembered_predictions_max", "How many there is room for.", value=self.most_remembered
        )
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
