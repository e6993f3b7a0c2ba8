"""batch_scores: a data set scored with the version in Production, launched with the addresses of input and outputs."""

import os
from collections.abc import Callable
from typing import Any

import dagster as dg
from pydantic import Field

from release_platform.adapters.scorer import Order
from release_platform.defs.naming import asset_key, shared
from release_platform.defs.promotion import NamedFailures
from release_platform.defs.resources import Platform
from release_platform.domain.scoring import Outcome, Scores, State
from release_platform.project import Project
from release_platform.scoring import DataSet, failure_of, score

STAGE = "batch_scores"


class ScoringForm(dg.Config):
    """What is scored, and where to."""

    source: str = Field(description="Parquet file, folder, or s3://bucket/prefix to score.")
    target: str = Field(description="Folder or s3://bucket/prefix of the outputs.")
    version: str | None = Field(default=None, description="A version that is or was in Production; empty: the one now.")
    keep: list[str] = Field(default_factory=list, description="Columns of the input to have in the outputs.")
    workers: int | None = Field(default=None, ge=1, description="Processes here; empty: one for each core.")
    scheduler: str = Field(default="", description="Address of a Dask scheduler to score on its workers instead.")


def build_batch_scores(project: Project) -> dg.AssetsDefinition:
    """Returns the asset of a model's batch scores. It is materialized by `score_<model>` only, never by a release."""
    name = project.spec.name

    described = shared(
        project,
        STAGE,
        kinds={"parquet"},
        description="A Parquet data set, scored partition by partition by the rules of the server; each output "
        "names model, version, digest and epoch. Launched again, it goes on where it was.",
    )
    described["group_name"] = f"{name}_scoring"  # it asks for a form, so it is none of what "Materialize all" makes
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        name=STAGE,
        key_prefix=name,
        deps=[asset_key(name, "production_version")],
        **described,
    )

    @decorator
    def batch_scores(
        context: dg.AssetExecutionContext, config: ScoringForm, platform: Platform
    ) -> dg.MaterializeResult[Any]:
        def told(outcome: Outcome, n_partitions: int) -> None:
            context.log.info("%s: %s, of %d", outcome.partition.named, outcome.state, n_partitions)

        with NamedFailures():
            platform.services.settings.check()
            order = Order(model=name, version=config.version, keep=tuple(config.keep))
            data = DataSet(source=config.source, target=config.target)
            n_workers = config.workers or os.cpu_count() or 1
            scores = score(order, data, n_workers=n_workers, scheduler=config.scheduler, told=told)
            if (failure := failure_of(scores)) is not None:
                raise failure
        return dg.MaterializeResult(data_version=dg.DataVersion(scores.by.digest), metadata=_metadata(config, scores))

    return batch_scores


def build_scoring_job(project: Project) -> Any:
    """Returns the job that an operator launches; it holds up no release of the model."""
    name = project.spec.name
    return dg.define_asset_job(
        f"score_{name}",
        selection=dg.AssetSelection.assets(asset_key(name, STAGE)),
        description=f"Score a Parquet data set with the version of {name} that is in Production.",
    )


def _metadata(config: ScoringForm, scores: Scores) -> dict[str, Any]:
    return {
        "dagster/row_count": scores.n_rows,
        "source": config.source,
        "target": config.target,
        "version": scores.by.version,
        "digest": scores.by.digest,
        "epoch": scores.by.epoch,
        "engine": scores.by.engine,
        **{f"partitions_{state}": scores.n(state) for state in State},
    }
