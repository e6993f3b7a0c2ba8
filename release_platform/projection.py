"""The registry shows what release store and ledger say: aliases are moved, compared and put right."""

from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.signing import KeyFolder
from release_platform.domain.attestation import CERTIFICATE_TAG, Certificate
from release_platform.domain.errors import IntegrityError, NotFound, Refused
from release_platform.domain.ledger import LedgerRow, alias_of, certificate_of, last_moves, standing
from release_platform.domain.lifecycle import Alias, Head
from release_platform.domain.ports import Registry
from release_platform.domain.projection import Deviation, Shown, What, deviations

ATTEMPTS = 20
"""How often a projection begins anew because another move was committed meanwhile."""

_ORDER = (Alias.PRODUCTION, Alias.CANARY, Alias.SHADOW, Alias.PREVIOUS, Alias.STAGING)
"""Production first: what was a canary's share goes to the new version, not back to the old one for a moment."""


class Projection:
    """Makes one registry show what one release store says. Every method raises `Unavailable` when either is away."""

    def __init__(self, store: ReleaseStore, registry: Registry, keys: KeyFolder) -> None:
        self._store = store
        self._registry = registry
        self._keys = keys

    def project(self, model: str) -> tuple[str, ...]:
        """Points the registry's aliases to where the head says, Production first, each move certified.

        A certificate is written before its alias moves, so whoever follows the alias finds it; then those of earlier
        moves that were cut off are written too. A version that was deleted or edited behind the platform's back keeps
        only its own alias from moving. When another move was committed meanwhile the aliases are pointed once more:
        whoever writes last has seen the newest head. One that dies on the way stays recorded as under way.

        Returns:
            A sentence for each alias that could not be moved.
        """
        projection = self._store.projections.begin(model)
        problems: tuple[str, ...] = ()
        for _ in range(ATTEMPTS):
            rows = self._store.ledger(model)
            head = _head(model, rows)
            problems = self._point(head, rows)
            if self._store.head(model).epoch == head.epoch:
                if not problems:
                    self._store.mark_projected(model, head.epoch)
                self._store.projections.end(projection)
                break
        return problems

    def renew(self, model: str) -> None:
        """Signs every certificate that is kept by the present key, whichever key signed it before."""
        there = self._registry.shown(model).tags
        for row in last_moves(self._store.ledger(model)):
            if row.version in there:
                self._sign(row)

    def deviations(self, model: str) -> tuple[Deviation, ...]:
        """Returns what the registry shows otherwise than it must; changes nothing."""
        for _ in range(ATTEMPTS):
            rows = self._store.ledger(model)
            head = _head(model, rows)
            shown = self._registry.shown(model)
            if self._store.head(model).epoch == head.epoch:  # else a move was committed while we looked
                break
        found = deviations(head, self._store.recorded_tags(model), shown)
        present = standing(rows)
        wrong = [row for row in present if self._certificate(row, shown) != certificate_of(row)]
        past = (row for row in last_moves(rows) if row not in present and row.version in shown.tags)
        # One of a later row is no deviation of the registry: the ledger lost that row, which `audit` says.
        wrong += [row for row in past if self._certificate(row, shown) is None]
        return found + tuple(map(_uncertified, wrong))

    def reconcile(self, model: str, *, undo: bool) -> tuple[str, ...]:
        """Finishes moves that were cut off, and returns a sentence for each change behind the platform's back.

        An alias that is wrong while a projection is under way is that projection's: it is put right, and not named.

        Args:
            model: The model.
            undo: Whether such a change is put right; a version that was deleted stays deleted.
        """
        head = self._store.head(model)
        if head.epoch == 0:
            return ()
        found = self._finish(model, head)
        if not undo:
            return tuple(f"{model}: {one.sentence}; it stays so, as the policy says" for one in found)
        problems = self._mend(model, found) if found else ()
        return tuple(f"{model}: {one.sentence}" for one in found) + problems

    def _finish(self, model: str, head: Head) -> tuple[Deviation, ...]:
        """Finishes what was cut off, and returns what somebody else changed."""
        projections = self._store.projections
        if projections.under_way(model) or self._store.projected_epoch(model) < head.epoch:
            self.project(model)
        ours = projections.under_way(model)
        return tuple(one for one in self.deviations(model) if not (ours and one.what is What.ALIAS))

    def _mend(self, model: str, found: tuple[Deviation, ...]) -> tuple[str, ...]:
        for one in found:
            if one.what is What.TAG and one.version is not None and one.wanted is not None:
                self._registry.set_tag(model, one.version, one.name, one.wanted)
        return self.project(model)

    def _point(self, head: Head, rows: tuple[LedgerRow, ...]) -> tuple[str, ...]:
        problems = []
        shown = self._registry.shown(head.model)
        moved = {alias_of(row.move): row for row in standing(rows)}
        for alias in _ORDER:
            version = head.aliases[alias]
            try:
                if alias is not Alias.PREVIOUS and version is not None:
                    self._certify(moved[alias], shown)
                if shown.aliases.get(alias) != version:
                    self._registry.set_alias(head.model, alias, version)
            except (Refused, IntegrityError) as error:
                problems.append(f"{head.model}: alias {alias} cannot be moved: {error.problem}")
        for row in last_moves(rows):
            if row not in moved.values() and row.version in shown.tags:
                try:
                    self._certify(row, shown)
                except (Refused, IntegrityError) as error:
                    problems.append(f"{head.model}: a certificate cannot be written: {error.problem}")
        return tuple(problems)

    def _certify(self, row: LedgerRow, shown: Shown) -> None:
        """Writes the certificate of a row, but never over one of a later row: that proves what the ledger lost."""
        if row.version not in shown.tags:
            raise NotFound(f"the registry has no version {row.version}", remedy="restore the registry from a backup")
        there = self._certificate(row, shown)
        if there is not None and there.model == row.model and there.epoch > row.epoch:
            raise IntegrityError(
                f"version {row.version} has the certificate of epoch {there.epoch}, but its last move in the ledger is "
                f"of epoch {row.epoch}",
                remedy="`release ledger verify` and `release audit` say what the ledger lost; restore it from a backup",
            )
        if there != certificate_of(row):
            self._sign(row)

    def _sign(self, row: LedgerRow) -> None:
        wanted = certificate_of(row)
        bundle = self._keys.signer().sign(wanted.to_statement())
        self._registry.set_tag(row.model, row.version, CERTIFICATE_TAG + wanted.alias, bundle)

    def _certificate(self, row: LedgerRow, shown: Shown) -> Certificate | None:
        """Returns what is kept as the certificate of a row; None: absent, edited, or by a key that is not trusted."""
        bundle = shown.tags.get(row.version, {}).get(CERTIFICATE_TAG + alias_of(row.move), "")
        try:
            return Certificate.from_statement(self._keys.trusted().verify(bundle))
        except IntegrityError:
            return None


def _head(model: str, rows: tuple[LedgerRow, ...]) -> Head:
    return Head.from_json(rows[-1].after) if rows else Head(model=model)


def _uncertified(row: LedgerRow) -> Deviation:
    alias = certificate_of(row).alias
    return Deviation(what=What.CERTIFICATE, name=alias, version=row.version, wanted=row.hash, found=None)
