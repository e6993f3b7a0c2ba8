"""The release store: heads, ledger, registrations, requests, approvals and rollouts, in SQLite or PostgreSQL.

`commit_move` is the only writer of heads and ledger. It does the compare-and-set on the epoch and the hash-chained
ledger row in one transaction, so of any number of concurrent moves one wins and every other is told.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as DuplicateRow

from release_platform.adapters.assessment_store import AssessmentStore
from release_platform.adapters.card_store import CardStore
from release_platform.adapters.clock import SystemClock
from release_platform.adapters.deadlines import PATIENCE_S
from release_platform.adapters.drift_store import DriftStore
from release_platform.adapters.drill_store import DrillStore
from release_platform.adapters.outbox_store import OutboxStore, post_move
from release_platform.adapters.projection_store import ProjectionStore
from release_platform.adapters.replay_store import ReplayStore
from release_platform.adapters.rollout_store import RolloutStore
from release_platform.adapters.selftest_store import SelftestStore
from release_platform.adapters.store_database import grant, is_current, migrate, open_engine, store_url
from release_platform.adapters.store_tables import columns_of, damaged, read_json, readable, table
from release_platform.adapters.store_transactions import OutcomeUnknown, Transactions
from release_platform.adapters.verification_store import VerificationStore
from release_platform.adapters.window_store import WindowStore
from release_platform.domain.asked_rollout import AskedRollout
from release_platform.domain.errors import NotFound, Refused, StaleEpoch, Unavailable
from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.ledger import LedgerRow, genesis, promotion_of, sealed
from release_platform.domain.lifecycle import Head, Move, advance
from release_platform.domain.policy import Approval, PromotionRequest, Registration, RequestState
from release_platform.domain.ports import Clock
from release_platform.domain.retention import paths

_heads = table("heads", "model", "epoch projected_epoch", "state")
_ledger = table(
    "ledger",
    "model epoch",
    "move version weight actor reason request_id evidence digest at previous_hash hash",
    "before after",
)
_registrations = table(
    "registrations",
    "model version",
    "digest model_digest report_digest fingerprint baseline mlflow_run_id dagster_run_id code_version registered_at",
    "gates tags",
)
_requests = table("requests", "request_id", "model version actor reason requested_at state outcome strategy", "asked")
_approvals = table("approvals", "request_id actor binding approved_at", "reason")
_removals = table("removals", "model version", "actor reason at")
_policies = table("policies", "digest", "", "terms")
_tracked = table("tracked_runs", "dagster_run_id model", "mlflow_run_id")


class ReleaseStore:
    """The release store at a SQLAlchemy URL; brings its schema up to date when it is opened.

    Every method raises `Unavailable` when the database does not answer or cannot write.

    Attributes:
        rollouts: The rollouts in it.
        windows: The windows of live traffic in it.
        assessments: What aborts and automatic rollbacks in it were decided on.
        drills: The drills of rollbacks in it.
        drift: What drift reports said in it, day by day.
        replays: The replays of candidates in it.
        cards: What the kept model cards say.
        selftests: The proofs in it that gates stop spoilt models.
        outbox: The messages in it.
        projections: The projections that are under way.
        verifications: What verifications of live servers showed.

    Args:
        url: The address.
        clock: The time.
        patience_s: Seconds after which a transaction of PostgreSQL that does not end is given up.
    """

    def __init__(self, url: str, clock: Clock | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self._url = store_url(url)
        self._clock = clock or SystemClock()
        self._engine = open_engine(self._url, read_json=read_json, patience_s=patience_s)
        self._transactions = Transactions(self._engine)
        self.rollouts = RolloutStore(self._transactions, self._clock)
        self.windows = WindowStore(self._transactions)
        self.assessments = AssessmentStore(self._transactions)
        self.drills = DrillStore(self._transactions)
        self.drift = DriftStore(self._transactions)
        self.replays = ReplayStore(self._transactions)
        self.cards = CardStore(self._transactions)
        self.selftests = SelftestStore(self._transactions)
        self.outbox = OutboxStore(self._transactions)
        self.projections = ProjectionStore(self._transactions, self._clock)
        self.verifications = VerificationStore(self._transactions)
        with self._read() as connection:
            current = is_current(connection)
        if not current:
            with self._begin() as connection:
                migrate(connection)

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def grant(self, role: str) -> None:
        """Lets a role of PostgreSQL do what the platform does, and no more: to the ledger it can only append.

        Raises:
            Refused: There is no such role, the database has no roles, or this one does not own the tables.
        """
        with self._begin() as connection:
            grant(connection, role)

    # Heads and ledger

    def head(self, model: str) -> Head:
        """Returns where the versions of a model stand; the empty head for an unknown model."""
        with self._read() as connection:
            return _head(connection, model)

    def models(self) -> tuple[str, ...]:
        """Returns the names of all models that anything is recorded of, in order."""
        names = sa.union(*(sa.select(table.c.model) for table in (_heads, _ledger, _registrations, _requests)))
        with self._read() as connection:
            return tuple(sorted(connection.scalars(names)))

    def commit_move(
        self,
        *,
        model: str,
        move: Move,
        version: str,
        expected_epoch: int,
        actor: str,
        reason: str,
        request_id: str,
        evidence: str,
        digest: str,
        weight: float | None = None,
    ) -> LedgerRow:
        """Commits one transition and returns its ledger row; a request id that already moved something, that row.

        A move of a rollout is held to its promotion request: when that is closed, no traffic goes to its version.

        Raises:
            StaleEpoch: The head is not at `expected_epoch`.
            Refused: The move is not allowed from this head, the version was removed, or the request id belongs to
                another move.
        """
        try:
            with self._begin() as connection:
                held_to = promotion_of(move, request_id) if move.forward(weight) else request_id
                closed = _lock_request(connection, held_to)
                done = _find_done(connection, request_id, (model, move, version))
                if done is not None:
                    return done
                if closed is not None:
                    raise Refused(f"request {request_id} {closed}", remedy="open a new request")
                head = _head(connection, model)
                if head.epoch != expected_epoch:
                    raise StaleEpoch(model, expected=expected_epoch, found=head.epoch)
                after, last = advance(head, move, version, weight), _last_row(connection, model)
                row = sealed(
                    LedgerRow(
                        model=model,
                        epoch=after.epoch,
                        move=move,
                        version=version,
                        weight=None if weight is None else float(weight),
                        actor=actor,
                        reason=reason,
                        request_id=request_id,
                        evidence=evidence,
                        digest=digest,
                        before=head.to_json(),
                        after=after.to_json(),
                        at=_not_before(last, self._clock.now()),
                        previous_hash=genesis(model) if last is None else last.hash,
                    )
                )
                _compare_and_set(connection, head, after)
                _refuse_removed(connection, model, version)  # after the head's row is ours: removals wait for it
                connection.execute(_ledger.insert().values(_row_values(row)))
                post_move(connection, row)
                return row
        except (DuplicateRow, StaleEpoch):  # another was first: perhaps this very request, sent twice
            with self._begin() as connection:
                done, last = _find_done(connection, request_id, (model, move, version)), _last_row(connection, model)
            if done is not None:
                return done
            first = "" if last is None else f"version {last.version} was {last.move} by {last.actor}"
            found = 0 if last is None else last.epoch
            raise StaleEpoch(model, expected=expected_epoch, found=found, first=first) from None
        except OutcomeUnknown as error:
            return self._moved(request_id, (model, move, version), error)

    def _moved(self, request_id: str, wanted: tuple[str, Move, str], unknown: OutcomeUnknown) -> LedgerRow:
        """Returns the row of a move whose commit was not answered, if it is there."""
        model, move, version = wanted
        with suppress(Unavailable), self._begin() as connection:
            _lock_head(connection, model)  # until the transaction that was not answered has ended
            done = _find_done(connection, request_id, wanted)
            if done is not None:
                return done
        raise Unavailable(
            f"{unknown.problem}; whether {model} version {version} is {move} is not known (request {request_id})",
            remedy=f"{unknown.remedy}; `release history {model}` shows whether it was",
        ) from unknown

    def ledger(self, model: str) -> tuple[LedgerRow, ...]:
        """Returns all ledger rows of a model, by epoch."""
        with self._read() as connection:
            rows = connection.execute(_ledger.select().where(_ledger.c.model == model).order_by(_ledger.c.epoch))
            return tuple(_row_from(row) for row in rows.mappings())

    def projected_epoch(self, model: str) -> int:
        """Returns the epoch that the registry's aliases were last moved to; 0 before the first."""
        with self._read() as connection:
            found = connection.scalar(sa.select(_heads.c.projected_epoch).where(_heads.c.model == model))
            with readable(f"the head of {model}"):
                return int(found or 0)

    def mark_projected(self, model: str, epoch: int) -> None:
        """Records that the registry's aliases show the head of this epoch; never goes back."""
        with self._begin() as connection:
            connection.execute(
                _heads.update()
                .where(_heads.c.model == model, _heads.c.projected_epoch < epoch)
                .values(projected_epoch=epoch)
            )

    # Registrations

    def record_registration(self, registration: Registration) -> Registration:
        """Records a registered version and returns what is recorded: of the same version again, the first record.

        Raises:
            Refused: The version is recorded with another digest.
        """
        values = {name: getattr(registration, name) for name in columns_of(_registrations)}
        values["gates"] = [gate.to_json() for gate in registration.gates]
        values["tags"] = dict(registration.tags)
        values["registered_at"] = registration.registered_at.isoformat()
        try:
            with self._begin() as connection:
                connection.execute(_registrations.insert().values(values))
        except DuplicateRow:
            known = self.find_registration(registration.model, registration.version)
            if known is None or known.digest != registration.digest:
                raise Refused(
                    f"{registration.model}: version {registration.version} is recorded with another digest",
                    remedy="a version never changes; register the model again",
                ) from None
            return known
        return registration

    def get_registration(self, model: str, version: str) -> Registration:
        """Returns what was recorded of a version.

        Raises:
            NotFound: There is no such version.
        """
        found = self.find_registration(model, version)
        if found is None:
            raise NotFound(
                f"{model}: there is no version {version}", remedy=f"`release history {model}` lists its versions"
            )
        return found

    def find_registration(self, model: str, version: str) -> Registration | None:
        """Returns what was recorded of a version, or None."""
        query = _registrations.select().where(_registrations.c.model == model, _registrations.c.version == version)
        with self._read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _registration_from(row)

    def recorded_tags(self, model: str) -> dict[str, dict[str, str]]:
        """Returns the tags that the registry must show of each version that was not removed, by its number."""
        removed = sa.select(_removals.c.version).where(_removals.c.model == model)
        query = sa.select(_registrations.c.version, _registrations.c.tags).where(
            _registrations.c.model == model, _registrations.c.version.not_in(removed)
        )
        with self._read() as connection:
            return {row.version: _tags(model, row.version, row.tags) for row in connection.execute(query)}

    def replace_tag(self, model: str, version: str, name: str, value: str) -> None:
        """Records another value of a tag of a version: a signature by a newer key."""
        of = (_registrations.c.model == model, _registrations.c.version == version)
        with self._begin() as connection:
            tags = connection.scalar(sa.select(_registrations.c.tags).where(*of)) or {}
            connection.execute(_registrations.update().where(*of).values(tags={**tags, name: value}))

    def record_removal(self, model: str, version: str, *, actor: str, reason: str) -> None:
        """Records that a version is removed from the registry, for good; again does nothing.

        Whoever moves or requests the version at the same time is refused, or this is.

        Raises:
            Refused: Something reaches it; says what.
            NotFound: There is no such version.
        """
        if self.find_registration(model, version) is None:
            raise NotFound(f"{model}: there is no version {version}", remedy=f"`release history {model}` lists them")
        values = {"model": model, "version": version, "actor": actor, "reason": reason}
        with suppress(DuplicateRow), self._begin() as connection:
            head = _lock_head(connection, model)
            asked = connection.execute(_requests.select().where(_requests.c.model == model)).mappings()
            reached = paths(head, [_request_from(row) for row in asked])
            if version in reached:
                raise Refused(
                    f"{model}: version {version} cannot be removed: {reached[version]}",
                    remedy=f"what a rollback may need is kept for good; see `release status {model}`",
                )
            connection.execute(_removals.insert().values(at=self._clock.now().isoformat(), **values))

    def removed(self, model: str) -> frozenset[str]:
        """Returns the versions that were removed from the registry through the platform."""
        with self._read() as connection:
            return frozenset(connection.scalars(sa.select(_removals.c.version).where(_removals.c.model == model)))

    def registrations(self, model: str) -> tuple[Registration, ...]:
        """Returns what was recorded of all versions of a model, oldest first."""
        query = _registrations.select().where(_registrations.c.model == model)
        with self._read() as connection:
            rows = [_registration_from(row) for row in connection.execute(query).mappings()]
        return tuple(sorted(rows, key=lambda r: int(r.version)))

    # Requests and approvals

    def open_request(self, request: PromotionRequest) -> PromotionRequest:
        """Records a promotion request and returns it; one id has one request, whatever is sent again.

        Raises:
            Refused: The id belongs to a request for another model or version, or the version was removed.
        """
        values = {name: getattr(request, name) for name in columns_of(_requests)}
        values["requested_at"] = request.requested_at.isoformat()
        values["asked"] = None if request.asked.says_nothing else request.asked.to_json()
        try:
            with self._begin() as connection:
                _lock_head(connection, request.model)
                _refuse_removed(connection, request.model, request.version)
                connection.execute(_requests.insert().values(values))
        except DuplicateRow:
            known = self.get_request(request.request_id)
            if (known.model, known.version) != (request.model, request.version):
                raise Refused(
                    f"request {request.request_id} already asks for {known.model} version {known.version}",
                    remedy="use a new request id",
                ) from None
            return known
        return request

    def get_request(self, request_id: str) -> PromotionRequest:
        """Returns a request.

        Raises:
            NotFound: There is none of that id.
        """
        found = self.find_request(request_id)
        if found is None:
            raise NotFound(
                f"there is no promotion request {request_id}", remedy="`release status MODEL` lists the open ones"
            )
        return found

    def find_request(self, request_id: str) -> PromotionRequest | None:
        """Returns a request, or None."""
        with self._read() as connection:
            row = connection.execute(_requests.select().where(_requests.c.request_id == request_id)).mappings().first()
        return None if row is None else _request_from(row)

    def requests(self, model: str, state: RequestState | None = None) -> tuple[PromotionRequest, ...]:
        """Returns the requests of a model, oldest first; only those in one state if it is given."""
        query = _requests.select().where(_requests.c.model == model).order_by(_requests.c.requested_at)
        if state is not None:
            query = query.where(_requests.c.state == state)
        with self._read() as connection:
            return tuple(_request_from(row) for row in connection.execute(query).mappings())

    def close_request(self, request_id: str, state: RequestState, outcome: str) -> None:
        """Ends an open request; does nothing to one that is closed. What moved Production is never refused."""
        with self._begin() as connection:
            _lock_request(connection, request_id)
            done = _find_row(connection, request_id)
            if done is not None and done.move is Move.PROMOTED:
                state, outcome = RequestState.PROMOTED, f"epoch {done.epoch}"
            connection.execute(
                _requests.update()
                .where(_requests.c.request_id == request_id, _requests.c.state == RequestState.OPEN)
                .values(state=state, outcome=outcome)
            )

    def record_approval(self, approval: Approval) -> None:
        """Records an approval; the same one again does nothing, a later one of the same person is kept beside it."""
        values = {name: getattr(approval, name) for name in columns_of(_approvals)}
        values["approved_at"] = approval.approved_at.astimezone(UTC).isoformat()
        with suppress(DuplicateRow), self._begin() as connection:
            connection.execute(_approvals.insert().values(values))

    def approvals(self, request_id: str) -> tuple[Approval, ...]:
        """Returns all approvals of a request, void ones too, oldest first."""
        query = _approvals.select().where(_approvals.c.request_id == request_id).order_by(_approvals.c.approved_at)
        with self._read() as connection:
            return tuple(_approval_from(row) for row in connection.execute(query).mappings())

    def approvals_of(self, model: str) -> tuple[Approval, ...]:
        """Returns all approvals of a model's requests, void ones too, oldest first."""
        asked = sa.select(_requests.c.request_id).where(_requests.c.model == model)
        query = _approvals.select().where(_approvals.c.request_id.in_(asked)).order_by(_approvals.c.approved_at)
        with self._read() as connection:
            return tuple(_approval_from(row) for row in connection.execute(query).mappings())

    def record_policy(self, digest: str, terms: Mapping[str, Any]) -> None:
        """Records what a policy that something was promoted under says; again does nothing."""
        with suppress(DuplicateRow), self._begin() as connection:
            connection.execute(_policies.insert().values(digest=digest, terms=dict(terms)))

    def policies(self) -> dict[str, dict[str, Any]]:
        """Returns what each policy says that something was promoted under, by its digest."""
        with self._read() as connection:
            return {row.digest: row.terms for row in connection.execute(_policies.select())}

    # Tracking runs

    def find_tracked_run(self, dagster_run_id: str, model: str) -> str | None:
        """Returns the MLflow run of a Dagster run and model, or None."""
        query = sa.select(_tracked.c.mlflow_run_id).where(
            _tracked.c.dagster_run_id == dagster_run_id, _tracked.c.model == model
        )
        with self._read() as connection:
            return connection.scalar(query)

    def claim_tracked_run(self, dagster_run_id: str, model: str, mlflow_run_id: str) -> str:
        """Records the MLflow run of a Dagster run and model; returns the one that holds: an earlier one stays."""
        values = {"dagster_run_id": dagster_run_id, "model": model, "mlflow_run_id": mlflow_run_id}
        try:
            with self._begin() as connection:
                connection.execute(_tracked.insert().values(values))
        except DuplicateRow:
            return self.find_tracked_run(dagster_run_id, model) or mlflow_run_id
        return mlflow_run_id

    def tracking(self, model: str) -> dict[str, str]:
        """Returns the Dagster run of each MLflow run that was opened for a model."""
        query = sa.select(_tracked.c.mlflow_run_id, _tracked.c.dagster_run_id).where(_tracked.c.model == model)
        with self._read() as connection:
            return {row.mlflow_run_id: row.dagster_run_id for row in connection.execute(query)}

    def tracked_runs(self, dagster_run_id: str) -> tuple[tuple[str, str], ...]:
        """Returns (model, MLflow run) of each run that a Dagster run opened."""
        query = sa.select(_tracked.c.model, _tracked.c.mlflow_run_id).where(_tracked.c.dagster_run_id == dagster_run_id)
        with self._read() as connection:
            return tuple((row.model, row.mlflow_run_id) for row in connection.execute(query))

    def _begin(self) -> AbstractContextManager[sa.Connection]:
        """Returns a transaction that may write."""
        return self._transactions.begin()

    def _read(self) -> AbstractContextManager[sa.Connection]:
        """Returns a transaction that reads only; it never waits for one that writes."""
        return self._transactions.read()


