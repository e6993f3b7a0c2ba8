"""Gathers the model card of a version from what is recorded, and writes it in each of its forms."""

import json
from collections.abc import Sequence
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory

from release_platform.domain.card import ModelCard
from release_platform.domain.errors import ReleaseError
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Head
from release_platform.domain.lineage import DagsterView
from release_platform.domain.policy import Registration
from release_platform.gating.changes import recorded_attributes
from release_platform.gating.version import recorded_report
from release_platform.lineage import NOTHING_SEEN, find_version, trace
from release_platform.pipeline.bom import bom
from release_platform.pipeline.card import card_html, card_markdown
from release_platform.pipeline.environment import lock_digest
from release_platform.pipeline.markdown import cell
from release_platform.project import Project
from release_platform.services import Services
from release_platform.settings import shipped

CARD_FOLDER = "card"
"""Where the card lies among the artefacts of the training run; the signed package is not touched."""

ATTEMPTS = 5
"""How often a card is written anew because another move was committed meanwhile."""


class _NoHistory:
    """A card is of records that are kept for good; Dagster's runs may be deleted."""

    def view(self, of: Registration, rows: Sequence[LedgerRow], request_ids: Sequence[str]) -> DagsterView:
        return NOTHING_SEEN


def gather_card(services: Services, project: Project, version: str | None) -> ModelCard:
    """Returns the card of a version; without one, of that in Production, else of that in Staging.

    Raises:
        NotFound: There is no such version.
        IntegrityError: What was recorded of it is gone or was changed.
    """
    of = find_version(services, project.spec.name, version)
    return ModelCard(
        lineage=trace(services, of, project.spec.policy, _NoHistory()),
        report=recorded_report(services, of),
        spec=recorded_attributes(services, project, of.version),
    )


def bom_json(card: ModelCard) -> str:
    """Returns the CycloneDX bill of materials of a version as JSON."""
    value = bom(
        card,
        platform_version=installed("model-release-platform"),
        lock=shipped("requirements/platform.txt").read_text(encoding="utf-8"),
        lock_digest=lock_digest(),
    )
    return json.dumps(value, indent=1, ensure_ascii=False)


def write_card(card: ModelCard, folder: Path) -> None:
    """Writes `card.html`, `card.md` and `bom.cdx.json` into a folder."""
    (folder / "card.html").write_text(card_html(card), encoding="utf-8")
    (folder / "card.md").write_text(card_markdown(card), encoding="utf-8")
    (folder / "bom.cdx.json").write_text(bom_json(card), encoding="utf-8")


def keep_cards(services: Services, project: Project, row: LedgerRow) -> str:
    """Writes the card of each version that a move let stand elsewhere anew, and returns that of the version it moved.

    A card is a projection as an alias is: it follows the commit, is the same however often it is written, and waits
    where the registry could not be shown the move yet. Nothing that goes wrong here fails a move: it is returned, and
    `release card` gathers the card at any time.

    Args:
        services: The outside systems.
        project: The model.
        row: The move.
    """
    if services.store.projected_epoch(row.model) < row.epoch:
        return "not kept yet: the registry does not show this move; it follows with the aliases"
    for version in sorted(moved_versions(row) - {row.version}):
        keep_card(services, project, version)
    return keep_card(services, project, row.version)


def keep_card(services: Services, project: Project, version: str) -> str:
    """Writes the card of a version beside its report in MLflow, and returns it as Markdown, or why it is not kept."""
    model = project.spec.name
    try:
        for _ in range(ATTEMPTS):
            epoch = services.store.head(model).epoch
            card = gather_card(services, project, version)
            with TemporaryDirectory() as folder:
                write_card(card, Path(folder))
                services.tracking.log_files(card.lineage.registration.mlflow_run_id, Path(folder), CARD_FOLDER)
            if services.store.head(model).epoch == epoch:  # else the newest one is written last
                break
    except (ReleaseError, OSError) as error:
        return f"could not be kept: {cell(error.problem if isinstance(error, ReleaseError) else str(error))}"
    return card_markdown(card)


def moved_versions(row: LedgerRow) -> frozenset[str]:
    """Returns the versions that stand elsewhere since a move, the one that it moved among them."""
    before, after = (Head.from_json(head).aliases for head in (row.before, row.after))
    changed = {version for alias in after for version in (before[alias], after[alias]) if before[alias] != after[alias]}
    return frozenset({row.version, *(version for version in changed if version is not None)})
