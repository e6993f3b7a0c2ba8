"""Puts the server together. Its lifespan owns every task; importing this starts nothing."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.mlflow_rest import reader_at
from release_platform.adapters.swagger_page import add_swagger_page
from release_platform.adapters.trust import Trust
from release_platform.domain.ports import Clock, RegistryReader
from serving.access import Access
from serving.answering import Answering
from serving.background import keep_going
from serving.cache import PackageCache
from serving.documentation import with_keys, with_models
from serving.edge import Edge
from serving.engine import Engine
from serving.errors import InvalidInput, Problem, document, problem_response, unforeseen
from serving.exposition import FOLDER_VARIABLE
from serving.held import Held
from serving.limits import Limits
from serving.metrics import Fate, Metrics
from serving.models import Live, RouteTable
from serving.observations import Observations
from serving.predicting import build_predict_routes
from serving.prediction_files import PredictionFiles
from serving.pushes import Pushes
from serving.registry import ModelSource
from serving.requests import mark_served, request_id_of
from serving.routes.admin import build_admin_routes
from serving.routes.health import WORKER, build_health_routes
from serving.routes.inference import INFER_ROUTES, build_inference_routes
from serving.routes.moves import build_move_routes
from serving.routes.native import PREDICT_ROUTES, build_model_routes
from serving.routes.observed import SAMPLES, WINDOWS, build_observed_routes
from serving.routes.outcomes import build_outcome_routes
from serving.routes.scoring import SCORING_ROUTES, build_scoring_routes
from serving.samples import Samples
from serving.schemas import answers
from serving.settings import Settings
from serving.shadow import Shadows
from serving.siblings import Siblings
from serving.telling import OUTCOMES, Desk
from serving.tracing import find_tracing
from serving.watch import Watcher

FOLLOW_S = 0.2
"""Seconds between two looks of a worker at what the others took."""

DESCRIPTION = """Answers from the versions that are in Production. Every answer names model, version, digest and epoch.

