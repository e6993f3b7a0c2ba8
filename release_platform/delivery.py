"""Tells the live servers who stands in Production, with the proof of it, so that they need not ask the registry."""

import logging

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.adapters.version_tags import MANIFEST_TAG
from release_platform.domain.attestation import SIGNATURE_TAG
from release_platform.domain.ledger import certificate_of, standing
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
        try:
            push = self._find_push(model)
            if push is None:
                return (f"{model}: no server was told, for the proof was not kept; they follow the registry",)
            return tuple(outcome.sentence for outcome in self._servers.push(push))
        except Exception as error:  # noqa: BLE001 - whatever it is, the move stands
            _LOG.exception("%s: the servers were not told", model)
            return (f"{model}: the servers were not told ({error}); they follow the registry",)

    def _find_push(self, model: str) -> Push | None:
        certificates = map(certificate_of, standing(self._store.ledger(model)))
        certificate = next((one for one in certificates if one.alias == Alias.PRODUCTION), None)
        found = self._store.find_registration(model, certificate.version) if certificate is not None else None
        if certificate is None or found is None or not _is_kept(found):
            return None
        return Push(
            model=model,
            version=certificate.version,
            epoch=certificate.epoch,
            certificate=self._keys.signer().sign(certificate.to_statement()),
            signature=found.tags[SIGNATURE_TAG],
            manifest=found.tags[MANIFEST_TAG],
        )


def _is_kept(registration: Registration) -> bool:
    return {SIGNATURE_TAG, MANIFEST_TAG} <= registration.tags.keys()
