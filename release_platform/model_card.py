"""Gathers the model card of a version from what is recorded, and writes it in each of its forms."""

import json
from collections.abc import Sequence
from importlib.metadata import version as installed
from pathlib import Path

from release_platform.domain.card import ModelCard
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lineage import DagsterView
from release_platform.domain.policy import Registration
from release_platform.gating.changes import recorded_attributes
from release_platform.gating.version import recorded_report
from release_platform.lineage import NOTHING_SEEN, find_version, trace
from release_platform.pipeline.bom import bom
from release_platform.pipeline.card import card_html, card_markdown
from release_platform.pipeline.environment import lock_digest
from release_platform.project import Project
from release_platform.services import Services
from release_platform.settings import shipped

CARD_FOLDER = "card"
"""Where the card lies among the artefacts of the training run; the signed package is not touched."""


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
