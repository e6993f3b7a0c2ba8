"""A pushed certificate: what it must prove, what the fence refuses, and that neither push nor look undoes the other."""

import asyncio
import json
import shutil
import threading

import httpx
import pytest

from release_platform.adapters.clock import SystemClock
from release_platform.adapters.signing import Signer, new_key
from release_platform.adapters.trust import Proof
from release_platform.domain.identity import Manifest
from release_platform.domain.windows import Route
from serving.app import create_app
from serving.cache import PackageCache
from serving.errors import NoCopy, Overloaded, StaleMove
from serving.metrics import Metrics
from serving.models import BEHIND, Live, Origin, StoodBeside
from serving.pushes import MAX_BODY_BYTES, MAX_UNDER_WAY, Pushes
from serving.registry import ModelSource
from serving.watch import Watcher
from tests.fakes.packages import CANCER_INPUTS, build_linear_classifier, build_regression
from tests.fakes.registry import TRUST, FakeRegistry, push_of
from tests.fakes.server import settings_for

PATH = "/v1/models/cancer/certificate"
ROW = {"rows": [dict.fromkeys(CANCER_INPUTS, 1.5)]}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    made = {("cancer", str(n)): build_linear_classifier(folder / str(n), n_rows=300 + n) for n in (1, 2, 3)}
    return made | {("diabetes", "1"): build_regression(folder / "diabetes")}


@pytest.fixture
def registry(built, tmp_path):
    copies = {key: shutil.copytree(folder, tmp_path / "registry" / "-".join(key)) for key, folder in built.items()}
    return FakeRegistry(copies)


