"""Gathers the model card of a version from what is recorded, and writes it in each of its forms."""

import json
from collections.abc import Sequence
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory

from release_platform.domain.card import ModelCard, card_states
from release_platform.domain.drill import find_unfinished
from release_platform.domain.errors import ReleaseError, Unavailable
from release_platform.domain.ledger import LedgerRow
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
MOST = 5
"""Cards that are written at one look; the others at the next."""


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


def follow_cards(services: Services, project: Project, *, first: str = "") -> dict[str, str]:
    """Writes each card anew of which something changed since it was written, and returns these, or why one is not kept.

    A card is a projection as an alias is: it follows every ledger row, share of the traffic, request and approval of
    its version, whoever made it; it is the same however often it is written, and waits where the registry could not be
    shown the last move yet, and while a drill moves Production there and back. Nothing that goes wrong here fails
    anything: `release card` gathers the card at any time.

    Args:
        services: The outside systems.
        project: The model.
        first: The version that is written first.

    Raises:
        Unavailable: The release store does not answer.
    """
    store, model = services.store, project.spec.name
    rows = store.ledger(model)
    if not rows or store.projected_epoch(model) < rows[-1].epoch or find_unfinished(rows) is not None:
        return {}
    requests, approvals, written = store.requests(model), store.approvals_of(model), store.cards.written(model)
    states = card_states(store.recorded_tags(model), rows, requests, approvals)
    due = [version for version, state in states.items() if written.get(version) != state]
    due.sort(key=lambda version: (version == first, int(version)), reverse=True)
    said = {}
    for version in due[:MOST]:
        try:
            said[version] = _keep_card(services, project, version)
        except (Unavailable, OSError) as error:  # again at the next look
            said[version] = _not_kept(error)
            continue
        except ReleaseError as error:
            said[version] = _not_kept(error)
        store.cards.record(model, version, states[version])
    return said


def kept_card(services: Services, project: Project, version: str) -> str:
    """Returns the card of a version as it is kept now, or why it is not; those that are due are written before."""
    try:
        written = follow_cards(services, project, first=version)
        if version in written:
            return written[version]
        head = services.store.head(project.spec.name)
        if services.store.projected_epoch(head.model) < head.epoch:
            return "not kept yet: the registry does not show this move; it follows with the aliases"
        return card_markdown(gather_card(services, project, version))
    except ReleaseError as error:
        return _not_kept(error)


def _keep_card(services: Services, project: Project, version: str) -> str:
    """Writes the card of a version beside its report in MLflow, and returns it as Markdown."""
    model = project.spec.name
    for _ in range(ATTEMPTS):
        epoch = services.store.head(model).epoch
        card = gather_card(services, project, version)
        with TemporaryDirectory() as folder:
            write_card(card, Path(folder))
            services.tracking.log_files(card.lineage.registration.mlflow_run_id, Path(folder), CARD_FOLDER)
        if services.store.head(model).epoch == epoch:  # else the newest one is written last
            break
    return card_markdown(card)


def _not_kept(error: ReleaseError | OSError) -> str:
    return f"could not be kept: {cell(error.problem if isinstance(error, ReleaseError) else str(error))}"
