"""A version goes live verified or not at all; each refusal has a reason."""

import errno
import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from release_platform.adapters.signing import Signer, TrustedKeys, new_key
from release_platform.adapters.trust import Trust
from serving.cache import PackageCache
from serving.models import UNASSIGNED, Confirmed, Lost, Origin, Refused, Went
from serving.registry import ModelSource
from tests.fakes.packages import build_linear_classifier, build_onnx_classifier, manifest_of
from tests.fakes.registry import SIGNER, TRUST, FakeRegistry


class SettableClock:
    """A `Clock` that stands still."""

    def __init__(self):
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self):
        return self.moment

    def pass_s(self, seconds):
        self.moment += timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return [build_linear_classifier(folder / "1"), build_linear_classifier(folder / "2", n_rows=300)]


@pytest.fixture
def folders(built, tmp_path):
    return [shutil.copytree(folder, tmp_path / "registry" / folder.name) for folder in built]


@pytest.fixture
def registry(folders):
    packages = {("cancer", "1"): folders[0], ("cancer", "2"): folders[1]}
    return FakeRegistry(packages, aliases={("cancer", "production"): "1"})


@pytest.fixture
def clock():
    return SettableClock()


@pytest.fixture
def cache(tmp_path):
    return PackageCache(tmp_path / "cache")


@pytest.fixture
def source(registry, cache, clock):
    return ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock, retry_s=2, retry_max_s=60)


def refusal_of(event):
    assert isinstance(event, Refused)
    return event.refusal


def test_a_version_in_production_is_loaded_and_confirmed_after(source):
    event = source.look("cancer", None, None)
    assert isinstance(event, Went)
    assert (event.loaded.version, event.loaded.origin) == ("1", Origin.REGISTRY)
    assert source.look("cancer", event.loaded, None) == Confirmed(model="cancer", epoch=1)


def test_a_version_that_was_fetched_once_is_not_fetched_again(source, registry):
    source.look("cancer", None, None)
    source.look("cancer", None, None)
    assert registry.n_fetches == 1


def test_a_version_that_is_warm_is_asked_nothing_again_on_the_way_back(cache, clock, tmp_path, monkeypatch):
    packages = {("cancer", version): tmp_path / version for version in ("1", "2")}
    for (_, version), folder in packages.items():
        build_onnx_classifier(folder, n_rows=300 * int(version) - 100)
    registry = FakeRegistry(packages, aliases={("cancer", "production"): "1"})
    source = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock)
    first = source.look("cancer", None, None).loaded
    registry.set_alias("cancer", "production", "2")
    second = source.look("cancer", first, None).loaded
    monkeypatch.setattr(first.package.engine, "predict_matrix", lambda _: pytest.fail("it is asked something"))
    registry.set_alias("cancer", "production", "1")
    clock.pass_s(60)
    back = source.look("cancer", second, None).loaded
    assert (back.package, back.form, back.inline_rows) == (first.package, first.form, first.inline_rows)
    assert (back.version, back.epoch, back.since) == ("1", 3, clock.now())
    assert back.inline_rows > 0


def test_a_copy_on_disk_that_was_changed_is_fetched_again(source, registry, cache, clock):
    digest = source.look("cancer", None, None).loaded.digest
    (cache.find(digest) / "golden.json").write_text("{}")
    restarted = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock)
    assert isinstance(restarted.look("cancer", None, None), Went)
    assert registry.n_fetches == 2
    assert manifest_of(cache.find(digest)).digest == digest


def test_a_copy_on_disk_that_cannot_be_loaded_now_is_there_when_it_can_be(source, registry, cache, clock, tmp_path):
    digest = source.look("cancer", None, None).loaded.digest
    restarted = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock)
    registry.without_files.add(("cancer", "1"))
    away = (cache.find(digest) / "model.skops").rename(tmp_path / "away")
    refusal_of(restarted.look("cancer", None, None))
    away.rename(cache.find(digest) / "model.skops")
    assert isinstance(restarted.look("cancer", None, None), Went)


@pytest.mark.parametrize("name", ["model.skops", "release.json", "golden.json"])
def test_a_changed_or_missing_file_is_refused_and_leaves_nothing_behind(source, folders, cache, tmp_path, name):
    content = (folders[0] / name).read_bytes()
    (folders[0] / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert name in refusal_of(source.look("cancer", None, None)).reason
    (folders[0] / name).unlink()
    assert name in refusal_of(source.look("cancer", None, None)).reason
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_a_version_of_another_model_is_refused(folders, cache, clock):
    registry = FakeRegistry({("other", "1"): folders[0]}, aliases={("other", "production"): "1"})
    source = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock)
    assert "'cancer'" in refusal_of(source.look("other", None, None)).reason


