"""The operator's commands through the operators' API, where RELEASE_API_URL names one."""

import uuid
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

from release_platform.adapters.operators_api import OperatorsApi, error_of
from release_platform.cli.console import err
from release_platform.cli.options import key_in
from release_platform.domain.api_keys import find_key_id
from release_platform.domain.asked_rollout import asked_in_words
from release_platform.domain.drill import Drilled
from release_platform.domain.errors import NotFound, Refused
from release_platform.domain.ledger import LedgerRow

WAIT_S = 180.0
LOOK_EVERY_S = 1.0
LOST_S = 60.0
"""A drill of which nobody at the API's address knows for so long is lost."""


def find_api(actor: str | None = None) -> OperatorsApi | None:
    """Returns the operators' API of the settings, or None when they name none.

    Args:
        actor: Who is said to act; nobody may be, since the key says it.

    Raises:
        Refused: Somebody is named, or there is no key, or none that could be one.
        Unavailable: The file of the key cannot be read, or is empty.
    """
    from release_platform.settings import Settings

    settings = Settings()
    if not settings.api_url:
        return None
    if actor is not None:
        raise Refused("through the operators' API the name of the API key is who acts", remedy="leave --actor out")
    key = settings.api_key.get_secret_value()
    if not key and settings.api_key_file is not None:
        key = key_in(settings.api_key_file)
    if not key:
        raise Refused(
            "the operators' API asks for an API key",
            remedy="set RELEASE_API_KEY_FILE to its file; `release api-key create NAME --scope operator` makes one",
        )
    if find_key_id(key) is None:
        raise Refused(
            "what is given as the API key of the operators' API is none",
            remedy="give the whole line that `release api-key create` printed, in RELEASE_API_KEY or the file",
        )
    return OperatorsApi(settings.api_url, key)


def promote(
    api: OperatorsApi,
    model: str,
    *,
    version: str | None,
    reason: str,
    strategy: str | None,
    words: Mapping[str, Any],
) -> LedgerRow | dict[str, Any]:
    """Requests a promotion, waits for the promotion sensor, and returns the ledger row, or where its rollout stands.

    Raises:
        Refused: A condition does not hold; the request stays open, unless it never can.
    """
    asking: dict[str, Any] = {"reason": reason, "version": version, "strategy": strategy}
    asked = asked_in_words(**words)
    if not asked.says_nothing:  # an API of an older version does not know it
        asking["rollout"] = asked.to_json()
    request = api.post(f"/v1/models/{part(model)}/requests", asking, once=uuid.uuid4().hex)
    name = request["request_id"]
    if request["reason"] != reason:
        err.print(f"  carrying on with request {name}, asked for with: {request['reason']}", markup=False)
    err.print("  the promotion sensor decides ...")
    until = monotonic() + WAIT_S
    while monotonic() < until:
        if request["state"] == "promoted":
            return next(row for row in history(api, model) if row.request_id == name)
        if request["state"] != "open":
            raise Refused(f"request {name} is {request['state']}: {request['outcome']}", remedy="open a new request")
        if request["rollout"]:
            return rollout_status(api, model)
        if request["missing"]:
            raise Refused(
                f"request {name} waits: {'; '.join(request['missing'])}",
                remedy="the promotion sensor carries it out as soon as every condition holds",
            )
        sleep(LOOK_EVERY_S)
        request = api.get(f"/v1/requests/{part(name)}")
    raise Refused(
        f"request {name} still waits for its run",
        remedy=f"check that Dagster's daemon runs; `release status {model}` shows the request, which stays open",
    )


def approve(api: OperatorsApi, request_id: str, reason: str) -> dict[str, Any]:
    """Approves a request and returns what the approval is worth, and what is still missing."""
    request = api.post(f"/v1/requests/{part(request_id)}/approval", {"reason": reason}, once=uuid.uuid4().hex)
    name = api.get("/v1/whoami")["name"]
    mine = next(one for one in request["approvals"] if one["actor"] == name)
    shown = {key: request[key] for key in ("request_id", "model", "version", "missing")}
    return {**shown, "valid_until": mine["valid_until"], "said": mine["said"]}


