"""What is served: a frozen route table, replaced whole by `advance`.

```
             Went                      the version is verified and answers from now on
(nothing) ----------> loaded ---+      Went again: another version took its place
    |                   |       |      Confirmed: the registry still names this version
    | Refused           | Refused / Unassigned / Lost: what is loaded goes on answering
    v                   v
 refusal             loaded, with a refusal beside it
```
A look at the registry and a push may run at the same time. Whichever settles last, the higher epoch stays.

Beside the live version there may be one on the route `canary` and one on `shadow`, put there by a move after the one
that put the live version into Production; with Production's next move they are gone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar, assert_never

import orjson

from release_platform.adapters.model_package import ModelPackage
from release_platform.adapters.trust import Proof
from release_platform.domain.windows import Route
from serving.errors import ModelNotLoaded, UnknownModel, UnknownVersion
from serving.forms import Form, form_of

UNASSIGNED = "Unassigned"
"""The kind of refusal where the registry names no version at all."""

BEHIND = "Behind"
"""The kind of refusal where the registry still names what was in Production before the move that is served."""

ROUTE_HEADER = b"x-model-route"
"""The header of an answer that names its route; in a request, `stable` asks for the version in Production."""

BESIDE = (Route.CANARY, Route.SHADOW)
"""The routes beside Production; each is named as the registry alias that says who is on it."""

_Key = TypeVar("_Key")
_T = TypeVar("_T")


class Origin(StrEnum):
    """Where a loaded version was named."""

    REGISTRY = "registry"
    PUSH = "push"
    DISK = "disk"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A verified version that answers.

    Attributes:
        version: The version's number, as text.
        digest: `D(v)`, that its files hash to.
        epoch: The epoch of the move that put it into Production; the one that is accepted never decreases.
        proof: What it showed to be taken.
        since: When it went live in this process, in UTC.
        origin: Who named it: the registry; a pushed certificate, until the registry names it too; or this server's
            own record of what it served last, likewise.
        inline_rows: Most rows that are predicted on the event loop, because a thread would take longer to be reached.
        same_in_company: Whether a row gets the very same answer alone and computed together with others.
    """

    model: str
    version: str
    digest: str
    epoch: int
    proof: Proof
    package: ModelPackage
    since: datetime
    origin: Origin
    inline_rows: int = 0
    same_in_company: bool = False

    @cached_property
    def form(self) -> Form:
        """How its rows are read."""
        return form_of(self.package.plan)

    @cached_property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers that name it in every answer."""
        named = ((b"x-model-version", self.version), (b"x-model-digest", self.digest), (b"x-model-epoch", self.epoch))
        return tuple((name, str(value).encode()) for name, value in named)

    @cached_property
    def stable_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The same, with the route of Production's version."""
        return (*self.headers, (ROUTE_HEADER, b"stable"))

    @cached_property
    def canary_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The same, with the canary's."""
        return (*self.headers, (ROUTE_HEADER, b"canary"))

    @cached_property
    def pinned_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The same for requests that chose the version themselves."""
        return (*self.headers, (ROUTE_HEADER, b"pinned"))

    @cached_property
    def members(self) -> bytes:
        """The beginning of the JSON object of an answer, which names it; it ends in a comma."""
        names = {"model": self.model, "version": self.version, "digest": self.digest, "epoch": self.epoch}
        return orjson.dumps(names | {"engine": self.package.engine_name})[:-1] + b","

    @property
    def example(self) -> dict[str, Any]:
        """A row that the model answers: its first golden one."""
        return {name: values[0] for name, values in self.package.golden["inputs"].items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A verified version that stands beside the one in Production, on a route of its own.

    Attributes:
        loaded: The version; its epoch is that of the move that put it there, or changed its weight.
        weight: The share of the requests that it is asked, 0 to 1; with 0 it is kept ready.
    """

    loaded: LoadedModel
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the version that the registry names is not served.

    Attributes:
        version: That version; None when the registry names none.
        kind: One word for metrics, e.g. `IntegrityError`.
        n_attempts: How often it was tried.
        retry_at: When it is tried again at the earliest, in UTC.
    """

    model: str
    version: str | None
    kind: str
    reason: str
    at: datetime
    n_attempts: int
    retry_at: datetime

    @property
    def sentence(self) -> str:
        """Says what was refused, and why."""
        return self.reason if self.version is None else f"version {self.version} of '{self.model}': {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """How the registry was met last: `reachable` is None before the first attempt ended."""

    reachable: bool | None = None
    last_success: datetime | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Went:
    """A version was verified and goes live."""

    loaded: LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """The registry names the version that went live with the move of this epoch."""

    model: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The version that the registry names was not taken, or it names none."""

    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The registry answered; `models` are those that this server is to serve."""

    models: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The registry did not answer."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoodBy:
    """The version that the registry names as the previous one is ready; None when it names none that may answer."""

    model: str
    loaded: LoadedModel | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoodBeside:
    """The registry was asked who stands beside Production on a route.

    Attributes:
        model: The model.
        route: `canary` or `shadow`.
        beside: Who does; None for nobody.
        refusal: Why the one that the registry names does not; None where it does, or names none.
    """

    model: str
    route: Route
    beside: Beside | None = None
    refusal: Refusal | None = None


Event = Went | Confirmed | Refused | Reached | Lost | StoodBy | StoodBeside


def _nothing() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """Everything that a request may be answered from.

    Attributes:
        loaded: The live version of each model.
        standby: The previous Production version of each model, verified and warm. It answers those who name it, until
            the next move: only the registry tells whether it stands behind that.
        canary: Of each model that has one, the version that a share of the requests goes to instead.
        shadow: Likewise, the version that a share of the requests is put to as well, and whose answers nobody gets.
        refusals: Why a model's named version is not the live one.
        refusals_beside: Why the version that is named for a route beside it is not on it.
        known: Names of the models to serve; None when they are not known yet.
        contact: How the registry was met last.
    """

    loaded: Mapping[str, LoadedModel] = field(default_factory=_nothing)
    standby: Mapping[str, LoadedModel] = field(default_factory=_nothing)
    canary: Mapping[str, Beside] = field(default_factory=_nothing)
    shadow: Mapping[str, Beside] = field(default_factory=_nothing)
    refusals: Mapping[str, Refusal] = field(default_factory=_nothing)
    refusals_beside: Mapping[tuple[str, Route], Refusal] = field(default_factory=_nothing)
    known: frozenset[str] | None = None
    contact: Contact = field(default_factory=Contact)

    def beside(self, route: Route) -> Mapping[str, Beside]:
        """Returns the versions on `canary` or `shadow`, by model."""
        return self.canary if route is Route.CANARY else self.shadow

    def get_model(self, model: str, version: str | None = None) -> LoadedModel:
        """Returns the version of a model that answers.

        Args:
            model: Its name; empty for the one that there is.
            version: The version that must answer; None for the live one.

        Raises:
            UnknownModel: There is no such model, or none is named and there are several.
            UnknownVersion: The version neither is in Production nor was so before.
            ModelNotLoaded: There is, but no version of it is loaded.
        """
        found = self.loaded.get(model) if model else self._only()
        if found is not None:
            return found if version is None or version == found.version else self._get_standby(found, version)
        if model in self.refusals:
            raise ModelNotLoaded(self.refusals[model].sentence)
        if self.known is None:
            raise ModelNotLoaded("the registry has not answered yet, so it is not known which models there are")
        if model in self.known:
            raise ModelNotLoaded(f"no version of '{model}' is loaded yet")
        served = ", ".join(sorted(self.loaded)) or "none"
        raise UnknownModel(f"there is no model '{model:.100}' here; served are: {served}")

    def _only(self) -> LoadedModel | None:
        absent = {name for name, refusal in self.refusals.items() if refusal.kind == UNASSIGNED} - self.loaded.keys()
        names = sorted({*self.names} - absent)
        if len(names) > 1:
            paths = ", ".join(f"/v1/models/{name}" for name in names)
            raise UnknownModel(f"several models are served, so name one of them in the path: {paths}")
        if not self.loaded:
            raise ModelNotLoaded("no model is loaded yet")
        return next(iter(self.loaded.values()))

    def _get_standby(self, live: LoadedModel, version: str) -> LoadedModel:
        found = self.standby.get(live.model)
        if found is not None and found.version == version:
            return found
        names = f"version {live.version}" + (f" and, before it, {found.version}" if found is not None else "")
        raise UnknownVersion(f"version '{version:.40}' of '{live.model}' may not answer; {names} may")

    @property
    def troubled(self) -> frozenset[str]:
        """The models whose live version is not what an operator wanted: refused, or live but named no more.

        A registry that is behind a push is no trouble: what is live is what the operator wanted last.
        """
        return frozenset(name for name, refusal in self.refusals.items() if self._is_trouble(name, refusal))

    def _is_trouble(self, name: str, refusal: Refusal) -> bool:
        return refusal.kind != BEHIND and (refusal.kind != UNASSIGNED or name in self.loaded)

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that something is known of, in order."""
        return tuple(sorted({*self.loaded, *self.refusals, *(self.known or ())}))