def golden_with(folder, change):
    golden = json.loads((folder / "golden.json").read_text())
    change(golden["answers"])
    (folder / "golden.json").write_text(json.dumps(golden))


def add_to_first(answers, amount):
    answers["probabilities"][0][0] += amount


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda answers: add_to_first(answers, 0.9e-9), True),
        (lambda answers: add_to_first(answers, 3e-9), False),
        (lambda answers: answers["predictions"].__setitem__(0, "benign"), False),
        (lambda answers: answers["probabilities"].pop(), False),
        (lambda answers: answers.clear(), False),
    ],
    ids=["within", "beyond", "label", "shape", "empty"],
)
def test_golden_answers_decide_whether_a_version_goes_live(folders, cache, clock, change, taken):
    golden_with(folders[0], change)
    registry = FakeRegistry({("cancer", "1"): folders[0]}, aliases={("cancer", "production"): "1"})
    source = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock)
    assert isinstance(source.look("cancer", None, None), Went if taken else Refused)


def test_bytes_that_are_no_archive_are_refused(folders, cache, clock):
    (folders[0] / "model.skops").write_bytes(b"not a zip")
    registry = FakeRegistry({("cancer", "1"): folders[0]}, aliases={("cancer", "production"): "1"})
    source = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock)
    assert refusal_of(source.look("cancer", None, None)).version == "1"


def test_a_refused_version_is_tried_again_ever_more_rarely(source, folders, clock):
    (folders[0] / "golden.json").write_text("{}")
    refusal = None
    waits = []
    for _ in range(7):
        refusal = refusal_of(source.look("cancer", None, refusal))
        assert source.look("cancer", None, refusal) is None
        waits.append((refusal.retry_at - clock.now()).total_seconds())
        clock.pass_s(waits[-1])
    assert waits == [2, 4, 8, 16, 32, 60, 60]
    assert refusal.n_attempts == 7


def test_a_refused_version_is_tried_at_once_when_that_is_asked_for(source, folders):
    good = (folders[0] / "golden.json").read_bytes()
    (folders[0] / "golden.json").write_text("{}")
    refusal = refusal_of(source.look("cancer", None, None))
    (folders[0] / "golden.json").write_bytes(good)
    assert source.look("cancer", None, refusal) is None
    assert source.look("cancer", None, refusal, at_once=True).loaded.version == "1"


def test_what_could_not_be_noted_for_a_restart_is_noted_later(source, registry, cache, clock, monkeypatch):
    live = source.look("cancer", None, None).loaded
    with monkeypatch.context() as patch:
        patch.setattr(cache, "remember", refuse_to_write)
        source.confirm(live)
        assert isinstance(source.look("cancer", live, None), Confirmed)
    restarted = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock)
    assert restarted.restore("cancer") is None
    assert isinstance(source.look("cancer", live, None), Confirmed)
    assert restarted.restore("cancer").loaded.version == "1"


def refuse_to_write(model, note):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_another_version_is_tried_at_once_although_one_was_refused(source, registry, folders):
    (folders[0] / "golden.json").write_text("{}")
    refusal = refusal_of(source.look("cancer", None, None))
    registry.set_alias("cancer", "production", "2")
    assert source.look("cancer", None, refusal).loaded.version == "2"


def test_an_alias_to_a_version_that_is_gone_is_refused(source, registry):
    registry.set_alias("cancer", "production", "9")
    assert refusal_of(source.look("cancer", None, None)).kind == "NotFound"


def test_a_model_with_nothing_in_production_says_how_to_promote(source, registry):
    registry.set_alias("cancer", "production", None)
    refusal = refusal_of(source.look("cancer", None, None))
    assert refusal.kind == UNASSIGNED
    assert "release promote cancer" in refusal.reason
    assert source.look("cancer", None, refusal) is None


def test_a_registry_that_is_down_is_no_refusal(source, registry):
    registry.down = True
    assert isinstance(source.look("cancer", None, None), Lost)


@pytest.mark.parametrize("version", ["1", "2"])
def test_files_that_cannot_be_had_are_a_refusal_of_their_version_that_is_tried_again_ever_more_rarely(
    source, registry, clock, version
):
    live = source.look("cancer", None, None).loaded if version == "2" else None
    registry.set_alias("cancer", "production", version)
    registry.without_files.add(("cancer", version))
    first = refusal_of(source.look("cancer", live, None))
    assert (first.version, first.kind) == (version, "Unavailable")
    assert source.look("cancer", live, first) is None
    clock.pass_s(2)
    again = refusal_of(source.look("cancer", live, first))
    assert (again.retry_at - clock.now()).total_seconds() == 4
    registry.without_files.clear()
    clock.pass_s(4)
    assert source.look("cancer", live, again).loaded.version == version


