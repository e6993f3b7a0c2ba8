"""The invariants of a release, checked on what was observed: in tests, after crashes, and by `release audit`.

Each finding names the invariant that it breaks, by its number on the page of the design: 2 path, 3 fixed digest,
4 restorable, 5 ledger, 7 fencing, 8 idempotent, 9 fail closed, 10 authority, 12 served is authorised, 14 projection,
16 liveness. Lineage has the number 0: nothing was released wrongly, but what proves it is gone.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from release_platform.domain.ledger import LedgerRow, certified_faults, faults, fold, standing
from release_platform.domain.lifecycle import Head, Move
from release_platform.domain.observation import DagsterView, Observation, RegistryView, ServerView, StoreView
from release_platform.domain.policy import (
    Facts,
    Hold,
    PromotionRequest,
    Registration,
    RequestState,
    binding_under,
    decide,
    same_person,
)
from release_platform.domain.projection import What
from release_platform.domain.spec import PolicySpec

LINEAGE = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken invariant.

    Attributes:
        invariant: Its number.
        model: The model.
        subject: What it is about, e.g. `version 3` or `ledger row 4`.
        problem: What is wrong, in a sentence.
    """

    invariant: int
    model: str
    subject: str
    problem: str

    @property
    def sentence(self) -> str:
        """Says it."""
        return f"{self.model}, {self.subject}: {self.problem}"


_Found = Iterator[tuple[int, str, str]]


def violations(seen: Observation) -> tuple[Finding, ...]:
    """Returns every invariant that is broken; systems that were not looked at are left out."""
    found = [*_ledger(seen.model, seen.store), *_moves(seen.store), *_requests(seen.store)]
    if seen.registry is not None:
        found += [*_projection(seen.registry), *_anchored(seen.model, seen.store, seen.registry)]
        found += _signed(seen.store, seen.registry)
    found += [*_kept(seen), *_runs(seen)]
    if seen.dagster is not None:
        found += _dagster(seen.store, seen.dagster)
    for server in seen.servers:
        found += _served(seen.store, server)
    return tuple(
        Finding(invariant=number, model=seen.model, subject=subject, problem=problem)
        for number, subject, problem in found
    )


def _ledger(model: str, store: StoreView) -> _Found:
    found = faults(model, store.rows)
    for fault in found:
        place, _, problem = fault.removeprefix(f"{model}, ").partition(": ")
        yield 5, place, problem
    if not found and fold(model, store.rows) != store.head:
        yield 5, "head", f"is not the fold of the ledger, which ends at epoch {len(store.rows)}"
    if store.projected_epoch > len(store.rows):
        yield 5, "head", f"epoch {store.projected_epoch} was projected, but the ledger ends at epoch {len(store.rows)}"


def _moves(store: StoreView) -> _Found:
    known = {registration.version: registration for registration in store.registrations}
    requests = {request.request_id: request for request in store.requests}
    staged: set[str] = set()
    for row in store.rows:
        registration = known.get(row.version)
        subject = f"ledger row {row.epoch}"
        if registration is None:
            yield 2, subject, f"moves version {row.version}, which was never registered"
        elif row.digest != registration.digest:
            yield 3, subject, f"moves version {row.version} with another digest than it was registered with"
        if row.move is Move.STAGED:
            staged.add(row.version)
        if row.move is Move.PROMOTED:
            request = requests.get(row.request_id)
            yield from _promotion(row, registration, request, row.version in staged)
            if registration is not None and request is not None:
                yield from _decided(row, registration, request, store)


def _promotion(
    row: LedgerRow, registration: Registration | None, request: PromotionRequest | None, was_staged: bool
) -> _Found:
    subject = f"ledger row {row.epoch}"
    if not was_staged:
        yield 2, subject, f"promotes version {row.version}, which was not in Staging before"
    if registration is not None:
        blocking = [gate for gate in registration.gates if gate.blocking]
        failed = [gate.gate for gate in blocking if not gate.passed]
        if failed or not blocking:
            said = (
                f"whose gate(s) {', '.join(failed)} did not pass" if failed else "no blocking gate of which was judged"
            )
            yield 9, subject, f"promotes version {row.version}, {said}"
    if request is None:
        yield 10, subject, f"promotes version {row.version} without a request"
    elif (request.version, request.state) != (row.version, RequestState.PROMOTED):
        asked = f"asks for version {request.version} and is {request.state}"
        number = 10 if request.version != row.version else 16
        yield number, subject, f"promotes version {row.version} by request {row.request_id}, which {asked}"
    elif not same_person(request.actor, row.actor):
        yield 10, subject, f"names {row.actor}, but {request.actor} asked for it"


def _decided(row: LedgerRow, registration: Registration, request: PromotionRequest, store: StoreView) -> _Found:
    """Decides once more what was decided then, under the policy of then."""
    subject = f"ledger row {row.epoch}"
    terms = [terms for digest, terms in store.policies.items() if binding_under(registration, digest) == row.evidence]
    if not terms:
        yield 2, subject, "its evidence is of no policy that the store knows, or of another model or report"
        return
    at = datetime.fromisoformat(row.at)
    staged = [r.at for r in store.rows if (r.move, r.version) == (Move.STAGED, row.version) and r.epoch < row.epoch]
    decision = decide(
        Facts(
            request=request,
            policy=PolicySpec.from_terms(terms[0]),
            head=Head.from_json(row.before),
            registration=registration,
            registry_digest=registration.digest,
            staged_at=datetime.fromisoformat(staged[-1]) if staged else None,
            approvals=[approval for approval in store.approvals if approval.approved_at <= at],
            now=at,
        )
    )
    if isinstance(decision, Hold):
        yield 2, subject, f"promotes version {row.version} too early: {'; '.join(decision.reasons)}"