`GET /v1/models` lists the models; `GET /v1/models/{model}` tells what one takes, with a row to try."""

_OF_ACCESS = (401, 403, 429)
"""The problems that any route may tell: those of the API key."""


class Application(FastAPI):
    """A FastAPI application behind its edge, whose documentation follows what is served."""

    edge: ASGIApp
    live: Live
    limits: Limits
    access: Access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or runs the lifespan."""
        await self.edge(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what the edge passes on, as FastAPI does."""
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Returns the OpenAPI document: the routes, and those of each model that answers now."""
        schema = super().openapi()
        return with_models(with_keys(schema) if self.access.required else schema, self.live.table, self.limits)


def create_app(settings: Settings, registry: RegistryReader | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Returns the application.

    Args:
        settings: How it is configured.
        registry: Where versions come from; None for the MLflow registry at `settings.tracking_uri`.
        clock: The time; None for the machine's.

    Raises:
        ValueError: There is neither a registry nor an address of one, the file of API keys is not good, or traces are
            configured and what sends them is not installed.
    """
    clock = clock or SystemClock()
    live = Live(RouteTable(known=frozenset(settings.models) if settings.models else None))
    metrics = Metrics(live)
    engine = Engine(
        n_threads=settings.n_threads,
        max_waiting=settings.max_waiting,
        within_s=settings.predict_timeout_s,
        metrics=metrics,
    )
    metrics.watch_queue(lambda: engine.n_waiting)
    observations = Observations(
        live=live,
        metrics=metrics,
        clock=clock,
        most_remembered=settings.recent_predictions,
        sample_share=settings.sample_share,
    )
    metrics.watch_memory(lambda: observations.n_remembered, settings.recent_predictions)
    samples = Samples(
        share=settings.sample_share,
        replica=observations.replica,
        minute=lambda: observations.minute,
        windows=observations.windows_after,
        origin=lambda: observations.origin,
        metrics=metrics,
    )
    limits = Limits(
        max_rows=settings.max_rows,
        ignore_extra=settings.extra_columns == "ignore",
        refuse_unknown=settings.unknown_categories == "refuse",
    )
    cache = PackageCache(settings.cache_dir)
    shadows = Shadows(live=live, cache=cache, limits=limits, observations=observations, metrics=metrics)
    siblings = Siblings(_shared_folder(), observations.origin, partial(_answer_sibling, observations, samples))
    told_later = settings.cache_dir / "outcomes"
    files = PredictionFiles(told_later, settings.recent_predictions, share=settings.sample_share)
    held = Held(told_later / "held.sqlite", now=lambda: clock.now().timestamp())
    access = Access(settings.api_keys, rate_per_minute=settings.rate_limit, clock=clock)
    tracing = find_tracing()
    source = ModelSource(
        connect=_connector(settings, registry),
        cache=cache,
        trust=Trust.in_folder(settings.key_folder),
        clock=clock,
        only=settings.models,
        retry_s=settings.refresh_s,
        retry_max_s=settings.retry_max_s,
        cache_keep=settings.cache_keep,
    )
    watcher = Watcher(
        source=source,
        live=live,
        metrics=metrics,
        refresh_s=settings.refresh_s,
        patience_s=settings.startup_patience_s,
        follow_s=FOLLOW_S if settings.workers > 1 else None,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        access.announce()
        kept = files.take_over()
        if kept is not None:
            observations.remember_in(kept)
            answering.number_from(kept.origin, kept.first)
            siblings.origin = kept.origin
        async with siblings.answering(), anyio.create_task_group() as tasks:
            tasks.start_soon(keep_going, watcher.run)
            tasks.start_soon(keep_going, partial(_count_each_second, metrics, observations))
            tasks.start_soon(keep_going, shadows.run)
            tasks.start_soon(keep_going, partial(_lose_each_minute, metrics, held))
            yield
            live.draining = True
            tasks.cancel_scope.cancel()
        engine.close()
        observations.forget()
        held.close()
        if kept is not None:
            kept.close()
        if tracing is not None:
            tracing.close()

    app = Application(
        title="Model serving",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=answers(None, *_OF_ACCESS),
    )
    app.live, app.limits, app.access = live, limits, access
    app.state.live = live
    app.state.metrics = metrics
    app.state.observations = observations
    answering = Answering(
        live=live,
        engine=engine,
        access=access,
        limits=limits,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        observations=observations,
        shadows=shadows,
        samples=samples,
    )
    predict_routes = (*PREDICT_ROUTES, *SCORING_ROUTES, *INFER_ROUTES)
    edge = Edge(
        app.answer,
        answering=answering,
        access=access,
        metrics=metrics,
        routes=predict_routes,
        fast=settings.fast_path,
        logs=settings.log_requests,
        tracing=tracing,
    )
    app.state.edge = edge
    app.edge = edge if tracing is None else tracing.around(edge)
    app.include_router(build_predict_routes(predict_routes, answering=answering))
    app.include_router(build_inference_routes(live=live, configured=settings.models))
    app.include_router(build_model_routes(live=live))
    app.include_router(build_scoring_routes(live=live, configured=settings.models))
    pushes = Pushes(source=source, live=live, watcher=watcher)
    app.include_router(build_move_routes(pushes=pushes, settings=settings))
    app.include_router(build_admin_routes(watcher=watcher, live=live))
    app.include_router(build_observed_routes(observations=observations, samples=samples, siblings=siblings))
    desk = Desk(observations=observations, samples=samples, siblings=siblings, files=files, held=held, metrics=metrics)
    app.include_router(build_outcome_routes(desk=desk, body_timeout_s=settings.body_timeout_s))
    app.include_router(
        build_health_routes(
            live=live,
            metrics=metrics,
            access=access,
            configured=settings.models,
            started_at=clock.now(),
            siblings=siblings,
        )
    )
    add_swagger_page(app)
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(Exception, _answer_unforeseen)
    return app


async def _count_each_second(metrics: Metrics, observations: Observations) -> None:
    while True:
        await anyio.sleep(1.0)
        metrics.count()
        observations.count()


async def _lose_each_minute(metrics: Metrics, held: Held) -> None:
    while True:
        await anyio.sleep(60.0)
        metrics.outcomes_became(Fate.LOST, await anyio.to_thread.run_sync(held.lose_old))


def _shared_folder() -> Path | None:
    """Returns the folder that the workers of one server share; None for a server of one process."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else None


def _answer_sibling(observations: Observations, samples: Samples, question: dict[str, Any]) -> Any:
    match question["what"]:
        case str(what) if what == WORKER:
            return observations.origin
        case str(what) if what == WINDOWS:
            return observations.closed_after(question["after"])
        case str(what) if what == SAMPLES:
            return samples.closed_after(question["after"]).to_bytes()
        case str(what) if what == OUTCOMES:
            return observations.take(question["outcomes"], labelled=samples.label).to_json()
        case other:
            raise ValueError(f"another worker asks for '{other}'")


def _connector(settings: Settings, registry: RegistryReader | None) -> Callable[[], RegistryReader]:
    if registry is not None:
        return lambda: registry
    if not settings.tracking_uri:
        raise ValueError("set SERVING_TRACKING_URI or MLFLOW_TRACKING_URI to the address of the registry")

    return lambda: reader_at(settings.tracking_uri)


_HTTP_ERROR = "http-error"


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    mark_served(request.scope, None, error.slug)
    return problem_response(error, instance=request.url.path, request_id=request_id_of(request.scope))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    mark_served(request.scope, None, _HTTP_ERROR)
    return document(
        status=error.status_code,
        slug=_HTTP_ERROR,
        title=str(error.detail),
        detail=f"{request.method} {request.url.path}: {error.detail}; `/docs` lists what there is",
        instance=request.url.path,
        request_id=request_id_of(request.scope),
        headers=error.headers,
    )


async def _answer_unforeseen(request: Request, error: Exception) -> Response:
    return await _answer_problem(request, unforeseen(request_id_of(request.scope)))


async def _answer_validation(request: Request, error: Exception) -> Response:
    return await _answer_problem(request, InvalidInput(str(error)))