def test_what_was_live_is_restored_from_disk_and_verified_again(source, registry, cache, folders):
    assert source.restore("cancer") is None
    source.confirm(source.look("cancer", None, None).loaded)
    registry.down = True
    assert source.remembered() == ("cancer",)
    restored = source.restore("cancer").loaded
    assert (restored.version, restored.origin) == ("1", Origin.DISK)
    (cache.find(restored.digest) / "model.skops").write_bytes(b"")
    assert source.restore("cancer") is None


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "model": "cancer"}', b"\xff"])
def test_a_note_that_cannot_be_read_restores_nothing(source, cache, tmp_path, note):
    source.confirm(source.look("cancer", None, None).loaded)
    (tmp_path / "cache" / "served" / "cancer.json").write_bytes(note)
    assert source.restore("cancer") is None


def test_copies_that_are_not_served_are_pruned_but_for_the_newest(source, registry, cache, tmp_path):
    source.confirm(source.look("cancer", None, None).loaded)
    first = set((tmp_path / "cache" / "packages").iterdir())
    registry.set_alias("cancer", "production", "2")
    source.look("cancer", None, None)
    cache.prune(keep=1, now_s=0)
    assert len(list((tmp_path / "cache" / "packages").iterdir())) == 2
    cache.prune(keep=0, now_s=0)
    assert set((tmp_path / "cache" / "packages").iterdir()) == first


def test_only_configured_models_are_served_and_restored(registry, cache, clock):
    source = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock, only=("cancer",))
    assert source.models() == ("cancer",)
    source.confirm(source.look("cancer", None, None).loaded)
    other = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock, only=("x",))
    assert other.remembered() == ()


@pytest.mark.parametrize(("age_s", "stays"), [(3599, True), (3601, False)])
def test_what_a_killed_server_left_half_fetched_is_removed_after_an_hour(cache, tmp_path, age_s, stays):
    left = tmp_path / "cache" / "incoming" / "left"
    left.mkdir(parents=True)
    cache.prune(keep=0, now_s=left.stat().st_mtime + age_s)
    assert left.exists() is stays


def test_an_alias_that_was_moved_behind_the_platforms_back_is_not_followed(source, registry):
    live = source.look("cancer", None, None).loaded
    registry.move_behind_the_back("cancer", "production", "2")
    refusal = refusal_of(source.look("cancer", live, None))
    assert "did not put it behind the alias production" in refusal.reason


def test_an_alias_that_was_moved_back_to_a_certified_version_is_not_followed(source, registry):
    registry.set_alias("cancer", "production", "2")
    live = source.look("cancer", None, None).loaded
    registry.move_behind_the_back("cancer", "production", "1")
    assert "epoch 2 was served already" in refusal_of(source.look("cancer", live, None)).reason


def test_the_epoch_does_not_decrease_over_a_restart_either(source, registry, cache, clock):
    registry.set_alias("cancer", "production", "2")
    source.confirm(source.look("cancer", None, None).loaded)
    registry.move_behind_the_back("cancer", "production", "1")
    restarted = ModelSource(connect=lambda: registry, cache=cache, trust=TRUST, clock=clock)
    assert "epoch 2 was served already" in refusal_of(restarted.look("cancer", None, None)).reason


def test_a_server_that_never_served_does_not_follow_an_alias_that_was_moved_back_either(source, registry):
    registry.set_alias("cancer", "production", "2")
    registry.move_behind_the_back("cancer", "production", "1")
    assert "epoch 2" in refusal_of(source.look("cancer", None, None)).reason


@pytest.mark.parametrize("alias", ["staging", "production"])
def test_only_a_trusted_certificate_of_production_says_that_another_move_is_newer(source, registry, alias):
    registry.certify("cancer", alias, "2", 9, signer=SIGNER if alias == "staging" else Signer(new_key()))
    assert source.look("cancer", None, None).loaded.version == "1"


def test_a_rollback_is_a_new_epoch_of_an_old_version(source, registry):
    registry.set_alias("cancer", "production", "2")
    live = source.look("cancer", None, None).loaded
    registry.set_alias("cancer", "production", "1")
    back = source.look("cancer", live, None).loaded
    assert (back.version, back.epoch) == ("1", 3)


def test_a_certificate_by_a_stranger_is_refused(source, registry):
    registry.certify("cancer", "production", "1", 9, signer=Signer(new_key()))
    assert "not trusted here" in refusal_of(source.look("cancer", None, None)).reason


def test_a_copy_on_disk_whose_key_is_trusted_no_more_is_not_served(source, registry, cache, clock):
    source.confirm(source.look("cancer", None, None).loaded)
    nobody = ModelSource(connect=lambda: registry, cache=cache, trust=Trust(lambda: TrustedKeys()), clock=clock)
    assert nobody.restore("cancer") is None
    assert source.restore("cancer") is not None