def _head(connection: sa.Connection, model: str) -> Head:
    row = connection.execute(sa.select(_heads.c.state, _heads.c.epoch).where(_heads.c.model == model)).first()
    if row is None:
        return Head(model=model)
    with readable(f"the head of {model}"):
        head = Head.from_json(row.state)
    if head.epoch != row.epoch:
        raise damaged(f"the head of {model} has two epochs: {head.epoch} and {row.epoch}")
    return head


def _lock_head(connection: sa.Connection, model: str) -> Head:
    """Returns the head, which nobody else changes until the transaction ends."""
    connection.execute(sa.select(_heads.c.epoch).where(_heads.c.model == model).with_for_update())
    return _head(connection, model)


def _refuse_removed(connection: sa.Connection, model: str, version: str) -> None:
    removal = connection.execute(
        _removals.select().where(_removals.c.model == model, _removals.c.version == version)
    ).first()
    if removal is not None:
        raise Refused(
            f"{model}: version {version} was removed by {removal.actor} at {removal.at}: {removal.reason}",
            remedy=f"`release run {model}` makes a new version",
        )


def _compare_and_set(connection: sa.Connection, head: Head, after: Head) -> None:
    values = {"epoch": after.epoch, "state": after.to_json()}
    if head.epoch == 0:
        connection.execute(_heads.insert().values(model=head.model, projected_epoch=0, **values))
        return
    changed = connection.execute(
        _heads.update().where(_heads.c.model == head.model, _heads.c.epoch == head.epoch).values(**values)
    )
    if changed.rowcount != 1:
        raise StaleEpoch(head.model, expected=head.epoch, found=_head(connection, head.model).epoch)


