"""Tells the live servers who stands in Production or beside it, with the proof, so that they ask no registry for it."""

import logging
from collections.abc import Callable

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.adapters.version_tags import MANIFEST_TAG
from release_platform.domain.attestation import SIGNATURE_TAG, Certificate
from release_platform.domain.ledger import LedgerRow, certificate_of, standing
from release_platform.domain.lifecycle import Alias
from release_platform.domain.policy import Registration
from release_platform.domain.ports import Servers
from release_platform.domain.push import Push

_LOG = logging.getLogger(__name__)


class Delivery:
    """Pushes what one release store says to servers. It needs no registry."""

    def __init__(self, store: ReleaseStore, keys: KeyFolder, servers: Servers) -> None:
        self._store = store
        self._keys = keys
        self._servers = servers

    def deliver(self, model: str) -> tuple[str, ...]:
        """Pushes the move by which Production is what it is now, and returns a sentence for each server.

        Repeating it changes nothing. It never fails: the move is committed, and a server that was not reached follows
        the registry.
        """
        return self._push(model, lambda: self._find_push(model))

    def deliver_beside(self, row: LedgerRow) -> tuple[str, ...]:
        """Pushes the move that gave a version a share of the traffic beside Production, or took it; as `deliver`."""
        return self._push(row.model, lambda: self._push_of(certificate_of(row)))

    def _push(self, model: str, find: Callable[[], Push | None]) -> tuple[str, ...]:
        try:
            push = find()
            if push is None:
                return (f"{model}: no server was told, for the proof was not kept; they follow the registry",)
            return tuple(outcome.sentence for outcome in self._servers.push(push))
        except Exception as error:  # noqa: BLE001 - whatever it is, the move stands
            _LOG.exception("%s: the servers were not told", model)
            return (f"{model}: the servers were not told ({error}); they follow the registry",)

    def _find_push(self, model: str) -> Push | None:
        certificates = map(certificate_of, standing(self._store.ledger(model)))
        certificate = next((one for one in certificates if one.alias == Alias.PRODUCTION), None)
        return None if certificate is None else self._push_of(certificate)

    def _push_of(self, certificate: Certificate) -> Push | None:
        found = self._store.find_registration(certificate.model, certificate.version)
        if found is None or not _is_kept(found):
            return None
        return Push(
            model=certificate.model,
            version=certificate.version,
            epoch=certificate.epoch,
            certificate=self._keys.signer().sign(certificate.to_statement()),
            signature=found.tags[SIGNATURE_TAG],
            manifest=found.tags[MANIFEST_TAG],
            route="" if certificate.weight is None else certificate.alias,
            weight=certificate.weight or 0.0,
        )


def _is_kept(registration: Registration) -> bool:
    return {SIGNATURE_TAG, MANIFEST_TAG} <= registration.tags.keys()
