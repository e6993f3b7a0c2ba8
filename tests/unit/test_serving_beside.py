"""A version stands beside Production by a certificate of its own, verified or not at all."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from release_platform.adapters.signing import Signer, new_key
from release_platform.adapters.trust import Proof
from release_platform.domain.windows import Route
from serving.beside import BesideSource
from serving.cache import PackageCache
from serving.models import Lost, RouteTable, StoodBeside, advance
from serving.registry import ModelSource
from serving.routes.health import describe
from tests.fakes.packages import build_linear_classifier
from tests.fakes.registry import TRUST, FakeRegistry, push_of


class SettableClock:
    """A `Clock` that stands still."""

    def __init__(self):
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self):
        return self.moment


class Server:
    """What a server knows of one registry: its table after each look."""

    def __init__(self, registry, folder):
        self.clock = SettableClock()
        cache = PackageCache(folder)
        self.source = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=self.clock)
        self.beside = BesideSource(self.source)
        self.table = RouteTable()

    def look(self):
        live, refusal = self.table.loaded.get("cancer"), self.table.refusals.get("cancer")
        event = self.source.look("cancer", live, refusal)
        if event is not None:
            self.table = advance(self.table, event)
        return self.look_beside()

    def look_beside(self):
        events = self.beside.look("cancer", self.table)
        for one in events:
            self.table = advance(self.table, one)
        return events

    def on(self, route=Route.CANARY):
        beside = self.table.beside(route).get("cancer")
        return None if beside is None else (beside.loaded.version, beside.weight)

    def refusal(self, route=Route.CANARY):
        found = self.table.refusals_beside.get(("cancer", route))
        return None if found is None else found.reason


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("packages")
    return [build_linear_classifier(root / str(n), n_rows=n_rows) for n, n_rows in enumerate((569, 300, 200), 1)]


@pytest.fixture
def folders(built, tmp_path):
    return [shutil.copytree(folder, tmp_path / "registry" / folder.name) for folder in built]


@pytest.fixture
def registry(folders):
    packages = {("cancer", str(n)): folder for n, folder in enumerate(folders, 1)}
    return FakeRegistry(packages, aliases={("cancer", "production"): "1"})


@pytest.fixture
def server(registry, tmp_path):
    server = Server(registry, tmp_path / "cache")
    server.look()
    return server


@pytest.mark.parametrize("route", [Route.CANARY, Route.SHADOW])
def test_a_version_stands_on_its_route_with_the_weight_of_its_certificate(server, registry, route):
    registry.put_beside("cancer", route, "2", 0.25)
    server.look()
    assert server.on(route) == ("2", 0.25)
    assert server.table.beside(route)["cancer"].loaded.epoch == 2
    assert server.look() == ()


def test_another_weight_loads_nothing_again(server, registry):
    registry.put_beside("cancer", "canary", "2", 0.25)
    server.look()
    fetched = registry.n_fetches
    for weight in (0.5, 0.0, 1.0):
        registry.put_beside("cancer", "canary", "2", weight)
        server.look()
        assert server.on() == ("2", weight)
    assert registry.n_fetches == fetched


def test_an_alias_that_is_gone_ends_it(server, registry):
    registry.put_beside("cancer", "canary", "2", 0.25)
    server.look()
    registry.set_alias("cancer", "canary", None)
    server.look()
    assert (server.on(), server.refusal()) == (None, None)
    assert server.look() == ()


def test_a_move_of_production_ends_it_whether_the_alias_is_gone_or_not(server, registry):
    registry.put_beside("cancer", "canary", "2", 0.25)
    registry.put_beside("cancer", "shadow", "3", 1.0)
    server.look()
    registry.set_alias("cancer", "production", "3")
    server.look()
    assert (server.on(), server.on(Route.SHADOW)) == (None, None)
    assert "Production has moved in epoch 4" in server.refusal()


def test_the_certificate_of_an_earlier_canary_is_of_no_use_after_a_move_of_production(server, registry, tmp_path):
    registry.put_beside("cancer", "canary", "2", 0.25)
    registry.set_alias("cancer", "production", "3")
    restarted = Server(registry, tmp_path / "other")
    restarted.look()
    assert restarted.on() is None
    assert restarted.table.loaded["cancer"].version == "3"


def test_a_canary_in_production_is_no_canary(server, registry):
    registry.set_alias("cancer", "production", "2")
    registry.put_beside("cancer", "canary", "2", 0.5)
    server.look()
    assert server.on() is None


def test_without_production_there_is_nothing_to_stand_beside(folders, tmp_path):
    registry = FakeRegistry({("cancer", "1"): folders[0]})
    registry.put_beside("cancer", "canary", "1", 0.5)
    server = Server(registry, tmp_path / "cache")
    server.look()
    assert server.on() is None


def behind_the_back(registry):
    registry.move_behind_the_back("cancer", "canary", "3")


def signed_by_a_stranger(registry):
    registry.certify("cancer", "canary", "2", 9, signer=Signer(new_key()), weight=1.0)


def of_an_earlier_move(registry):
    registry.certify("cancer", "canary", "2", 1, weight=1.0)


def moved_back(registry):
    registry.certify("cancer", "canary", "3", 2, weight=1.0)
    registry.move_behind_the_back("cancer", "canary", "3")


@pytest.mark.parametrize("meddle", [behind_the_back, signed_by_a_stranger, of_an_earlier_move, moved_back])
def test_what_is_not_proven_changes_nothing(server, registry, meddle):
    registry.put_beside("cancer", "canary", "2", 0.1)
    registry.put_beside("cancer", "canary", "2", 0.25)
    server.look()
    meddle(registry)
    server.look()
    assert server.on() == ("2", 0.25)
    assert server.refusal()


def test_a_server_that_never_saw_it_takes_no_canary_that_was_moved_back(registry, tmp_path):
    registry.put_beside("cancer", "canary", "2", 0.5)
    registry.put_beside("cancer", "canary", "3", 0.1)
    registry.move_behind_the_back("cancer", "canary", "2")
    server = Server(registry, tmp_path / "cache")
    server.look()
    assert server.on() is None
    assert "epoch 3" in server.refusal()


def test_a_version_that_is_proven_but_cannot_be_loaded_gets_nothing_and_leaves_nothing_to_the_one_before(
    server, registry, folders
):
    registry.put_beside("cancer", "canary", "2", 0.25)
    server.look()
    (folders[2] / "model.skops").write_bytes(b"other bytes")
    registry.put_beside("cancer", "canary", "3", 0.25)
    server.look()
    assert server.on() is None
    assert "model.skops" in server.refusal()
    shown = describe(server.table)["models"]["cancer"]["routes"]
    assert shown["stable"] == {"version": "1", "weight": 1.0}
    assert (shown["canary"]["weight"], shown["canary"]["refusal"]["version"]) == (0.0, "3")


def test_one_that_cannot_be_loaded_is_tried_again_after_a_while(server, registry, folders):
    content = (folders[1] / "model.skops").read_bytes()
    (folders[1] / "model.skops").write_bytes(b"other bytes")
    registry.put_beside("cancer", "canary", "2", 0.25)
    server.look()
    (folders[1] / "model.skops").write_bytes(content)
    assert server.look() == ()
    server.clock.moment += timedelta(seconds=61)
    server.look()
    assert (server.on(), server.refusal()) == (("2", 0.25), None)


def test_one_whose_files_cannot_be_had_is_refused_as_any_that_cannot_be_loaded(server, registry):
    registry.put_beside("cancer", "canary", "2", 0.25)
    registry.without_files.add(("cancer", "2"))
    server.look()
    assert (server.on(), server.refusal()) == (None, "the artefact storage does not answer")
    assert server.look() == ()


def test_a_registry_that_is_down_leaves_it_where_it_is(server, registry):
    registry.put_beside("cancer", "canary", "2", 0.25)
    server.look()
    registry.down = True
    assert {type(event) for event in server.look_beside()} == {Lost}
    assert server.on() == ("2", 0.25)


def test_a_look_that_was_overtaken_changes_nothing(server, registry):
    registry.put_beside("cancer", "canary", "2", 0.25)
    (late,) = server.beside.look("cancer", server.table)
    registry.put_beside("cancer", "canary", "2", 0.5)
    server.look_beside()
    server.table = advance(server.table, late)
    assert server.on() == ("2", 0.5)
    registry.set_alias("cancer", "production", "3")
    server.look()
    server.table = advance(server.table, late)
    assert isinstance(late, StoodBeside)
    assert server.on() is None


class Interrupted(FakeRegistry):
    """Lets something else happen while it is asked what it shows, once."""

    def __init__(self, packages, **given):
        self.meanwhile = None
        super().__init__(packages, **given)

    def shown(self, model):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().shown(model)


def test_a_look_does_not_undo_a_pushed_share_that_comes_while_it_asks_the_registry(folders, tmp_path):
    packages = {("cancer", str(n)): folder for n, folder in enumerate(folders, 1)}
    registry = Interrupted(packages, aliases={("cancer", "production"): "1"})
    server = Server(registry, tmp_path / "cache")
    server.look()
    registry.put_beside("cancer", "canary", "2", 0.25)
    record, began = registry.get_version("cancer", "2"), server.table
    push = push_of(record, epoch=3, alias="canary", weight=0.0)
    proof = Proof(signature=push.signature, certificate=push.certificate)

    def push_away():
        certificate = server.source.authorise(proof, record.manifest, "cancer", alias=None)
        server.table = advance(server.table, server.beside.take(certificate, proof, record.manifest, server.table))

    registry.meanwhile = push_away
    (late,) = server.beside.look("cancer", began)
    assert server.beside.is_overtaken(late, began, server.table)
