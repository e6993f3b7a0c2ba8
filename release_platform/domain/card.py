"""A model card: what is recorded of a version, in the order in which people ask (Mitchell et al. 2019)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from release_platform.domain.evidence import EvaluationReport
from release_platform.domain.identity import digest_of
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Head
from release_platform.domain.lineage import Lineage
from release_platform.domain.policy import Approval, PromotionRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Everything that a card shows.

    Attributes:
        lineage: Where the version comes from, who moved it, and where it stands.
        report: The evaluation report that its gates judged.
        spec: The `defs.yaml` that it was made from, as a JSON value.
    """

    lineage: Lineage
    report: EvaluationReport
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.lineage.registration.model

    @property
    def version(self) -> str:
        """The version's number."""
        return self.lineage.registration.version

    @property
    def stands(self) -> str:
        """Where the version stands, in words."""
        return ", ".join(self.lineage.stands) or "nowhere"

    @property
    def limits(self) -> tuple[str, ...]:
        """What the model must not be trusted with: what its team says, and what was measured or not measured."""
        return (*self.spec.get("limitations", ()), *self._thin_slices(), *self.report.notes)

    @property
    def ranges(self) -> dict[str, str]:
        """What the data that it was trained on held, by column, where its contract says so; the target is left out."""
        target = self.spec.get("target", {}).get("column")
        columns = self.spec.get("contract", {}).get("columns", {})
        return {name: found for name, of in columns.items() if name != target and (found := _range(of))}

    def _thin_slices(self) -> tuple[str, ...]:
        least = {gate["slice"]: gate["minimum_rows"] for gate in self.spec.get("gates", ()) if gate.get("slice")}
        thin = []
        for column, minimum in least.items():
            for key, of in self.report.slices.get(column, {}).items():
                n_rows = max((m.n_rows for m in of.values()), default=0)
                if n_rows < minimum:
                    thin.append(f"{column}={key}: {n_rows:,} held-out rows, too few to be judged")
        return tuple(thin)


def card_states(
    versions: Iterable[str],
    rows: Sequence[LedgerRow],
    requests: Sequence[PromotionRequest],
    approvals: Sequence[Approval],
) -> dict[str, str]:
    """Returns by version the digest of what its card says that may still change; while it is the same, so is the card.

    Args:
        versions: The versions.
        rows: The ledger of their model: each move and each share of the traffic.
        requests: All requests of the model.
        approvals: All approvals of these.
    """
    moves = defaultdict[str, list[str]](list)
    for row in rows:
        for version in moved_versions(row):
            moves[version].append(row.hash)
    return {version: _state(version, moves[version], requests, approvals) for version in versions}


def _state(
    version: str, moves: Sequence[str], requests: Sequence[PromotionRequest], approvals: Sequence[Approval]
) -> str:
    asked = {one.request_id: [one.state.value, one.outcome] for one in requests if one.version == version}
    approved = [[one.request_id, one.actor, one.binding, one.reason] for one in approvals if one.request_id in asked]
    return digest_of([moves, asked, approved])


def moved_versions(row: LedgerRow) -> frozenset[str]:
    """Returns the versions that stand elsewhere since a move, the one that it moved among them."""
    before, after = (Head.from_json(head).aliases for head in (row.before, row.after))
    changed = {version for alias in after for version in (before[alias], after[alias]) if before[alias] != after[alias]}
    return frozenset({row.version, *(version for version in changed if version is not None)})


def _range(rules: Mapping[str, Any]) -> str:
    lower, upper, allowed = rules.get("minimum"), rules.get("maximum"), rules.get("allowed")
    if allowed:
        return f"{', '.join(map(str, allowed))} only"
    if lower is None and upper is None:
        return ""
    ends = [f"{'no less than' if upper is None else ''} {lower:g}".strip()] if lower is not None else []
    ends += [f"{'no more than' if lower is None else 'to'} {upper:g}"] if upper is not None else []
    return " ".join(ends)
