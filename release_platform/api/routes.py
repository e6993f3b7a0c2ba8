"""The routes: each reads what is asked, calls the function that the jobs and the command line call, and answers."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from release_platform.api.door import WHOAMI
from release_platform.api.drills import AskedDrills
from release_platform.api.problems import Denied
from release_platform.api.schemas import (
    Approving,
    Asking,
    Cancelling,
    DrillAnswer,
    Drilling,
    Lifting,
    ModelAnswer,
    Ordering,
    RequestAnswer,
    RollingBack,
    Who,
)
from release_platform.domain.api_keys import ApiKey, Scope
from release_platform.domain.asked_rollout import NOTHING_ASKED
from release_platform.domain.errors import NotFound
from release_platform.domain.freeze import moment_text
from release_platform.domain.identity import digest_of
from release_platform.domain.ledger import ROLLBACK_ID
from release_platform.domain.policy import PromotionRequest, RequestState, Standing, find_approval
from release_platform.domain.rollout import Order
from release_platform.drills import Order as DrillOrder
from release_platform.project import Project
from release_platform.services import Services
from release_platform.standing import (
    drift_status,
    model_status,
    moment_of,
    request_status,
    rollout_status,
    served_at,
    status_of,
)

Projects = Callable[[], Mapping[str, Project]]
Model = Annotated[str, Path(description="Name of the model.", max_length=63)]
DrillId = Annotated[str, Path(description="Id of the drill.", max_length=100)]
RequestId = Annotated[str, Path(description="Id of the promotion request.", max_length=100)]
NAME_HEADER = "x-release-operator"
"""Names whose key it is, in UTF-8, so that a proxy need not read JSON."""
_ONCE = "An id of your own: the same one again, of the same caller, has no second effect."
OptionalOnce = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200, description=_ONCE)]
Once = Annotated[str, Header(alias="Idempotency-Key", min_length=1, max_length=200, description=_ONCE)]


def build_routes(services: Services, projects: Projects) -> APIRouter:
    """Returns all routes under `/v1`.

    Args:
        services: The platform's services.
        projects: Reads the models as they are described now.
    """
    drills = AskedDrills(services)
    router = APIRouter(prefix="/v1", lifespan=drills.waited_for)
    _add_reading(router, services, projects)
    _add_asking(router, services, projects)
    _add_lifting(router, services, projects)
    _add_moving(router, services, projects)
    _add_drilling(router, drills, projects)
    return router


def _add_reading(router: APIRouter, services: Services, projects: Projects) -> None:
    @router.get("/models", summary="All models, and where their versions stand", tags=["reading"])
    def models() -> list[ModelAnswer]:
        known = projects()
        return [ModelAnswer(**model_status(known[name], services.store.head(name))) for name in sorted(known)]

    @router.get(
        "/models/{model}", summary="Where the versions of a model stand, and what is asked for", tags=["reading"]
    )
    def status(model: Model) -> dict[str, Any]:
        return status_of(services.releases, _project(projects, model))

    @router.get("/models/{model}/history", summary="Every transition, from the ledger", tags=["reading"])
    def history(model: Model) -> list[dict[str, Any]]:
        _project(projects, model)
        return [row.to_json() for row in services.store.ledger(model)]

    @router.get("/models/{model}/who-served", summary="What was in Production at a moment", tags=["reading"])
    def who_served(
        model: Model, at: Annotated[str, Query(description="A moment, ISO 8601; without an offset UTC.", max_length=64)]
    ) -> dict[str, Any]:
        _project(projects, model)
        return served_at(services.store.ledger(model), model, moment_of(at))

    @router.get("/models/{model}/rollout", summary="Where the rollout stands, or the last one", tags=["reading"])
    def rollout(model: Model) -> dict[str, Any]:
        return rollout_status(services.rollouts, _project(projects, model))

    @router.get("/models/{model}/requests", summary="The promotion requests of a model", tags=["reading"])
    def requests(model: Model, state: RequestState | None = None) -> list[RequestAnswer]:
        project = _project(projects, model)
        return [_answer(services, project, one) for one in services.store.requests(model, state)]

    @router.get("/requests/{request_id}", summary="A promotion request, and what it waits for", tags=["reading"])
    def request(request_id: RequestId) -> RequestAnswer:
        found = services.store.get_request(request_id)
        return _answer(services, _project(projects, found.model), found)


def _add_asking(router: APIRouter, services: Services, projects: Projects) -> None:
    @router.post("/models/{model}/requests", status_code=201, summary="Ask for a promotion", tags=["operators"])
    def ask(call: Request, model: Model, asking: Asking, once: OptionalOnce = None) -> RequestAnswer:
        project, name = _project(projects, model), key_of(call).name
        request = services.rollouts.request(
            project.spec,
            version=asking.version,
            actor=name,
            reason=asking.reason,
            request_id=act_id(name, f"request {model}", once) if once else None,
            strategy=asking.strategy,
            asked=asking.rollout or NOTHING_ASKED,
        )
        return _answer(services, project, request)

    @router.post("/requests/{request_id}/approval", summary="Approve what a request asks for now", tags=["operators"])
    def approve(call: Request, request_id: RequestId, approving: Approving) -> RequestAnswer:
        request = services.store.get_request(request_id)
        project, name = _project(projects, request.model), key_of(call).name
        if not _is_approved(services, project, request, name, approving.reason):
            services.releases.approve(request_id, actor=name, reason=approving.reason, policy=project.spec.policy)
        return _answer(services, project, services.store.get_request(request_id))

    @router.post("/requests/{request_id}/cancellation", summary="Close an open request", tags=["operators"])
    def cancel(call: Request, request_id: RequestId, cancelling: Cancelling) -> RequestAnswer:
        request = services.releases.cancel(request_id, actor=key_of(call).name, reason=cancelling.reason)
        return _answer(services, _project(projects, request.model), request)


def _add_lifting(router: APIRouter, services: Services, projects: Projects) -> None:
    @router.post("/models/{model}/drift/lift", summary="Lift the hold of a drift alarm", tags=["operators"])
    def lift(call: Request, model: Model, lifting: Lifting) -> dict[str, Any]:
        _project(projects, model)
        return drift_status(services.releases.lift_hold(model, actor=key_of(call).name, reason=lifting.reason))


def _add_moving(router: APIRouter, services: Services, projects: Projects) -> None:
    @router.post("/models/{model}/rollback", summary="Bring a former Production version back", tags=["operators"])
    def rollback(call: Request, model: Model, rolling: RollingBack, once: Once) -> dict[str, Any]:
        _project(projects, model)
        name, said = key_of(call).name, list[str]()
        row = services.releases.rollback(
            model,
            to=rolling.to,
            actor=name,
            reason=rolling.reason,
            request_id=f"{ROLLBACK_ID}{act_id(name, f'rollback {model}', once)}",
            tell=said.append,
        )
        return {**row.to_json(), "servers": said}

    @router.post(
        "/models/{model}/rollout/{order}", summary="Pause, resume, abort or promote a rollout", tags=["operators"]
    )
    def order_rollout(call: Request, model: Model, order: Order, ordering: Ordering) -> dict[str, Any]:
        project = _project(projects, model)
        services.rollouts.order(
            model, order, actor=key_of(call).name, reason=ordering.reason, policy=project.spec.policy
        )
        return rollout_status(services.rollouts, project)

    @router.get(WHOAMI.removeprefix("/v1"), summary="Whose key this is", tags=["keys"])
    async def whoami(
        call: Request,
        answer: Response,
        scope: Annotated[Scope | None, Query(description="Refuse unless the key has it.")] = None,
    ) -> Who:
        key = key_of(call)
        if scope is not None and scope not in key.scopes:
            raise Denied(403, f"API key {key.key_id} has no scope {scope}", remedy="ask for a key that has it")
        answer.headers[NAME_HEADER] = key.name.encode().decode("latin-1")  # HTTP knows bytes only; these are UTF-8
        expires = moment_text(key.expires_at) if key.expires_at else None
        return Who(name=key.name, key_id=key.key_id, scopes=list(key.scopes), expires_at=expires)


def _add_drilling(router: APIRouter, drills: AskedDrills, projects: Projects) -> None:
    @router.post("/models/{model}/drills", status_code=202, summary="Begin a drill of the rollback", tags=["operators"])
    def begin(call: Request, answer: Response, model: Model, drilling: Drilling, once: Once) -> DrillAnswer:
        policy, name = _project(projects, model).spec.policy, key_of(call).name
        drill_id = f"drill-{act_id(name, f'drill {model}', once)}"
        drills.begin(DrillOrder(model=model, drill_id=drill_id, actor=name, reason=drilling.reason), policy)
        answer.headers["location"] = f"/v1/models/{model}/drills/{drill_id}"
        return drills.answer(model, drill_id)

    @router.get("/models/{model}/drills/{drill_id}", summary="Where a drill stands", tags=["reading"])
    def drill(model: Model, drill_id: DrillId) -> DrillAnswer:
        _project(projects, model)
        return drills.answer(model, drill_id)


def key_of(call: Request) -> ApiKey:
    """Returns the key that the door let this request in with."""
    key = call.scope["state"]["key"]
    assert isinstance(key, ApiKey)
    return key


def act_id(name: str, act: str, once: str) -> str:
    """Returns the id of an act: of one caller's one key always the same, of another's another."""
    return digest_of([name, act, once]).removeprefix("sha256:")[:16]


def _project(projects: Projects, model: str) -> Project:
    known = projects()
    if model not in known:
        raise NotFound(f"there is no model '{model}'", remedy=f"known are: {', '.join(sorted(known)) or 'none'}")
    return known[model]


def _answer(services: Services, project: Project, request: PromotionRequest) -> RequestAnswer:
    return RequestAnswer(**request_status(services.releases, project, request))


def _is_approved(services: Services, project: Project, request: PromotionRequest, name: str, reason: str) -> bool:
    """Returns whether this very approval was given and still counts: then it was sent twice."""
    if request.state in {RequestState.REFUSED, RequestState.CANCELLED}:
        return False
    given = find_approval(services.releases.facts(request, project.spec.policy), name)
    return given is not None and given.standing is Standing.VALID and given.approval.reason == reason