def advance(table: RouteTable, event: Event) -> RouteTable:
    """Returns the table after an event. A live version is only ever replaced by a verified one, of no lower epoch.

    A version that only this server's own record names (`Origin.DISK`) never replaces a live one.
    """
    match event:
        case Went(loaded=loaded):
            return _go_live(table, loaded)
        case Confirmed(model=model, epoch=epoch):
            return _confirm(table, model, epoch)
        case Refused(refusal=refusal):
            return replace(table, refusals=_with(table.refusals, refusal.model, refusal))
        case Reached(models=models, at=at):
            kept = {name: refusal for name, refusal in table.refusals.items() if name in models or name in table.loaded}
            return replace(
                table,
                known=frozenset(models),
                refusals=MappingProxyType(kept),
                contact=Contact(reachable=True, last_success=at),
            )
        case Lost(problem=problem):
            return replace(table, contact=replace(table.contact, reachable=False, problem=problem))
        case StoodBy(model=model, loaded=loaded):
            return _stand_by(table, model, loaded)
        case StoodBeside():
            return _stand_beside(table, event)
        case _:
            assert_never(event)


def _go_live(table: RouteTable, loaded: LoadedModel) -> RouteTable:
    live = table.loaded.get(loaded.model)
    if loaded.origin is Origin.DISK:  # the registry's refusal of another version, if any, stays
        return table if live is not None else replace(table, loaded=_with(table.loaded, loaded.model, loaded))
    # Both a look and a push take their time: what was prepared may be overtaken when it is ready.
    if live is not None and (loaded.epoch, loaded.origin is Origin.REGISTRY) < (
        live.epoch,
        live.origin is Origin.REGISTRY,
    ):
        return table
    return _without_overtaken(
        table,
        loaded.model,
        loaded=_with(table.loaded, loaded.model, loaded),
        standby=_without(table.standby, loaded.model) if live is None or loaded.epoch > live.epoch else table.standby,
        refusals=_without(table.refusals, loaded.model),
    )