def _last_row(connection: sa.Connection, model: str) -> LedgerRow | None:
    query = _ledger.select().where(_ledger.c.model == model).order_by(_ledger.c.epoch.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else _row_from(row)


def _not_before(last: LedgerRow | None, now: datetime) -> str:
    """Returns the time of the next row: the ledger stays in order of time, although a clock goes back."""
    return (now if last is None else max(now, datetime.fromisoformat(last.at))).isoformat()


def _lock_request(connection: sa.Connection, request_id: str) -> str | None:
    """Lets nobody else close or carry out a request until the transaction ends; returns why it is closed, or None.

    One that was promoted is not closed in this sense: carrying it out again is answered with what it moved.
    """
    query = sa.select(_requests.c.state, _requests.c.outcome).where(_requests.c.request_id == request_id)
    found = connection.execute(query.with_for_update()).first()
    closed = {RequestState.REFUSED, RequestState.CANCELLED}
    return f"is {found.state}: {found.outcome}" if found is not None and found.state in closed else None


def _find_done(connection: sa.Connection, request_id: str, wanted: tuple[str, Move, str]) -> LedgerRow | None:
    done = _find_row(connection, request_id)
    if done is not None and (done.model, done.move, done.version) != wanted:
        raise Refused(
            f"request {request_id} already did something else: {done.move} {done.model} {done.version}",
            remedy="use a new request id",
        )
    return done


def _find_row(connection: sa.Connection, request_id: str) -> LedgerRow | None:
    row = connection.execute(_ledger.select().where(_ledger.c.request_id == request_id)).mappings().first()
    return None if row is None else _row_from(row)


def _row_values(row: LedgerRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in columns_of(_ledger)}


def _row_from(row: Mapping[Any, Any]) -> LedgerRow:
    with readable(f"row {row['epoch']} of the ledger of {row['model']}"):
        return LedgerRow(**{**row, "move": Move(row["move"])})


def _request_from(row: Mapping[Any, Any]) -> PromotionRequest:
    with readable(f"request {row['request_id']}"):
        return PromotionRequest(
            **{
                **row,
                "requested_at": datetime.fromisoformat(row["requested_at"]),
                "state": RequestState(row["state"]),
                "asked": AskedRollout() if row["asked"] is None else AskedRollout.from_json(row["asked"]),
            }
        )


def _approval_from(row: Mapping[Any, Any]) -> Approval:
    with readable(f"the approval of request {row['request_id']} by {row['actor']}"):
        return Approval(**{**row, "approved_at": datetime.fromisoformat(row["approved_at"])})


def _registration_from(row: Mapping[Any, Any]) -> Registration:
    model, version = row["model"], row["version"]
    with readable(f"the registration of {model} version {version}"):
        int(version)
        gates = tuple(GateResult(**{**gate, "verdict": Verdict(gate["verdict"])}) for gate in row["gates"])
        registered_at = datetime.fromisoformat(row["registered_at"])
        tags = _tags(model, version, row["tags"])
        return Registration(**{**row, "gates": gates, "tags": tags, "registered_at": registered_at})


def _tags(model: str, version: str, value: Any) -> dict[str, str]:
    with readable(f"the registration of {model} version {version}"):
        return dict(value or {})