def _requests(store: StoreView) -> _Found:
    moved = {row.request_id for row in store.rows if row.move is Move.PROMOTED}
    times = Counter(row.request_id for row in store.rows)
    for request_id, n_rows in times.items():
        if n_rows > 1:
            yield 8, f"request {request_id}", f"moved something {n_rows} times"
    asked = {request.request_id: request for request in store.requests}
    for request in store.requests:
        if request.state is RequestState.PROMOTED and request.request_id not in moved:
            yield 8, f"request {request.request_id}", "is said to be promoted, but the ledger has no row of it"
    for approval in store.approvals:
        request = asked[approval.request_id]
        if same_person(approval.actor, request.actor):
            yield 2, f"request {request.request_id}", f"was approved by {approval.actor}, who asked for it"


def _projection(registry: RegistryView) -> _Found:
    numbers = {What.ALIAS: 14, What.CERTIFICATE: 14, What.VERSION: 4, What.TAG: 3}
    for one in registry.deviations:
        subject = f"alias {one.name}" if one.what is What.ALIAS else f"version {one.version}"
        yield numbers[one.what], subject, one.sentence


def _anchored(model: str, store: StoreView, registry: RegistryView) -> _Found:
    for fault in certified_faults(model, store.rows, registry.certificates):
        place, _, problem = fault.removeprefix(f"{model}, ").partition(": ")
        yield 5, place, problem


def _signed(store: StoreView, registry: RegistryView) -> _Found:
    registered = {registration.version for registration in store.registrations}
    for version, problem in registry.unsigned.items():
        if version in registered:
            yield 3, f"version {version}", problem
    for version, tags in registry.shown.tags.items():
        if version not in registered:
            whose = "was registered by the platform" if registry.platform_tag in tags else "was registered by hand"
            yield LINEAGE, f"version {version}", f"{whose}, but the release store does not know it"
        elif version in store.removed:
            yield LINEAGE, f"version {version}", "was removed, but is in the registry again"


def _kept(seen: Observation) -> _Found:
    for version, problem in (seen.files or {}).items():
        if problem:
            yield 4 if version in seen.store.head.reachable else 3, f"version {version}", problem
    for registration in seen.store.present if seen.snapshots is not None else ():
        for uri in seen.snapshots_of.get(registration.version, ()):
            problem = (seen.snapshots or {}).get(uri, "")
            if problem:
                yield LINEAGE, f"version {registration.version}", f"its data: {problem}"


def _runs(seen: Observation) -> _Found:
    if seen.runs is None:
        return
    for registration in seen.store.present:
        run = seen.runs[registration.mlflow_run_id]
        subject, named = f"version {registration.version}", f"its MLflow run {run.run_id}"
        if run.problem:
            yield LINEAGE, subject, f"{named} {run.problem}"
            continue
        wanted = {"dagster_run_id": seen.store.tracked.get(run.run_id)}
        if not _registered_again(seen.store, registration):
            wanted |= {"release.version": registration.version, "release.digest": registration.digest}
        for name, value in wanted.items():
            if run.tags.get(name) != value:
                yield LINEAGE, subject, f"{named} has the tag {name} = {run.tags.get(name)} instead of {value}"


def _registered_again(store: StoreView, registration: Registration) -> bool:
    """Whether a newer version came out of the same MLflow run, which then names that one."""
    return any(
        other.mlflow_run_id == registration.mlflow_run_id and int(other.version) > int(registration.version)
        for other in store.registrations
    )


def _dagster(store: StoreView, dagster: DagsterView) -> _Found:
    shown = {(made.version, made.digest) for made in dagster.registered}
    for registration in store.present:
        subject = f"version {registration.version}"
        run = dagster.runs.get(registration.dagster_run_id)
        if run is None or run.problem:
            problem = "is not known" if run is None else run.problem
            yield LINEAGE, subject, f"its Dagster run {registration.dagster_run_id} {problem}"
        if (registration.version, registration.digest) not in shown:
            yield (
                LINEAGE,
                subject,
                "Dagster shows no materialization of registered_version with this version and digest",
            )
    rows = {row.epoch: row.hash for row in store.rows}
    put = next((row for row in standing(store.rows) if row.move is not Move.STAGED), None)
    if put is not None and put.hash not in {moved.ledger_hash for moved in dagster.moved}:
        yield (
            LINEAGE,
            "production_version",
            f"Dagster does not show the move to version {put.version}, epoch {put.epoch}",
        )
    for moved in dagster.moved:
        if moved.epoch is not None and rows.get(moved.epoch) != moved.ledger_hash:
            said = f"shows a move to version {moved.version} in epoch {moved.epoch}, which the ledger does not know"
            yield 5, "production_version", f"Dagster {said}"


def _served(store: StoreView, server: ServerView) -> _Found:
    head, subject = store.head, f"server {server.url}"
    if server.version is None:
        if head.production is not None:
            why = f": {server.refusal}" if server.refusal else ""
            yield 12, subject, f"serves nothing, but version {head.production} is in Production{why}"
        return
    if server.epoch is not None and server.epoch > head.epoch:
        yield 7, subject, f"accepted epoch {server.epoch}, but the head is at epoch {head.epoch}: the ledger lost rows"
        return
    row = next((row for row in store.rows if row.epoch == server.epoch), None)
    if row is None or (row.version, row.digest) != (server.version, server.digest):
        yield 12, subject, f"serves version {server.version} ({server.digest}), which no ledger row put there"
    elif server.version != head.production:
        yield 12, subject, f"serves version {server.version}, but version {head.production} is in Production"