def cancel(api: OperatorsApi, request_id: str, reason: str) -> str:
    """Cancels a request and returns what is kept of it."""
    path = f"/v1/requests/{part(request_id)}/cancellation"
    return str(api.post(path, {"reason": reason}, once=uuid.uuid4().hex)["outcome"])


def lift_hold(api: OperatorsApi, model: str, reason: str) -> dict[str, Any]:
    """Lifts the hold of a drift alarm, and returns what the last report said."""
    path = f"/v1/models/{part(model)}/drift/lift"
    found: dict[str, Any] = api.post(path, {"reason": reason}, once=uuid.uuid4().hex)
    return found


def rollback(api: OperatorsApi, model: str, *, to: str | None, reason: str) -> tuple[LedgerRow, list[str]]:
    """Brings a former version back; returns the ledger row, and what each live server said."""
    answer = api.post(f"/v1/models/{part(model)}/rollback", {"reason": reason, "to": to}, once=uuid.uuid4().hex)
    return LedgerRow.from_json({k: v for k, v in answer.items() if k != "servers"}), answer["servers"]


def drill(api: OperatorsApi, model: str, reason: str) -> Drilled:
    """Asks for a drill, waits for its end, and returns what it showed, good or bad.

    Raises:
        Refused: No drill is possible now, or it takes longer than any should.
        IntegrityError: A server answers wrongly before it; nothing was moved.
        Unavailable: An outside system or a server does not answer.
    """
    place = f"/v1/models/{part(model)}/drills"
    asked = api.post(place, {"reason": reason or None}, once=uuid.uuid4().hex)
    err.print(f"  drill {asked['drill_id']} is under way ...", markup=False, highlight=False)
    seen = monotonic()
    until = seen + WAIT_S
    while asked["state"] == "under_way":
        if monotonic() > until:
            raise Refused(
                f"{model}: drill {asked['drill_id']} is still under way",
                remedy=f"`release status {model}` shows what came of it; one that was cut off is brought back",
            )
        sleep(LOOK_EVERY_S)
        try:
            asked, seen = api.get(f"{place}/{part(asked['drill_id'])}"), monotonic()
        except NotFound:  # of several processes of the API one makes it, and this one may not know of it yet
            if monotonic() > seen + LOST_S:
                raise
    if asked["problem"] is not None:
        raise error_of(asked["problem"])
    return Drilled.from_json(asked["drill"])


def rollout_status(api: OperatorsApi, model: str) -> dict[str, Any]:
    """Returns where a model's rollout stands."""
    found: dict[str, Any] = api.get(f"/v1/models/{part(model)}/rollout")
    return found


def order_rollout(api: OperatorsApi, model: str, order: str, reason: str) -> dict[str, Any]:
    """Orders something of a model's rollout, and returns where it stands then."""
    path = f"/v1/models/{part(model)}/rollout/{order}"
    found: dict[str, Any] = api.post(path, {"reason": reason}, once=uuid.uuid4().hex)
    return found


def history(api: OperatorsApi, model: str) -> tuple[LedgerRow, ...]:
    """Returns the ledger of a model."""
    return tuple(LedgerRow.from_json(row) for row in api.get(f"/v1/models/{part(model)}/history"))


def statuses(api: OperatorsApi, model: str | None) -> list[dict[str, Any]]:
    """Returns where the versions of a model stand, or of all."""
    names = [model] if model else [one["model"] for one in api.get("/v1/models")]
    return [api.get(f"/v1/models/{part(name)}") for name in names]


def part(text: str) -> str:
    """Returns a text as one part of a path, whatever is in it."""
    return quote(text, safe="")
