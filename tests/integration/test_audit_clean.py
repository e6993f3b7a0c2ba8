"""No false alarm: histories made by the platform alone, whatever it was asked to do, have no finding.

`RELEASES=50` makes the long history; what it took is printed.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from time import perf_counter

import dagster as dg
import pytest

from release_platform.defs.audit import look
from release_platform.defs.resources import Platform
from release_platform.domain.lifecycle import Move
from release_platform.domain.policy import RequestState
from release_platform.project import Project
from tests.integration.homes import Home, changed, example, open_home, why

RELEASES = int(os.environ.get("RELEASES", "6"))
FIRST = changed(example("diabetes"), policy=replace(example("diabetes").spec.policy, current_baseline=False))
SECOND = changed(FIRST, name="diabetes_too")


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with open_home(tmp_path_factory.mktemp("clean") / "home") as home, closing(home.services.store):
        yield home


def done(result: dg.ExecuteInProcessResult) -> None:
    assert result.success, why(result)


def ask(home: Home, project: Project, request_id: str, **form: str) -> None:
    form = {"model": project.spec.name, "actor": "ada", "reason": "better", "request_id": request_id, **form}
    done(home.launch("request_promotion", project, **form))


def tick(home: Home) -> None:
    """Evaluates the promotion sensor once, as the daemon does, and runs what it launches, whatever comes of it."""
    sensor = home.definitions(FIRST, SECOND).resolve_sensor_def("promotion_sensor")
    with dg.build_sensor_context(instance=home.instance, resources={"platform": Platform()}) as context:
        requests = sensor.evaluate_tick(context).run_requests or ()
    for request in requests:
        project = FIRST if request.tags["release/model"] == FIRST.spec.name else SECOND
        form = request.run_config["ops"]["move_production"]["config"]
        home.launch("promote", project, tags=request.tags, **form)


def roll_back(home: Home, project: Project, **form: str) -> None:
    done(home.launch("rollback", project, model=project.spec.name, actor="grace", reason="errors", **form))


def release(home: Home, number: int) -> None:
    """Makes one release, and with it what happens to releases: by its number, so that all of it happens."""
    project = SECOND if number % 4 == 3 else FIRST
    done(home.release(project))
    if number % 5 == 1:  # it stays in Staging, and the next one takes its place
        return
    ask(home, project, f"q{number}")
    ask(home, project, f"again{number}", actor="eve")  # is refused: the first one was faster
    if number % 2:
        done(home.launch("approve", project, request_id=f"q{number}", actor="grace", reason="read it"))
    tick(home)
    head = home.services.store.head(project.spec.name)
    if number % 3 == 2 and head.previous:
        roll_back(home, project)
        roll_back(home, project, to=head.production or "")  # not on the stack any more: it is pushed again


def rotate_key(home: Home) -> str:
    """Makes a new signing key and returns the id of the one before, which stays trusted."""
    (before,) = home.services.keys.trusted().ids
    home.services.keys.rotate()
    return before


def moves(home: Home) -> list[Move]:
    return [row.move for project in (FIRST, SECOND) for row in home.services.store.ledger(project.spec.name)]


def refused(home: Home) -> int:
    return sum(len(home.services.store.requests(p.spec.name, RequestState.REFUSED)) for p in (FIRST, SECOND))


def test_a_clean_history_has_no_finding(home: Home) -> None:
    before = ""
    for number in range(RELEASES):
        release(home, number)
        if number == RELEASES // 2:
            before = rotate_key(home)
        if number == RELEASES - 2:
            home.services.releases.distrust_key(before, home.services.store.models())
        if number % 10 == 9 or number == RELEASES - 1:
            began = perf_counter()
            for project in (FIRST, SECOND):
                assert look(home.services, home.instance, project.spec.name).findings == ()
            print(f"{number + 1} releases: no finding, {perf_counter() - began:.2f} s")  # noqa: T201
    assert {*moves(home)} == {move for move in Move if not move.weighted}  # there was no rollout
    assert moves(home).count(Move.STAGED) == RELEASES
    assert refused(home) >= RELEASES // 2
