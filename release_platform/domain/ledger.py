"""The ledger: one row for each transition, chained by hashes, from which the head can be folded at any time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from release_platform.domain.attestation import Certificate
from release_platform.domain.errors import Refused
from release_platform.domain.identity import digest_of
from release_platform.domain.lifecycle import Alias, Head, Move, advance


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One transition.

    Attributes:
        model: The model's name.
        epoch: The head's epoch after it, from 1 without a gap.
        move: What happened.
        version: The version that moved.
        actor: Who wanted it.
        reason: Why.
        request_id: The identity of the request; no two rows share one.
        evidence: What justified it: for Staging the digest of the evaluation report, for a promotion what its approvals
            were bound to (model, report and policy, `policy.binding`); empty for a rollback.
        digest: `D(v)` of the version that moved.
        before: The head before.
        after: The head after.
        at: When it was committed: ISO 8601, UTC.
        previous_hash: `hash` of the row before, or `genesis(model)`.
        hash: The digest of all the above.
    """

    model: str
    epoch: int
    move: Move
    version: str
    actor: str
    reason: str
    request_id: str
    evidence: str
    digest: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    at: str
    previous_hash: str
    hash: str = ""

    def __post_init__(self) -> None:
        for head in (self.before, self.after):
            Head.from_json(head)  # raises what that raises

    @property
    def expected_hash(self) -> str:
        """What `hash` must be."""
        content = asdict(self)
        del content["hash"]
        return digest_of(content)

    def to_json(self) -> dict[str, Any]:
        """Returns the row as a JSON value."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "LedgerRow":
        """Returns the row that `to_json` wrote."""
        return LedgerRow(**{**value, "move": Move(value["move"])})


def genesis(model: str) -> str:
    """Returns the hash that the first row of a model follows."""
    return digest_of(["ledger", model])


def sealed(row: LedgerRow) -> LedgerRow:
    """Returns the row with its hash."""
    return replace(row, hash=row.expected_hash)


def faults(model: str, rows: Iterable[LedgerRow]) -> tuple[str, ...]:
    """Returns a sentence for each fault of a model's ledger, empty when it is whole.

    Args:
        model: The model's name.
        rows: Its rows, by epoch.
    """
    found = []
    head, last = Head(model=model), genesis(model)
    for row in rows:
        place = f"{model}, ledger row {row.epoch}"
        if row.epoch != head.epoch + 1:
            found.append(f"{place}: follows row {head.epoch}; a row is missing, added or moved")
        if row.previous_hash != last:
            found.append(f"{place}: does not follow the row before it")
        if row.hash != row.expected_hash:
            found.append(f"{place}: was edited")
        try:
            folded = advance(head, row.move, row.version).to_json()
        except Refused as error:
            found.append(f"{place}: is no allowed transition ({error.problem})")
        else:
            if row.before != head.to_json() or row.after != folded:
                found.append(f"{place}: its heads are not the fold of the rows before it")
        head, last = Head.from_json(row.after), row.hash
    return tuple(found)


def certified_faults(model: str, rows: Sequence[LedgerRow], certificates: Iterable[Certificate]) -> tuple[str, ...]:
    """Returns a sentence for each certificate that the ledger does not bear out, empty when it bears out all.

    Certificates are kept in the registry, outside the ledger's database, so a ledger whose end was cut off, or that was
    written anew as a whole, is found by the newest of them.

    Args:
        model: The model's name.
        rows: Its rows, by epoch.
        certificates: Certificates of its moves whose signatures were verified.
    """
    found = []
    held = {row.epoch: row.hash for row in rows}
    for certificate in sorted(certificates, key=lambda c: c.epoch):
        place = f"{model}, ledger row {certificate.epoch}"
        proof = f"the certificate of version {certificate.version} behind {certificate.alias}"
        if certificate.epoch not in held:
            found.append(f"{place}: is missing; {proof} was made for it")
        elif held[certificate.epoch] != certificate.ledger_hash:
            found.append(f"{place}: is not the one that {proof} was made for")
    return tuple(found)


def standing_at(rows: Iterable[LedgerRow], moment: datetime) -> LedgerRow | None:
    """Returns the last row that was committed at a moment or before it, or None: its `after` is what stood then.

    Args:
        rows: The rows of one model, by epoch.
        moment: A moment with its zone.
    """
    found = None
    for row in rows:
        if datetime.fromisoformat(row.at) <= moment:
            found = row
    return found


def standing(rows: Iterable[LedgerRow]) -> tuple[LedgerRow, ...]:
    """Returns, of the rows of one model by epoch, those by which a version came to where it stands now.

    At most one for Staging and one for Production.
    """
    found: dict[Alias, LedgerRow] = {}
    head: Mapping[str, Any] = {}
    for row in rows:
        found[alias_of(row.move)] = row
        head = row.after
    return tuple(row for alias, row in found.items() if head[alias.value] == row.version)


def last_moves(rows: Iterable[LedgerRow]) -> tuple[LedgerRow, ...]:
    """Returns, of the rows of one model by epoch, the last one of each version and alias.

    Those are the rows whose certificates are kept: that of a version's next move to the same alias takes its place.
    """
    return tuple({(row.version, alias_of(row.move)): row for row in rows}.values())


def alias_of(move: Move) -> Alias:
    """Returns the alias that a move puts its version behind."""
    return Alias.STAGING if move is Move.STAGED else Alias.PRODUCTION


def certificate_of(row: LedgerRow) -> Certificate:
    """Returns the certificate of a move."""
    return Certificate(
        model=row.model,
        version=row.version,
        digest=row.digest,
        alias=alias_of(row.move).value,
        epoch=row.epoch,
        ledger_hash=row.hash,
    )


def fold(model: str, rows: Iterable[LedgerRow]) -> Head:
    """Returns the head after these rows, by epoch."""
    head = Head(model=model)
    for row in rows:
        head = advance(head, row.move, row.version)
    return head
