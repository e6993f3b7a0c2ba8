"""Watches the version in Production after its promotion, and takes it back where the model's policy says so."""

from dataclasses import dataclass

from release_platform.adapters.clock import SystemClock
from release_platform.domain.assessed import of_rollback
from release_platform.domain.judge import settled_minute
from release_platform.domain.ledger import LedgerRow, request_of
from release_platform.domain.ports import Clock, Servers
from release_platform.domain.rollback import POLICY, Taken, find_drift, find_watched, judge_verified, judge_watched
from release_platform.domain.rollout import Order
from release_platform.domain.spec import ModelSpec
from release_platform.live_traffic import RECENT, LiveTraffic, Round
from release_platform.releases import Releases
from release_platform.rollouts import Rollouts
from release_platform.window_history import WindowHistory

RECORD_DAYS = 7
"""How far back the record of the version before is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look came to: sentences for people, and the row of a rollback, if there was one."""

    said: tuple[str, ...]
    row: LedgerRow | None = None


class Watch:
    """The rollback policies of all models in one release store, over the live servers."""

    def __init__(
        self, releases: Releases, rollouts: Rollouts, servers: Servers | None = None, clock: Clock | None = None
    ) -> None:
        self._releases = releases
        self._rollouts = rollouts
        self._store = releases.store
        self._traffic = LiveTraffic(releases.store, servers)
        self._history = WindowHistory(releases.store.windows)
        self._clock = clock or SystemClock()

    def look(self, model: str, spec: ModelSpec, heard: Round | None = None) -> Look | None:
        """Looks once: collects, judges, and rolls back if the policy says so; None where the model has no policy.

        Args:
            model: The model's name.
            spec: Its spec.
            heard: What the servers hand in; None: they are asked now.

        Raises:
            Unavailable: An outside system does not answer; the next look does it again.
            StaleEpoch: Somebody else moved the model meanwhile, which is never undone.
        """
        policy = spec.rollback_policy
        if policy is None:
            return None
        heard = heard or self._traffic.ask(self._clock.now())
        now = heard.at
        said = self._traffic.collect(model, heard, after=self._seen(model, heard.last - RECENT))
        head, rows = self._store.head(model), self._store.ledger(model)
        watched = find_watched(policy, head, rows, now)
        if isinstance(watched, str):
            return Look(said=(*said, watched))
        found: Taken | tuple[str, ...] | None = find_drift(
            watched, self._store.drift.find_last(model, watched.row.version)
        )
        if found is None:
            found = judge_verified(policy, watched, self._store.verifications.since(model, watched.row.at), now)
        if not isinstance(found, Taken):
            first = watched.since - RECORD_DAYS * 24 * 60
            windows = self._history.windows(model, first, settled_minute(now))
            said += found
            found = judge_watched(policy, watched, windows, now)
        if not isinstance(found, Taken):
            return Look(said=(*said, *found))
        row = self._take_back(model, spec, found, epoch=head.epoch)
        return Look(said=(*said, f"version {row.version} is in Production again: {found.reason}"), row=row)

    def _seen(self, model: str, minute: int) -> int:
        """Returns a minute, or the last that a rollout of the model judged: what was judged never changes."""
        kept = self._store.rollouts.find_current(model)
        return max(minute, kept.rollout.judged) if kept is not None else minute

    def _take_back(self, model: str, spec: ModelSpec, taken: Taken, *, epoch: int) -> LedgerRow:
        """Rolls back, through the version's rollout while that can still be aborted, and returns the row."""
        kept = self._store.rollouts.find_current(model)
        if kept is not None and kept.rollout.rollout_id == request_of(taken.watched.row) and not kept.rollout.ended:
            self._rollouts.order(model, Order.ABORT, actor=POLICY, reason=taken.reason, policy=spec.policy, taken=taken)
            return self._store.ledger(model)[-1]
        return self._releases.rollback(
            model,
            to=taken.watched.before,
            actor=POLICY,
            reason=taken.reason,
            request_id=f"{POLICY}-{model}-{taken.watched.row.epoch}",
            expected_epoch=epoch,
            evidence=self._store.assessments.record(model, of_rollback(taken)),
        )
