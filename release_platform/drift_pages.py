"""The pages of drift reports: artefacts of the training run of their version in MLflow, kept as long as recordings."""

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from release_platform.domain.policy import Registration
from release_platform.services import Services

FOLDER = "drift/reports"
_SUFFIX = ".html"


def keep_page(services: Services, registration: Registration, page: str, *, day: date) -> str:
    """Keeps the page of a report by its last day, in the place of one that is there, and returns its link.

    Raises:
        Unavailable: MLflow does not answer.
    """
    name, run = f"{day.isoformat()}{_SUFFIX}", registration.mlflow_run_id
    with TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(page, encoding="utf-8")
        services.tracking.log_files(run, Path(folder), FOLDER)
    experiment = services.tracking.experiment_of(run)
    return f"{services.settings.mlflow_url}/#/experiments/{experiment}/runs/{run}/artifactPath/{FOLDER}/{name}"


def drop_pages(services: Services, model: str, *, before: date) -> int:
    """Removes the pages of earlier days, of all versions of a model, and returns how many they were.

    Raises:
        Unavailable: MLflow or the release store does not answer.
    """

    def is_old(name: str) -> bool:
        try:
            return date.fromisoformat(name.removesuffix(_SUFFIX)) < before
        except ValueError:  # what somebody else put there
            return False

    runs = {registration.mlflow_run_id for registration in services.store.registrations(model)}
    return sum(services.tracking.drop_files(run, FOLDER, is_old) for run in sorted(runs))
