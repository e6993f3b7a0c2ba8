"""ModelRelease: one `defs.yaml` describes one model and becomes its assets, checks and release job."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from release_platform.defs.audit import build_audit_check
from release_platform.defs.data import build_features, build_raw_data, build_raw_data_check
from release_platform.defs.drill import build_drill_check
from release_platform.defs.evaluation import build_evaluation_report, build_gates
from release_platform.defs.monitoring import build_drift_automation, build_drift_report
from release_platform.defs.naming import MODEL_TAG, STAGES, asset_key
from release_platform.defs.promotion import build_production_version, build_registry_check
from release_platform.defs.readiness import build_ready_check
from release_platform.defs.registration import build_registered_version, build_servable_check
from release_platform.defs.replay import build_replay_check, replay_key
from release_platform.defs.reproduction import build_reproduced_check, check_key
from release_platform.defs.resources import build_fluent_tracking
from release_platform.defs.retraining import build_retraining
from release_platform.defs.rollout import build_rollout_asset
from release_platform.defs.scoring import build_batch_scores, build_scoring_job
from release_platform.defs.selftest import build_selftest_check, selftest_key
from release_platform.defs.training import build_trained_model
from release_platform.defs.verification import build_served_check
from release_platform.project import SPEC, Project, parse_spec, read_documents
from release_platform.settings import Settings

PROJECT_METADATA = "release/project"


class ModelReleaseAttributes(BaseModel):
    """The attributes of a `defs.yaml` before `parse_spec` reads them; their schema is that of `ModelSpec`."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
        """Returns the schema of a model's spec, so that `dg check yaml` and editors know every key."""
        return SPEC.json_schema()


class ModelScaffolder(dg.Scaffolder[BaseModel]):
    """Writes a `defs.yaml` with every key that a model needs; `release new` writes a better one from data."""

    def scaffold(self, request: dg.ScaffoldRequest[BaseModel]) -> None:
        """See `dg.Scaffolder`."""
        name = request.target_path.name
        column = {"type": "number"}
        dg.scaffold_component(
            request,
            {
                "name": name,
                "task": "binary",
                "owner": "team:ml",
                "source": {"csv": f"{name}.csv"},
                "contract": {"columns": {"x": column, "y": {"type": "category", "allowed": ["no", "yes"]}}},
                "target": {"column": "y", "positive": "yes"},
                "features": ["x"],
                "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
                "gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.7}],
            },
        )


@dg.scaffold_with(ModelScaffolder)
class ModelRelease(dg.Component):
    """A model and its release: raw data, features, trained model, evaluation report, registered version, Production."""

    def __init__(self, project: Project) -> None:
        self.project = project

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Returns the model of the YAML's attributes."""
        return ModelReleaseAttributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "ModelRelease":
        """Returns the component that a `defs.yaml` describes.

        Raises:
            SpecError: The YAML is wrong; names file, field and remedy.
        """
        folder = Path(context.path)
        read_documents(folder / "defs.yaml")  # for what Dagster's own reading lets pass: a key that stands twice
        given = {} if attributes is None else attributes.model_dump()
        return cls(Project(spec=parse_spec(given, file=folder / "defs.yaml"), folder=folder))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Returns the model's assets, checks, release job and dagster-mlflow resource."""
        return build_model(self.project)


def build_model(project: Project) -> dg.Definitions:
    """Returns everything of one model that no other model shares."""
    name = project.spec.name
    release = dg.define_asset_job(
        f"release_{name}",
        selection=dg.AssetSelection.assets(*(asset_key(name, stage) for stage in STAGES[:-1]))
        - dg.AssetSelection.checks(*_left_out(project)),
        description=f"Ingest, train, judge and register {name}, up to Staging.",
        tags={MODEL_TAG: name},
    )
    own = dg.Definitions(
        assets=[
            build_raw_data(project),
            build_features(project),
            build_trained_model(project),
            build_evaluation_report(project),
            build_registered_version(project),
            build_production_version(project),
            build_rollout_asset(project),
            build_batch_scores(project),
            build_drift_report(project),
        ],
        asset_checks=[
            build_raw_data_check(project),
            build_gates(project),
            build_servable_check(project),
            build_registry_check(project),
            build_ready_check(project),
            build_audit_check(project),
            build_served_check(project),
            build_drill_check(project),
            build_reproduced_check(project),
            build_selftest_check(project),
            build_replay_check(project),
        ],
        jobs=[release, build_scoring_job(project)],
        sensors=[build_drift_automation(project)],
        resources={f"mlflow_{name}": build_fluent_tracking(name, Settings().tracking_uri)},
        metadata={f"{PROJECT_METADATA}/{name}": dg.MetadataValue.path(str(project.folder / "defs.yaml"))},
    )
    return dg.Definitions.merge(own, build_retraining(project, release))


def _left_out(project: Project) -> list[dg.AssetCheckKey]:
    """Returns the checks that a release does not run; it replays a new version only where a promotion asks for it."""
    always = [check_key(project), selftest_key(project)]
    return always if project.spec.policy.replay is not None else [*always, replay_key(project)]