class Gate:
    """Holds whoever fetches a version until it is opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()


class SlowRegistry(FakeRegistry):
    """Fetches a version only when its gate is open."""

    def __init__(self, packages, **given):
        self.gates = {}
        super().__init__(packages, **given)

    def fetch(self, model, version, folder):
        if version in self.gates:
            self.gates[version].reached.set()
            assert self.gates[version].opened.wait(20)
        return super().fetch(model, version, folder)


class Client:
    """Asks an application whose watcher does not run."""

    def __init__(self, app):
        self._app = app

    def request(self, method, path, **given):
        async def ask():
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, **given):
        return self.request("POST", path, **given)


class Server:
    """A server without its socket and its clockwork: looks and pushes happen when they are asked for."""

    def __init__(self, registry, folder, **given):
        self.live = Live()
        self.source = ModelSource(
            connect=lambda: registry, cache=PackageCache(folder), trust=TRUST, clock=SystemClock(), **given
        )
        self.watcher = Watcher(
            source=self.source, live=self.live, metrics=Metrics(self.live), refresh_s=1, patience_s=1
        )
        self.pushes = Pushes(source=self.source, live=self.live, watcher=self.watcher)

    @property
    def named(self):
        found = self.live.table.get_model("cancer")
        return found.version, found.epoch, found.origin

    async def push(self, push):
        return await self.pushes.accept(push.model, json.dumps(push.to_json()).encode())


@pytest.fixture
def server(registry, tmp_path):
    return Server(registry, tmp_path / "cache")


def cancer(registry, number, epoch, **given):
    return push_of(registry.get_version("cancer", number), epoch=epoch, **given)


@pytest.fixture
def client(registry, tmp_path):
    app = create_app(settings_for(tmp_path / "cache"), registry)
    return Client(app)


def said(answer, status, slug):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith(f":{slug}")
    return answer.json()["detail"]


def send(client, push, **changed):
    return client.post(PATH, json={**push.to_json(), **changed})


# What is taken


def test_a_pushed_version_answers_at_once(client, registry):
    answer = send(client, cancer(registry, "1", 5))
    assert answer.status_code == 200
    assert (answer.json()["version"], answer.json()["epoch"]) == ("1", 5)
    predicted = client.post("/v1/models/cancer/predict", json=ROW).json()
    assert (predicted["version"], predicted["epoch"]) == ("1", 5)
    assert client.get("/status").json()["models"]["cancer"]["origin"] == "push"
    assert client.get("/readyz").status_code == 200


def test_the_live_certificate_may_come_again(client, registry):
    first, again = (send(client, cancer(registry, "1", 5)) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())


def test_the_version_that_is_live_takes_a_new_epoch_without_being_loaded_again(client, registry):
    send(client, cancer(registry, "1", 5))
    push = cancer(registry, "1", 7)
    registry.down = True
    assert send(client, push).json()["epoch"] == 7
    assert registry.n_fetches == 1


def test_a_version_whose_copy_is_here_needs_no_registry(client, registry):
    send(client, cancer(registry, "1", 5))
    send(client, cancer(registry, "2", 6))
    push = cancer(registry, "1", 7)
    registry.down = True
    assert send(client, push).json()["version"] == "1"
    assert registry.n_fetches == 2


def test_what_was_pushed_is_served_after_a_restart_without_registry(server, registry, tmp_path):
    asyncio.run(server.push(cancer(registry, "1", 5)))
    registry.down = True
    restarted = Server(registry, tmp_path / "cache")
    asyncio.run(restarted.watcher.refresh())
    assert restarted.named == ("1", 5, Origin.DISK)


# What is refused


@pytest.mark.parametrize("epoch", [4, 5])
def test_an_epoch_that_is_not_later_is_refused(client, registry, epoch):
    send(client, cancer(registry, "1", 5))
    assert "epoch 5 was accepted already" in said(send(client, cancer(registry, "2", epoch)), 409, "stale-move")
    assert client.post("/v1/models/cancer/predict", json=ROW).json()["version"] == "1"
    assert send(client, cancer(registry, "2", 6)).status_code == 200


@pytest.mark.parametrize(("epoch", "status"), [(4, 409), (5, 200), (6, 200)])
def test_the_fence_holds_over_a_restart(registry, tmp_path, epoch, status):
    settings = settings_for(tmp_path / "cache")
    assert send(Client(create_app(settings, registry)), cancer(registry, "1", 5)).status_code == 200
    restarted = Client(create_app(settings, registry))  # nothing is loaded yet
    assert send(restarted, cancer(registry, "1", epoch)).status_code == status


def test_an_old_certificate_is_of_no_use_at_a_server_that_never_served(client, registry):
    for version in ("1", "2"):
        registry.set_alias("cancer", "production", version)
    old, newest = (cancer(registry, str(epoch), epoch) for epoch in (1, 2))
    assert "a certificate of epoch 2" in said(send(client, old), 409, "stale-move")
    registry.down = True
    assert "does not answer" in said(send(client, newest), 503, "no-copy")
    assert client.get("/v1/models").json()["models"] == []
    registry.down = False
    assert send(client, newest).json()["epoch"] == 2


def test_a_server_that_has_noted_what_it_served_needs_no_registry_to_take_a_later_move(server, registry, tmp_path):
    asyncio.run(server.push(cancer(registry, "1", 5)))
    push = cancer(registry, "1", 6)
    registry.down = True
    restarted = Server(registry, tmp_path / "cache")
    assert asyncio.run(restarted.push(push)).epoch == 6


STRANGER = Signer(new_key())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"signer": STRANGER}, "not trusted here"),
        ({"alias": "staging"}, "another alias"),
        ({"model": "diabetes"}, "another model"),
        ({"version": "2"}, "not of cancer version 2"),
        ({"digest": "sha256:" + "0" * 64}, "another digest"),
    ],
    ids=["stranger", "alias", "model", "version", "digest"],
)
def test_a_certificate_that_proves_something_else_is_refused(client, registry, given, why):
    assert why in said(send(client, cancer(registry, "1", 5, **given)), 403, "unproven-move")
    assert client.get("/v1/models").json()["models"] == []


def test_another_signature_or_manifest_than_the_versions_own_is_refused(client, registry):
    push, other = cancer(registry, "1", 5), cancer(registry, "2", 5)
    for changed in ({"signature": other.signature}, {"manifest": json.loads(other.manifest)}):
        said(send(client, push, **changed), 403, "unproven-move")
    said(client.post("/v1/models/diabetes/certificate", json=push.to_json()), 403, "unproven-move")


@pytest.mark.parametrize(
    "bundle",
    ["", "{}", "null", "[" * 100_000, '{"verificationMaterial": {"publicKey": {"hint": []}}}', "\x00"],
    ids=["empty", "object", "null", "nested", "hint", "nul"],
)
def test_what_is_no_bundle_is_refused(client, registry, bundle):
    for name in ("certificate", "signature"):
        said(send(client, cancer(registry, "1", 5), **{name: bundle}), 403, "unproven-move")


def test_a_bundle_whose_hint_is_no_text_is_refused(client, registry):
    push = cancer(registry, "1", 5)
    bundle = json.loads(push.certificate)
    for hint in ([], {}, None, 1):
        bundle["verificationMaterial"]["publicKey"]["hint"] = hint
        said(send(client, push, certificate=json.dumps(bundle)), 403, "unproven-move")


def test_every_changed_bit_of_a_certificate_is_refused(client, registry):
    push = cancer(registry, "1", 5)
    bundle = json.loads(push.certificate)
    envelope = bundle["dsseEnvelope"]
    payload, signature = envelope["payload"], envelope["signatures"][0]["sig"]
    for at in range(0, len(payload), 37):
        envelope["payload"] = payload[:at] + ("A" if payload[at] != "A" else "B") + payload[at + 1 :]
        said(send(client, push, certificate=json.dumps(bundle)), 403, "unproven-move")
    envelope["payload"] = payload
    for at in range(0, len(signature) - 3, 7):
        envelope["signatures"][0]["sig"] = signature[:at] + ("A" if signature[at] != "A" else "B") + signature[at + 1 :]
        said(send(client, push, certificate=json.dumps(bundle)), 403, "unproven-move")


FILE = {"path": "a", "size_bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"certificate": 1}, "certificate"),
        ({"signature": None}, "signature"),
        ({"extra": 1}, "extra"),
        ({"manifest": []}, "manifest"),
        ({"manifest": "[]"}, "manifest"),
        ({"manifest": [FILE | {"sha256": "x"}]}, "manifest.0.sha256"),
        ({"manifest": [FILE | {"size_bytes": -1}]}, "manifest.0.size_bytes"),
        ({"manifest": [FILE | {"size_bytes": True}]}, "manifest.0.size_bytes"),
        ({"manifest": [FILE | {"path": "../a"}]}, "manifest"),
        ({"manifest": [FILE, FILE]}, "manifest"),
    ],
)
def test_a_member_that_is_wrong_is_named(client, registry, changed, field):
    answer = send(client, cancer(registry, "1", 5), **changed)
    said(answer, 422, "invalid-push")
    assert answer.json()["field"] == field


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{", 400, "malformed-body"),
        (b'{"certificate":"a","certificate":"b"}', 400, "duplicate-key"),
        (b"[]", 422, "invalid-push"),
        (b"{}", 422, "invalid-push"),
    ],
)
def test_a_body_that_is_none_is_refused(client, body, status, slug):
    said(client.post(PATH, content=body, headers={"content-type": "application/json"}), status, slug)


def test_a_body_over_the_limit_is_refused_and_the_largest_that_the_registry_can_hold_is_not(client, registry):
    push = cancer(registry, "1", 5)
    tag = json.dumps('{"a":"' + "b" * 99_000 + '"}')
    files = [FILE | {"path": f"{n:05}"} for n in range(900)]
    assert len(json.dumps(files)) > 100_000  # more than one tag of MLflow takes
    said(send(client, push, certificate=tag, signature=tag, manifest=files), 403, "unproven-move")
    said(send(client, push, certificate="x" * MAX_BODY_BYTES), 413, "body-too-large")


def test_a_model_that_this_server_is_not_to_serve_is_refused(registry, tmp_path):
    client = Client(create_app(settings_for(tmp_path / "cache", models=("diabetes",)), registry))
    said(send(client, cancer(registry, "1", 5)), 404, "unknown-model")


def test_without_a_copy_and_without_a_registry_it_says_so_and_goes_on(client, registry):
    send(client, cancer(registry, "2", 4))
    push = cancer(registry, "1", 5)
    registry.down = True
    answer = send(client, push)
    assert "no good copy of cancer version 1" in said(answer, 503, "no-copy")
    assert "does not answer" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "2"
    assert client.post("/v1/models/cancer/predict", json=ROW).json()["epoch"] == 4
    registry.down = False
    assert send(client, push).status_code == 200


def test_files_that_are_not_the_registered_ones_are_refused(client, registry, tmp_path):
    (tmp_path / "registry" / "cancer-1" / "model.skops").write_bytes(b"other bytes")
    assert "model.skops" in said(send(client, cancer(registry, "1", 5)), 503, "no-copy")


def test_a_copy_that_was_changed_is_not_served(client, registry, tmp_path):
    send(client, cancer(registry, "1", 5))
    restarted = Client(create_app(settings_for(tmp_path / "cache"), registry))
    send(restarted, cancer(registry, "2", 6))
    push = cancer(registry, "1", 7)
    digest = registry.get_version("cancer", "1").digest.removeprefix("sha256:")
    (tmp_path / "cache" / "packages" / digest / "model.skops").write_bytes(b"other bytes")
    registry.down = True
    said(send(restarted, push), 503, "no-copy")
    assert restarted.post("/v1/models/cancer/predict", json=ROW).json()["version"] == "2"


# Looks and pushes at the same time


@pytest.fixture
def slow(built):
    return SlowRegistry(built, aliases={("cancer", "production"): "2"})


def test_a_look_that_began_before_a_push_and_settles_after_it_is_overtaken(slow, tmp_path):
    async def scene():
        server = Server(slow, tmp_path / "cache")
        gate = slow.gates["2"] = Gate()
        look = asyncio.create_task(server.watcher.refresh())
        await asyncio.to_thread(gate.reached.wait, 20)
        await server.push(cancer(slow, "1", 5))
        gate.opened.set()
        await look
        assert server.named == ("1", 5, Origin.PUSH)
        assert server.source.restore("cancer").loaded.epoch == 5

    asyncio.run(scene())


def test_a_push_that_was_prepared_while_a_later_move_was_seen_is_told_so(slow, tmp_path):
    async def scene():
        server = Server(slow, tmp_path / "cache")
        gate = slow.gates["1"] = Gate()
        pushing = asyncio.create_task(server.push(cancer(slow, "1", 5)))
        await asyncio.to_thread(gate.reached.wait, 20)
        slow.certify("cancer", "production", "2", 6)
        await server.watcher.refresh()
        gate.opened.set()
        with pytest.raises(StaleMove, match="epoch 6"):
            await pushing
        assert server.named == ("2", 6, Origin.REGISTRY)
        assert server.source.restore("cancer").loaded.epoch == 6

    asyncio.run(scene())


def test_of_two_pushes_the_later_move_stays_whichever_is_ready_first(slow, tmp_path):
    async def scene():
        server = Server(slow, tmp_path / "cache")
        gate = slow.gates["1"] = Gate()
        earlier = asyncio.create_task(server.push(cancer(slow, "1", 5)))
        await asyncio.to_thread(gate.reached.wait, 20)
        await server.push(cancer(slow, "3", 6))
        gate.opened.set()
        with pytest.raises(StaleMove):
            await earlier
        assert server.named == ("3", 6, Origin.PUSH)

    asyncio.run(scene())


def test_a_note_of_an_earlier_move_that_is_late_does_not_replace_that_of_a_later_one(server, registry):
    def ready(push):
        proof = Proof(signature=push.signature, certificate=push.certificate)
        manifest = Manifest.from_json(json.loads(push.manifest))
        certificate = server.source.authorise(proof, manifest, "cancer")
        return server.source.prepare(certificate, proof, manifest, None, Origin.PUSH)

    earlier, later = ready(cancer(registry, "2", 4)), ready(cancer(registry, "1", 5))
    server.source.confirm(later)
    server.source.confirm(earlier)
    assert server.source.restore("cancer").loaded.epoch == 5


def test_the_alias_that_is_behind_takes_nothing_back_and_confirms_when_it_follows(server, registry):
    async def scene():
        registry.set_alias("cancer", "production", "1")
        registry.set_alias("cancer", "production", "2")
        await server.watcher.refresh()
        await server.push(cancer(registry, "1", 3))
        for _ in range(3):
            await server.watcher.refresh()
            assert server.named == ("1", 3, Origin.PUSH)
        table = server.live.table
        assert (table.refusals["cancer"].kind, table.refusals["cancer"].version) == (BEHIND, "2")
        assert table.troubled == frozenset()
        registry.set_alias("cancer", "production", "1")  # certified for epoch 3
        await server.watcher.refresh()
        assert server.named == ("1", 3, Origin.REGISTRY)
        assert "cancer" not in server.live.table.refusals

    asyncio.run(scene())


def test_a_model_whose_first_alias_is_about_to_come_is_no_trouble(server, registry):
    async def scene():
        await server.push(cancer(registry, "1", 2))
        await server.watcher.refresh()
        assert server.live.table.refusals.get("cancer") is None

    asyncio.run(scene())


def test_an_alias_moved_by_hand_is_still_trouble_once_the_registry_confirmed(server, registry):
    async def scene():
        registry.set_alias("cancer", "production", "1")
        registry.set_alias("cancer", "production", "2")
        await server.watcher.refresh()
        registry.move_behind_the_back("cancer", "production", "1")
        await server.watcher.refresh()
        assert server.live.table.troubled == {"cancer"}

    asyncio.run(scene())


def test_pushes_that_hang_do_not_pile_up(slow, tmp_path):
    async def scene():
        server = Server(slow, tmp_path / "cache")
        gate = slow.gates["1"] = Gate()
        pushing = [asyncio.create_task(server.push(cancer(slow, "1", 5 + n))) for n in range(MAX_UNDER_WAY)]
        await asyncio.to_thread(gate.reached.wait, 20)
        with pytest.raises(Overloaded):
            await server.push(cancer(slow, "1", 20))
        gate.opened.set()
        await asyncio.gather(*pushing, return_exceptions=True)
        assert (await server.push(cancer(slow, "1", 20))).epoch == 20

    asyncio.run(scene())


# Copies


def test_spare_copies_are_kept_of_each_model_those_that_were_live_last(built, tmp_path):
    others = {("other", n): build_linear_classifier(tmp_path / n, model="other", n_rows=350 + int(n)) for n in "12"}
    registry = FakeRegistry(built | others)
    server = Server(registry, tmp_path / "cache", cache_keep=1)
    moves = [("other", "1"), ("other", "2"), ("cancer", "1"), ("cancer", "2"), ("cancer", "1"), ("cancer", "3")]

    async def scene():
        for epoch, move in enumerate(moves, start=1):
            await server.push(push_of(registry.get_version(*move), epoch=epoch))

    asyncio.run(scene())
    kept = {path.name for path in (tmp_path / "cache" / "packages").iterdir()}
    wanted = (("other", "2"), ("other", "1"), ("cancer", "3"), ("cancer", "1"))
    assert kept == {registry.get_version(*key).digest.removeprefix("sha256:") for key in wanted}


# A version beside Production


@pytest.fixture
def standing(built, tmp_path):
    """A server that has version 1 in Production since epoch 1, and its registry."""
    registry = FakeRegistry(built, aliases={("cancer", "production"): "1"})
    server = Server(registry, tmp_path / "cache")
    asyncio.run(server.watcher.refresh())
    return server


def share(server, version, epoch, weight, route="canary"):
    return share_of(server.source.reach(), version, epoch, weight, route)


def share_of(registry, version, epoch, weight, route="canary"):
    return push_of(registry.get_version("cancer", version), epoch=epoch, alias=route, weight=weight)


def on(server, route=Route.CANARY):
    beside = server.live.table.beside(route).get("cancer")
    return None if beside is None else (beside.loaded.version, beside.weight, beside.loaded.epoch)


@pytest.mark.parametrize("route", ["canary", "shadow"])
def test_a_pushed_share_holds_at_once_and_another_weight_loads_nothing_again(standing, route):
    accepted = asyncio.run(standing.push(share(standing, "2", 5, 0.25, route)))
    assert (accepted.version, accepted.epoch, accepted.weight) == ("2", 5, 0.25)
    assert on(standing, Route(route)) == ("2", 0.25, 5)
    fetched = standing.source.reach().n_fetches
    asyncio.run(standing.push(share(standing, "2", 6, 0.5, route)))
    asyncio.run(standing.push(share(standing, "2", 6, 0.5, route)))
    assert on(standing, Route(route)) == ("2", 0.5, 6)
    assert standing.source.reach().n_fetches == fetched
    assert standing.named == ("1", 1, Origin.REGISTRY)


def test_a_share_that_is_pushed_away_stays_away_while_the_registry_still_shows_it(standing):
    registry = standing.source.reach()
    registry.put_beside("cancer", "canary", "2", 0.25)
    asyncio.run(standing.watcher.refresh())
    assert on(standing) == ("2", 0.25, 2)
    asyncio.run(standing.push(share(standing, "2", 3, 0.0)))
    assert on(standing) is None
    asyncio.run(standing.watcher.refresh())
    assert on(standing) is None
    assert standing.live.table.refusals_beside == {}
    registry.set_alias("cancer", "canary", None)
    asyncio.run(standing.watcher.refresh())
    assert on(standing) is None


def test_a_pushed_share_ends_with_the_next_move_of_production(standing):
    asyncio.run(standing.push(share(standing, "2", 5, 0.25)))
    asyncio.run(standing.push(push_of(standing.source.reach().get_version("cancer", "3"), epoch=6)))
    assert on(standing) is None


@pytest.mark.parametrize(("version", "epoch"), [("2", 4), ("3", 4), ("2", 1), ("1", 9)])
def test_a_share_of_an_earlier_move_or_of_the_live_version_comes_too_late(standing, version, epoch):
    asyncio.run(standing.push(share(standing, "2", 5, 0.25)))
    with pytest.raises(StaleMove, match="comes too late"):
        asyncio.run(standing.push(share(standing, version, epoch, 1.0)))
    assert on(standing) == ("2", 0.25, 5)


def test_a_look_that_began_before_a_pushed_share_changes_nothing_of_it(standing):
    began = standing.live.table
    asyncio.run(standing.push(share(standing, "2", 5, 0.25)))
    none = StoodBeside(model="cancer", route=Route.CANARY)
    assert standing.watcher.beside.is_overtaken(none, began, standing.live.table)
    assert not standing.watcher.beside.is_overtaken(none, standing.live.table, standing.live.table)
    old = standing.live.table.canary["cancer"]
    asyncio.run(standing.push(share(standing, "2", 6, 0.0)))
    again = StoodBeside(model="cancer", route=Route.CANARY, beside=old)
    assert standing.watcher.beside.is_overtaken(again, began, standing.live.table)


def test_a_share_that_is_sent_to_a_server_is_told_and_shown(built, tmp_path):
    registry = FakeRegistry(built, aliases={("cancer", "production"): "1"})
    client = Client(create_app(settings_for(tmp_path / "cache"), registry))
    push = share_of(registry, "2", 5, 0.25)
    said(send(client, push), 409, "stale-move")  # it has no version to stand beside
    send(client, cancer(registry, "1", 4)).raise_for_status()
    assert send(client, push).json()["epoch"] == 5
    routes = client.get("/status").json()["models"]["cancer"]["routes"]
    assert (routes["canary"]["version"], routes["canary"]["weight"]) == ("2", 0.25)
    send(client, share_of(registry, "2", 6, 0.0)).raise_for_status()
    assert "2" not in str(client.get("/status").json()["models"]["cancer"].get("routes", {}).get("canary"))


def test_an_old_share_is_of_no_use_to_who_kept_it_after_a_restart(standing, built, tmp_path):
    registry = standing.source.reach()
    old = share(standing, "2", 2, 0.25)
    registry.put_beside("cancer", "canary", "2", 0.25)
    registry.put_beside("cancer", "canary", "2", 0.0)  # its certificate stays, and the alias goes
    registry.set_alias("cancer", "canary", None)
    restarted = Server(registry, tmp_path / "other")
    asyncio.run(restarted.watcher.refresh())
    with pytest.raises(StaleMove):
        asyncio.run(restarted.push(old))
    assert on(restarted) is None


def test_a_share_that_the_registry_cannot_confirm_is_not_given(standing):
    push = share(standing, "2", 5, 0.25)
    standing.source.reach().down = True
    with pytest.raises(NoCopy):
        asyncio.run(standing.push(push))
    assert on(standing) is None
