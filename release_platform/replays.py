"""Replays: recorded requests of a model, answered by the version in Production and by a candidate."""

from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.adapters.recordings import Recordings
from release_platform.domain.errors import NotFound
from release_platform.domain.identity import digest_of
from release_platform.domain.ports import Clock
from release_platform.domain.replay import Replay, Side
from release_platform.releases import Releases
from release_platform.side_by_side import MOST_ROWS, Timer, ask_both, chosen_rows

PERIOD = timedelta(days=7)
"""How far back a replay looks when it is not told."""


class Replays:
    """The replays of all models in one release store.

    Args:
        releases: Where versions are.
        recordings: The recorded requests.
        clock: The time.
        timer: Seconds, to time answers with.
    """

    def __init__(
        self, releases: Releases, recordings: Recordings, clock: Clock | None = None, *, timer: Timer = perf_counter
    ) -> None:
        self._releases = releases
        self._recordings = recordings
        self._clock = clock or SystemClock()
        self._timer = timer

    def run(
        self, model: str, *, version: str | None = None, since: timedelta = PERIOD, most_rows: int = MOST_ROWS
    ) -> Replay:
        """Replays what the Production version was asked, keeps what it shows in the release store, and returns it.

        A period without a recorded row is a report with none, which passes no gate.

        Args:
            model: The model.
            version: The candidate; None for the version in Staging.
            since: How far back.
            most_rows: How many rows are asked, at most.

        Raises:
            NotFound: Nothing is in Production or in Staging, or there is no such version.
            IntegrityError: The files of a version are not the registered ones.
            SourceError: A recording is no Parquet file.
            Unavailable: An outside system does not answer.
        """
        head, now = self._releases.store.head(model), self._clock.now()
        if head.production is None:
            raise NotFound(
                f"{model}: nothing is in Production, so there is nothing to replay",
                remedy=f"the first promotion needs no replay: `release promote {model}`",
            )
        candidate = version or head.staging
        if candidate is None:
            raise NotFound(
                f"{model}: there is no version in Staging",
                remedy=f"`release run {model}` makes one, or name one with --version",
            )
        before, after = self._load(model, head.production), self._load(model, candidate)
        found = self._replay(before, after, (head.production, candidate), now - since, now, most_rows)
        self._releases.store.replays.record(found)
        return found

    def _replay(
        self,
        before: ModelPackage,
        after: ModelPackage,
        versions: tuple[str, str],
        since: datetime,
        now: datetime,
        most_rows: int,
    ) -> Replay:
        model, (production, candidate) = before.model, versions
        frame, n_recorded = self._recordings.read_first(model, production, since=since, until=now, most=most_rows)
        inputs = [column.name for package in (before, after) for column in package.plan.inputs]
        rows = chosen_rows(frame, inputs, most_rows)
        told = ask_both(before, after, rows, timer=self._timer)
        stable, other = (
            Side(version=of, digest=package.digest, refused=dict(told.refused[i]), latency_ms=told.latency_ms(i))
            for i, (of, package) in enumerate(((production, before), (candidate, after)))
        )
        return Replay(
            model=model,
            stable=stable,
            candidate=other,
            rows_digest=digest_of(rows),
            n_recorded=n_recorded,
            n_rows=len(rows),
            n_answered=told.n_answered,
            n_refused=told.n_refused,
            flips=told.flips(model, candidate),
            since=since.isoformat(timespec="microseconds"),
            at=now.isoformat(timespec="microseconds"),
        )

    def _load(self, model: str, version: str) -> ModelPackage:
        """Returns a version as it was registered, by the loader that serving uses too."""
        registration = self._releases.store.get_registration(model, version)
        with TemporaryDirectory() as folder:
            record = self._releases.fetch_registered(registration, Path(folder))
            return load_package(Path(folder), record.manifest)
