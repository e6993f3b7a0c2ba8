"""The invariants of a release, checked on what was observed: in tests, after crashes, and by `release audit`.

Each finding names the invariant that it breaks, by its number on the page of the design: 2 path, 3 fixed digest,
4 restorable, 5 ledger, 7 fencing, 8 idempotent, 9 fail closed, 10 authority, 12 served is authorised, 14 projection,
16 liveness. Lineage has the number 0: nothing was released wrongly, but what proves it is gone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from release_platform.domain.assessed import Kept, fault_of, must_name
from release_platform.domain.fingerprint import combined
from release_platform.domain.freeze import find_freeze
from release_platform.domain.ledger import (
    LedgerRow,
    certified_faults,
    faults,
    fold,
    moves_production,
    request_of,
    standing,
)
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
from release_platform.domain.policy_spec import PolicySpec
from release_platform.domain.projection import What
from release_platform.domain.replay import Replay

LINEAGE = 0
UNREADABLE = 9
"""A record that cannot be read counts as broken: fail closed."""


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
    """Returns every invariant that is broken; systems that were not looked at are left out.

    What is found twice in the same words, e.g. by its signature and by its files, is told once.
    """
    found = [*_ledger(seen.model, seen.store), *_moves(seen.store), *_requests(seen.store)]
    if seen.registry is not None:
        found += [*_projection(seen.registry), *_anchored(seen.model, seen.store, seen.registry)]
        found += [*_signed(seen.store, seen.registry), *_orphans(seen.store, seen.registry)]
    found += [*_kept(seen), *_proven(seen), *_data(seen), *_runs(seen)]
    if seen.dagster is not None:
        found += _dagster(seen.store, seen.dagster)
    for server in seen.servers:
        found += _served(seen.store, server)
    once = {(subject, problem): number for number, subject, problem in reversed(found)}
    return tuple(
        Finding(invariant=number, model=seen.model, subject=subject, problem=problem)
        for (subject, problem), number in reversed(once.items())
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
        fault = fault_of(row, store.assessments.get(row.evidence, Kept())) if must_name(row) else None
        if fault is not None:
            yield 5, subject, fault
        if row.move.forward(row.weight):
            request = requests.get(request_of(row))
            yield from _forward(row, registration, request, row.version in staged)
            if registration is not None and request is not None:
                yield from _decided(row, registration, request, store)


def _forward(
    row: LedgerRow, registration: Registration | None, request: PromotionRequest | None, was_staged: bool
) -> _Found:
    """What a version must have, and who must have asked for it, before it gets traffic."""
    subject = f"ledger row {row.epoch}"
    what = f"{'promotes' if row.move is Move.PROMOTED else 'gives traffic to'} version {row.version}"
    if not was_staged:
        yield 2, subject, f"{what}, which was not in Staging before"
    if registration is not None:
        blocking = [gate for gate in registration.gates if gate.blocking]
        failed = [gate.gate for gate in blocking if not gate.passed]
        if failed or not blocking:
            said = (
                f"whose gate(s) {', '.join(failed)} did not pass" if failed else "no blocking gate of which was judged"
            )
            yield 9, subject, f"{what}, {said}"
    if request is None:
        yield 10, subject, f"{what} without a request"
    elif request.version != row.version:
        asked = f"asks for version {request.version} and is {request.state}"
        yield 10, subject, f"{what} by request {request.request_id}, which {asked}"
    elif not same_person(request.actor, row.actor):
        yield 10, subject, f"names {row.actor}, but {request.actor} asked for it"
    elif row.move is Move.PROMOTED:
        yield from _promotion(row, request)


def _promotion(row: LedgerRow, request: PromotionRequest) -> _Found:
    subject = f"ledger row {row.epoch}"
    if request.state is not RequestState.PROMOTED:
        asked = f"asks for version {request.version} and is {request.state}"
        yield 16, subject, f"promotes version {row.version} by request {row.request_id}, which {asked}"
    elif request.reason != row.reason:
        yield 10, subject, f"gives another reason than request {row.request_id}"


def _decided(row: LedgerRow, registration: Registration, request: PromotionRequest, store: StoreView) -> _Found:
    """Decides once more what was decided then, under the policy of then.

    A rollout is decided when its version first gets traffic; later it goes no further in a freeze.
    """
    subject, begun = f"ledger row {row.epoch}", _begun(row, store.rows)
    terms = [terms for digest, terms in store.policies.items() if binding_under(registration, digest) == row.evidence]
    if not terms:
        yield 2, subject, "its evidence is of no policy that the store knows, or of another model or report"
        return
    policy, at = PolicySpec.from_terms(terms[0]), datetime.fromisoformat(begun.at)
    staged = [r.at for r in store.rows if (r.move, r.version) == (Move.STAGED, row.version) and r.epoch < begun.epoch]
    decision = decide(
        Facts(
            request=request,
            policy=policy,
            head=Head.from_json(begun.before),
            registration=registration,
            registry_digest=registration.digest,
            staged_at=datetime.fromisoformat(staged[-1]) if staged else None,
            approvals=[approval for approval in store.approvals if approval.approved_at <= at],
            now=at,
            replay=_replay_then(row.version, at, store),
        )
    )
    what = f"{'promotes' if row.move is Move.PROMOTED else 'gives traffic to'} version {row.version}"
    if isinstance(decision, Hold):
        yield 2, subject, f"{what} too early: {'; '.join(decision.reasons)}"
    freeze = find_freeze(policy.freeze, datetime.fromisoformat(row.at))
    if begun is not row and freeze is not None:
        yield 2, subject, f"{what} too early: {freeze.said}"


def _replay_then(version: str, at: datetime, store: StoreView) -> Replay | None:
    """Returns the last replay of a version that was made until then; a later one was not known to whoever decided."""
    made = [one for one in store.replays if one.candidate.version == version and datetime.fromisoformat(one.at) <= at]
    return made[-1] if made else None


def _begun(row: LedgerRow, rows: tuple[LedgerRow, ...]) -> LedgerRow:
    """Returns the row by which the version first got traffic of the request that this row is of."""
    begun = row
    for one in rows:
        forward = one.move.forward(one.weight) and one.epoch <= row.epoch
        if forward and request_of(one) == request_of(row) and row.version not in Head.from_json(one.before).beside:
            begun = one
    return begun


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
        yield numbers[one.what], subject, one.sentence.removeprefix(f"{subject} ")
    if registry.shown.tags and not registry.listed:
        yield 14, "registered model", "is not marked as a model of the platform in the registry: no server looks for it"


def _anchored(model: str, store: StoreView, registry: RegistryView) -> _Found:
    for fault in certified_faults(model, store.rows, registry.certificates):
        place, _, problem = fault.removeprefix(f"{model}, ").partition(": ")
        yield 5, place, problem


def _signed(store: StoreView, registry: RegistryView) -> _Found:
    for registration in store.present:
        version = registration.version
        problem = registry.unsigned.get(version)
        if problem and version in store.head.reachable:  # the others may keep a signature by a key of former times
            yield 3, f"version {version}", problem
        vouched = registry.signed.get(version, {})
        for name, value in _recorded(registration).items():
            if name in vouched and vouched[name] != value:
                yield 3, f"version {version}", f"what the release store says of {name} is not what was signed"


def _recorded(registration: Registration) -> dict[str, object]:
    return {
        "digest": registration.digest,
        "model_digest": registration.model_digest,
        "report_digest": registration.report_digest,
        "data_fingerprint": registration.fingerprint,
        "code_version": registration.code_version,
        "gates": {gate.gate: gate.verdict.value for gate in registration.gates},
    }


def _orphans(store: StoreView, registry: RegistryView) -> _Found:
    registered = {registration.version for registration in store.registrations}
    for version, tags in registry.shown.tags.items():
        if version not in registered:
            whose = "was registered by the platform" if registry.platform_tag in tags else "was registered by hand"
            yield LINEAGE, f"version {version}", f"{whose}, but the release store does not know it"
        elif version in store.removed:
            yield LINEAGE, f"version {version}", "was removed, but is in the registry again"
    for version in sorted(store.removed & store.head.reachable):
        yield 4, f"version {version}", "is recorded as removed, but the head still reaches it"


def _proven(seen: Observation) -> _Found:
    for version, problem in seen.proofs.items():
        if problem:
            yield 2, f"version {version}", f"the proof that its gates stop spoilt models {problem}"


def _kept(seen: Observation) -> _Found:
    for version, problem in (seen.files or {}).items():
        if problem:
            yield 4 if version in seen.store.head.reachable else 3, f"version {version}", problem


def _data(seen: Observation) -> _Found:
    for registration in seen.store.present if seen.snapshots is not None else ():
        uris = seen.snapshots_of.get(registration.version)
        if uris is None:  # its run is gone, which is told
            continue
        subject = f"version {registration.version}"
        if not uris:
            yield LINEAGE, subject, "its MLflow run names no data"
            continue
        stored = {key: (seen.snapshots or {})[uri] for key, uri in uris.items()}
        problems = [one.problem for one in stored.values() if one.problem]
        for problem in problems:
            yield LINEAGE, subject, f"its data: {problem}"
        if not problems and _fingerprint({key: one.digest for key, one in stored.items()}) != registration.fingerprint:
            yield LINEAGE, subject, "its data: the snapshots that its MLflow run names are other data"


def _fingerprint(parts: Mapping[str, str]) -> str:
    return next(iter(parts.values())) if len(parts) == 1 else combined(parts)


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
        subject, run_id = f"version {registration.version}", registration.dagster_run_id
        run = dagster.runs.get(run_id)
        if run is None or run.problem:
            yield LINEAGE, subject, f"its Dagster run {run_id} {'is not known' if run is None else run.problem}"
        if (registration.version, registration.digest) not in shown:
            yield LINEAGE, subject, "no materialization of registered_version in Dagster has this version and digest"
    known = {(registration.version, registration.digest) for registration in store.registrations}
    for version, digest in sorted(shown - known, key=str):
        yield (
            LINEAGE,
            "registered_version",
            f"Dagster shows version {version} ({digest}), which the release store does not know",
        )
    yield from _moves_in_dagster(store, dagster)


def _moves_in_dagster(store: StoreView, dagster: DagsterView) -> _Found:
    made = {(row.epoch, row.hash, row.version, row.digest) for row in store.rows if moves_production(row)}
    shown = {(moved.epoch, moved.ledger_hash, moved.version, moved.digest) for moved in dagster.moved}
    for epoch, _, version, _ in sorted(shown - made, key=str):
        said = f"shows a move to version {version} (epoch {epoch}) that the ledger does not know"
        yield 5, "production_version", f"Dagster {said}"
    put = next((row for row in standing(store.rows) if moves_production(row)), None)
    if put is not None and (put.epoch, put.hash, put.version, put.digest) not in shown:
        said = f"does not show the move to version {put.version}, epoch {put.epoch}"
        yield LINEAGE, "production_version", f"Dagster {said}"


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
    put = {(row.epoch, row.version, row.digest) for row in store.rows if moves_production(row)}
    if (server.epoch, server.version, server.digest) not in put:
        yield 12, subject, f"serves version {server.version} ({server.digest}), which no ledger row put there"
    elif server.version != head.production:
        why = f": {server.refusal}" if server.refusal else ""
        yield 12, subject, f"serves version {server.version}, but version {head.production} is in Production{why}"