def _stand_by(table: RouteTable, model: str, loaded: LoadedModel | None) -> RouteTable:
    live = table.loaded.get(model)
    if loaded is None or live is None or loaded.version == live.version or loaded.epoch >= live.epoch:
        return replace(table, standby=_without(table.standby, model)) if model in table.standby else table
    return replace(table, standby=_with(table.standby, model, loaded))


def _without_overtaken(table: RouteTable, model: str, **changed: Any) -> RouteTable:
    """Returns a table with changes, but without what stood beside Production before its last move."""
    moved = replace(table, **changed)
    live = moved.loaded[model]
    for route in BESIDE:
        beside = moved.beside(route).get(model)
        if beside is not None and not _may_stand_beside(live, beside):
            moved = _with_beside(moved, route, _without(moved.beside(route), model))
    return moved


def _may_stand_beside(live: LoadedModel | None, beside: Beside) -> bool:
    return live is not None and beside.loaded.epoch > live.epoch and beside.loaded.version != live.version


def _stand_beside(table: RouteTable, event: StoodBeside) -> RouteTable:
    model, route, beside = event.model, event.route, event.beside
    place, now = (model, route), table.beside(route)
    refusals = _without(table.refusals_beside, place)
    if event.refusal is not None:
        refusals = _with(refusals, place, event.refusal)
    if beside is None or not _may_stand_beside(table.loaded.get(model), beside):
        standing = _without(now, model)
    elif model in now and now[model].loaded.epoch > beside.loaded.epoch:
        return table
    else:
        standing = _with(now, model, beside)
    return _with_beside(replace(table, refusals_beside=refusals), route, standing)


def _with_beside(table: RouteTable, route: Route, standing: Mapping[str, Beside]) -> RouteTable:
    return replace(table, canary=standing) if route is Route.CANARY else replace(table, shadow=standing)


def _confirm(table: RouteTable, model: str, epoch: int) -> RouteTable:
    live = table.loaded.get(model)
    if live is None or live.epoch != epoch:  # overtaken by a push
        return table
    if live.origin is Origin.REGISTRY and model not in table.refusals:
        return table
    confirmed = replace(live, origin=Origin.REGISTRY)
    return replace(table, loaded=_with(table.loaded, model, confirmed), refusals=_without(table.refusals, model))


def _with(values: Mapping[_Key, _T], name: _Key, value: _T) -> Mapping[_Key, _T]:
    return MappingProxyType({**values, name: value})


def _without(values: Mapping[_Key, _T], name: _Key) -> Mapping[_Key, _T]:
    return MappingProxyType({other: value for other, value in values.items() if other != name})


class Live:
    """Holds the one current table, and whether the server is about to stop."""

    def __init__(self, table: RouteTable | None = None) -> None:
        self.table = table or RouteTable()
        self.draining = False

    def apply(self, event: Event) -> None:
        """Replaces the table by the one after the event. To be called on the event loop only."""
        self.table = advance(self.table, event)
