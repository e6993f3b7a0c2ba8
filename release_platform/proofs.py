"""Proofs that a model's gates stop spoilt models: signed when they are kept, verified whenever one is relied on.

Dagster shows a selftest as an asset check, and whoever may write to Dagster may show one that never was. So what counts
is what the release store keeps, signed by the key that signs versions; a version names the one that it was registered
with in its own signed statement, and a promotion follows that name.
"""

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.selftest_store import KeptSelftest
from release_platform.adapters.signing import KeyFolder
from release_platform.adapters.version_tags import find_manifest
from release_platform.domain.attestation import SIGNATURE_TAG, check_version_statement
from release_platform.domain.errors import IntegrityError
from release_platform.domain.policy import NOT_PROVEN, Registration
from release_platform.domain.ports import Clock
from release_platform.domain.selftest import Selftest

FACT = "selftest"
"""What the statement of a version calls the digest of the selftest that it was registered with."""


class Proofs:
    """The proofs in one release store."""

    def __init__(self, store: ReleaseStore, keys: KeyFolder, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    def keep(self, found: Selftest) -> None:
        """Signs what a selftest found, and keeps it, whether it passed or not: the newest one counts."""
        at = self._clock.now().isoformat()
        signature = self._keys.signer().sign(found.to_statement(at))
        self._store.selftests.record(found, at=at, signature=signature)

    def find_newest(self, model: str) -> Selftest | None:
        """Returns what the newest selftest of a model found, or None.

        Raises:
            IntegrityError: No trusted key signed it, or it was changed since.
        """
        kept = self._store.selftests.find_last(model)
        return None if kept is None else self._verified(kept)

    def unproven(self, registration: Registration) -> str:
        """Returns why a version was not registered with a proof; empty where it was, and the proof still verifies."""
        try:
            found = self._find_named(registration)
        except IntegrityError as error:
            return f"the proof that its gates stop spoilt models does not verify: {error.problem}"
        return "" if found is not None and found.passed else NOT_PROVEN

    def fault_of(self, model: str, digest: str) -> str:
        """Returns what is wrong with the proof that a version names by its digest; empty for nothing."""
        try:
            kept = self._store.selftests.all_of(model, digest)
            if not kept:
                return "is not there any more"
            self._verified(kept[0])
        except IntegrityError as error:
            return f"does not verify: {error.problem}"
        return ""

    def renew(self, model: str) -> None:
        """Signs what a trusted key signed with the present one; what none signed proves nothing, and stays so."""
        for kept in self._store.selftests.all_of(model):
            try:
                found = self._verified(kept)
            except IntegrityError:
                continue
            signature = self._keys.signer().sign(found.to_statement(kept.at))
            self._store.selftests.replace_signature(kept.selftest_id, signature)

    def _find_named(self, registration: Registration) -> Selftest | None:
        model, manifest = registration.model, find_manifest(registration.tags)
        if SIGNATURE_TAG not in registration.tags or manifest is None:
            return None
        statement = self._keys.trusted().verify(registration.tags[SIGNATURE_TAG])
        check_version_statement(statement, manifest, model=model, version=registration.version)
        named = statement["predicate"]["release"].get(FACT)
        kept = self._store.selftests.all_of(model, str(named)) if named else ()
        return self._verified(kept[0]) if kept else None

    def _verified(self, kept: KeptSelftest) -> Selftest:
        kept.selftest.check_statement(self._keys.trusted().verify(kept.signature), kept.at)
        return kept.selftest
