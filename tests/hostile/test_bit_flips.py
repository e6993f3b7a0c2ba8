"""A single bit that is flipped anywhere, in a file or in a tag, is found or changes nothing that is verified."""

import json
import random
from collections.abc import Callable

import pytest

from release_platform.adapters.model_package import load_package
from release_platform.adapters.trust import CERTIFICATE_TAG, SIGNATURE_TAG, Proof
from release_platform.adapters.version_tags import DIGEST_TAG, MANIFEST_TAG, find_manifest
from release_platform.domain.errors import IntegrityError
from tests.fakes.packages import build_linear_classifier, manifest_of
from tests.fakes.registry import TRUST, FakeRegistry

N_FLIPS = 1_000


def flipped(data: bytes, place: int) -> bytes:
    return data[: place // 8] + bytes([data[place // 8] ^ (1 << place % 8)]) + data[place // 8 + 1 :]


def places(n_bits: int, n: int) -> list[int]:
    return random.Random(20260131).sample(range(n_bits), min(n, n_bits))


def test_a_thousand_flips_over_the_files_of_a_package_are_all_found(tmp_path) -> None:
    folder = build_linear_classifier(tmp_path / "package")
    (folder / "MLmodel").write_text("flavors: {}\n")
    manifest = manifest_of(folder)
    load_package(folder, manifest)
    share = N_FLIPS // len(manifest.files)
    n_flips, unnoticed = 0, []
    for entry in manifest.files:
        honest = (folder / entry.path).read_bytes()
        for place in (places(len(honest) * 8, share) * share)[:share]:
            (folder / entry.path).write_bytes(flipped(honest, place))
            n_flips += 1
            if outcome(lambda: load_package(folder, manifest)) is not None:
                unnoticed.append((entry.path, place))
        (folder / entry.path).write_bytes(honest)
    load_package(folder, manifest)
    print(f"{len(unnoticed)} of {n_flips} passed unnoticed (95 % bound {3 / n_flips:.1%})")
    assert (n_flips, unnoticed) == (N_FLIPS, [])


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory):
    folder = build_linear_classifier(tmp_path_factory.mktemp("flips") / "package")
    registry = FakeRegistry({("cancer", "1"): folder}, aliases={("cancer", "production"): "1"})
    return registry.get_version("cancer", "1")


def outcome(verify: Callable[[], object]) -> object:
    try:
        return verify()
    except IntegrityError:
        return None


@pytest.mark.parametrize("tag", ["manifest", "signature", "certificate"])
def test_a_flip_in_a_tag_is_found_or_leaves_what_is_verified_as_it_was(record, tag: str) -> None:
    proof = Proof(signature=record.tags[SIGNATURE_TAG], certificate=record.tags[CERTIFICATE_TAG + "production"])
    texts = {
        "manifest": json.dumps(record.manifest.to_json()),
        "signature": proof.signature,
        "certificate": proof.certificate,
    }

    def verify(text: str) -> object:
        manifest = record.manifest
        if tag == "manifest":
            manifest = find_manifest({MANIFEST_TAG: text, DIGEST_TAG: record.digest})
        if manifest is None:
            return None
        shown = {"signature": proof.signature, "certificate": proof.certificate} | {tag: text}
        now = Proof(signature=shown["signature"], certificate=shown["certificate"])
        return manifest, TRUST.authorise(now, manifest, model="cancer", version="1", alias="production")

    honest = verify(texts[tag])
    assert honest is not None
    data = texts[tag].encode()
    found = [
        outcome(lambda p=place: verify(flipped(data, p).decode("latin-1"))) for place in places(len(data) * 8, N_FLIPS)
    ]
    n_refused = sum(verdict is None for verdict in found)
    harmless = [verdict for verdict in found if verdict is not None]
    print(f"{tag}: {n_refused} of {len(found)} flips refused, {len(harmless)} without effect")
    assert all(verdict == honest for verdict in harmless)
    assert n_refused > 0.8 * len(found)
