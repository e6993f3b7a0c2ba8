"""Brings the versions that stand beside Production, canary and shadow, by the rules by which Production's is taken.

A certificate of an alias `canary` or `shadow` says which share of the requests its version is asked. It counts while it
is of a later move than the one that put the live version into Production, so a promotion or a rollback ends it, whether
the alias is gone by then or not. What is not proven changes nothing: the version that was proven last stays. A version
that is proven but cannot be loaded takes the place of the one before it all the same: it gets no requests.

A certificate may also be pushed here, then with the weight 0 too, which takes the version away. A registry that is
behind a push changes nothing.
"""

import logging

from release_platform.adapters.trust import Proof, proof_of
from release_platform.domain.attestation import Certificate
from release_platform.domain.errors import IntegrityError, Unavailable
from release_platform.domain.identity import Manifest
from release_platform.domain.ports import VersionRecord
from release_platform.domain.windows import Route
from serving.models import BESIDE, Beside, Event, LoadedModel, Lost, Origin, Refusal, RouteTable, StoodBeside
from serving.registry import ModelSource, reason_of

_LOG = logging.getLogger(__name__)


class BesideSource:
    """Looks who stands beside Production. All of it blocks: call it on a thread, and look one look at a time."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._accepted: dict[tuple[str, Route], int] = {}
        self._pushed: dict[tuple[str, Route], int] = {}

    def look(self, model: str, table: RouteTable) -> tuple[Event, ...]:
        """Returns what changed on the routes beside Production of a model.

        Whatever goes wrong with a version is a refusal, never an exception.
        """
        found = (self._look(model, route, table) for route in BESIDE)
        return tuple(event for event in found if event is not None)

    def take(self, certificate: Certificate, proof: Proof, manifest: Manifest, table: RouteTable) -> StoodBeside | None:
        """Returns what a pushed and authorised certificate makes of its route; None when it comes too late.

        Whoever has an old certificate may push it. So one that gives a share counts only if the registry shows no later
        one; taking away needs no registry.

        Raises:
            Exception: The registry does not answer, or its files cannot be had, or are not good.
        """
        model, route = certificate.model, Route(certificate.alias)
        live, before = table.loaded.get(model), table.beside(route).get(model)
        late = live is None or certificate.epoch <= live.epoch or certificate.version == live.version
        if late or certificate.epoch < self._accepted.get((model, route), 0):
            return None
        beside: Beside | None = None
        if certificate.weight:
            try:
                self._source.check_newest(certificate)
            except IntegrityError:
                return None
            same = before is not None and before.loaded.version == certificate.version
            now = before.loaded if before is not None and same else None
            loaded = self._source.prepare(certificate, proof, manifest, now, Origin.PUSH)
            beside = Beside(loaded=loaded, weight=certificate.weight)
        self._accepted[model, route] = max(certificate.epoch, self._accepted.get((model, route), 0))
        self._pushed[model, route] = max(certificate.epoch, self._pushed.get((model, route), 0))
        return StoodBeside(model=model, route=route, beside=beside)

    def is_newest(self, certificate: Certificate) -> bool:
        """Whether no later certificate of the same route was accepted."""
        return certificate.epoch >= self._accepted.get((certificate.model, Route(certificate.alias)), 0)

    def is_overtaken(self, event: StoodBeside, began: RouteTable, now: RouteTable) -> bool:
        """Whether a push came while a look was under way that began with another table; the next look sees to it."""
        model, route = event.model, event.route
        older = event.beside is not None and event.beside.loaded.epoch < self._accepted.get((model, route), 0)
        return older or began.beside(route).get(model) is not now.beside(route).get(model)

    def _look(self, model: str, route: Route, table: RouteTable) -> Event | None:
        live, beside = table.loaded.get(model), table.beside(route).get(model)
        refusal = table.refusals_beside.get((model, route))
        version: str | None = None
        try:
            registry = self._source.reach()
            version = registry.find_alias(model, route)
            if version is None or live is None:
                return None if beside is None and refusal is None else StoodBeside(model=model, route=route)
            record = registry.get_version(model, version)
            proof = proof_of(record, route)
            if beside is not None and (beside.loaded.version, beside.loaded.proof) == (version, proof):
                return None if refusal is None else StoodBeside(model=model, route=route, beside=beside)
            certificate = self._source.authorise(proof, record.manifest, model, version, alias=route)
            if certificate.epoch < self._pushed.get((model, route), 0):
                return None
            self._check(certificate, record, route, live)
        except Unavailable as error:
            return Lost(problem=error.problem)
        except Exception as error:  # noqa: BLE001 - no version, however broken, may take a good one down
            return self._refused(model, route, version, error, refusal, beside)
        return self._take(certificate, proof, record, route, beside, refusal)

    def _check(self, certificate: Certificate, record: VersionRecord, route: Route, live: LoadedModel) -> None:
        accepted = self._accepted.get((record.model, route), 0)
        of = f"{record.model} version {record.version} is on the route {route} since epoch {certificate.epoch}"
        if certificate.epoch < accepted:
            raise IntegrityError(
                f"{of}, but epoch {accepted} was accepted already",
                remedy=f"the alias was moved behind the platform's back; see `release history {record.model}`",
            )
        if certificate.epoch <= live.epoch or record.version == live.version:
            raise IntegrityError(
                f"{of}, but Production has moved in epoch {live.epoch}",
                remedy="nothing is to be done: the alias goes when the platform has finished that move",
            )
        self._source.check_newest(certificate)

    def _take(
        self,
        certificate: Certificate,
        proof: Proof,
        record: VersionRecord,
        route: Route,
        before: Beside | None,
        refusal: Refusal | None,
    ) -> Event | None:
        model, version = certificate.model, certificate.version
        self._accepted[model, route] = max(certificate.epoch, self._accepted.get((model, route), 0))
        same = before is not None and before.loaded.version == version
        waits = refusal is not None and refusal.version == version and self._source.now() < refusal.retry_at
        if waits and before is None:
            return None
        try:
            now = before.loaded if before is not None and same else None
            loaded = self._source.prepare(certificate, proof, record.manifest, now, Origin.REGISTRY)
        except Exception as error:  # noqa: BLE001 - as above
            return self._refused(model, route, version, error, refusal, None)
        assert certificate.weight is not None
        return StoodBeside(model=model, route=route, beside=Beside(loaded=loaded, weight=certificate.weight))

    def _refused(
        self,
        model: str,
        route: Route,
        version: str | None,
        error: Exception,
        before: Refusal | None,
        beside: Beside | None,
    ) -> StoodBeside:
        if before is None or before.version != version:
            _LOG.warning("%s version %s is not taken on the route %s: %s", model, version, route, error)
        kind, reason = type(error).__name__, reason_of(error)
        refusal = self._source.refused(model, version, kind, reason, before).refusal
        return StoodBeside(model=model, route=route, beside=beside, refusal=refusal)
