"""The ledger: one row for each transition, chained by hashes, from which the head can be folded at any time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from types import NoneType
from typing import Any, assert_never

from release_platform.domain.attestation import Certificate
from release_platform.domain.errors import Refused
from release_platform.domain.identity import digest_of
from release_platform.domain.lifecycle import Alias, Head, Move, advance

ROLLBACK_ID = "rollback-"
"""What the id of a person's rollback begins with; that of the run of the job that made it follows, if one did."""
_OF_ROLLOUT = "#rollout-"


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
        hash: The digest of all the above and the weight, if there is one.
        weight: Of `canary_set` and `shadow_set`, the share of the traffic, 0 to 1; None for every other move, and then
            no part of what is hashed.
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
    weight: float | None = None

    def __post_init__(self) -> None:
        for head in (self.before, self.after):
            Head.from_json(head)  # raises what that raises
        if (self.weight is not None) != self.move.weighted or type(self.weight) not in {NoneType, int, float}:
            raise ValueError(f"{self.move} has the weight {self.weight!r:.40}")

    @property
    def expected_hash(self) -> str:
        """What `hash` must be."""
        content = self.to_json()
        del content["hash"]
        return digest_of(content)

    def to_json(self) -> dict[str, Any]:
        """Returns the row as a JSON value; a weight that there is not, is left out."""
        return {name: value for name, value in asdict(self).items() if name != "weight" or value is not None}

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
            folded = advance(head, row.move, row.version, row.weight).to_json()
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

    At most one for each of Staging, Production, canary and shadow.
    """
    found: dict[Alias, LedgerRow] = {}
    head: Mapping[str, Any] | None = None
    for row in rows:
        found[alias_of(row.move)] = row
        head = row.after
    aliases = Head.from_json(head).aliases if head is not None else {}
    return tuple(row for alias, row in found.items() if aliases[alias] == row.version)


def last_moves(rows: Iterable[LedgerRow]) -> tuple[LedgerRow, ...]:
    """Returns, of the rows of one model by epoch, the last one of each version and alias.

    Those are the rows whose certificates are kept: that of a version's next move to the same alias takes its place.
    """
    return tuple({(row.version, alias_of(row.move)): row for row in rows}.values())


def alias_of(move: Move) -> Alias:
    """Returns the alias that a move puts its version behind."""
    match move:
        case Move.STAGED:
            return Alias.STAGING
        case Move.CANARY_SET:
            return Alias.CANARY
        case Move.SHADOW_SET:
            return Alias.SHADOW
        case Move.PROMOTED | Move.ROLLED_BACK:
            return Alias.PRODUCTION
        case _:
            assert_never(move)


def moves_production(row: LedgerRow) -> bool:
    """Whether a row is of a move of Production."""
    return alias_of(row.move) is Alias.PRODUCTION


def rollout_move_id(rollout_id: str, what: str) -> str:
    """Returns the request id of a move of a rollout: the promotion request that it is of, and which move it is."""
    return f"{rollout_id}{_OF_ROLLOUT}{what}"


def request_of(row: LedgerRow) -> str:
    """Returns the id of the request that a row is of: for the moves of a rollout, that of the promotion."""
    return promotion_of(row.move, row.request_id)


def is_of_rollout(request_id: str) -> bool:
    """Whether a request id is one that `rollout_move_id` gives."""
    return _OF_ROLLOUT in request_id


def promotion_of(move: Move, request_id: str) -> str:
    """Returns the id of the promotion request that a move of this request id is of; for any other move its own id."""
    return request_id if move is Move.PROMOTED else request_id.rpartition(_OF_ROLLOUT)[0] or request_id


def certificate_of(row: LedgerRow) -> Certificate:
    """Returns the certificate of a move."""
    return Certificate(
        model=row.model,
        version=row.version,
        digest=row.digest,
        alias=alias_of(row.move).value,
        epoch=row.epoch,
        ledger_hash=row.hash,
        weight=row.weight,
    )


def fold(model: str, rows: Iterable[LedgerRow]) -> Head:
    """Returns the head after these rows, by epoch."""
    head = Head(model=model)
    for row in rows:
        head = advance(head, row.move, row.version, row.weight)
    return head
