"""Signatures: what was signed is what is verified, by trusted keys only, in a format that OpenSSF's tool verifies."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from release_platform.adapters.signing import KeyFolder, Signer, TrustedKeys, key_id, new_key, public_pem
from release_platform.domain.attestation import (
    Certificate,
    check_certificate,
    check_version_statement,
    version_statement,
)
from release_platform.domain.errors import IntegrityError, Refused
from release_platform.domain.identity import FileEntry, Manifest
from release_platform.pipeline.packaging import manifest_of

MANIFEST = Manifest(files=(FileEntry(path="a", size_bytes=1, sha256="00" * 32),))
CERTIFICATE = Certificate(
    model="m", version="1", digest="sha256:d", alias="production", epoch=2, ledger_hash="sha256:h"
)


def nist_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(params=[new_key, nist_key], ids=["ed25519", "p256"])
def signer(request: pytest.FixtureRequest) -> Signer:
    return Signer(request.param())


def test_what_was_signed_is_what_is_verified(signer: Signer) -> None:
    statement = CERTIFICATE.to_statement()
    assert TrustedKeys(signer.public_key).verify(signer.sign(statement)) == statement
    assert Certificate.from_statement(statement) == CERTIFICATE


def test_every_flipped_bit_of_a_payload_or_signature_is_found(signer: Signer) -> None:
    bundle = json.loads(signer.sign(CERTIFICATE.to_statement()))
    trusted = TrustedKeys(signer.public_key)
    envelope = bundle["dsseEnvelope"]
    for place, key in ((envelope, "payload"), (envelope["signatures"][0], "sig")):
        honest = place[key]
        raw = bytearray(base64.b64decode(honest))
        for bit in range(len(raw) * 8):
            raw[bit // 8] ^= 1 << bit % 8
            place[key] = base64.b64encode(bytes(raw)).decode()
            with pytest.raises(IntegrityError):
                trusted.verify(json.dumps(bundle))
            raw[bit // 8] ^= 1 << bit % 8
        place[key] = honest
    trusted.verify(json.dumps(bundle))


def test_a_key_that_is_not_trusted_is_refused(signer: Signer) -> None:
    bundle = signer.sign(CERTIFICATE.to_statement())
    with pytest.raises(IntegrityError, match="not trusted here"):
        TrustedKeys(Signer(new_key()).public_key).verify(bundle)


def test_a_trusted_hint_over_another_keys_signature_is_refused(signer: Signer) -> None:
    trusted = Signer(new_key())
    bundle = json.loads(signer.sign(CERTIFICATE.to_statement()))
    bundle["verificationMaterial"]["publicKey"]["hint"] = key_id(trusted.public_key)
    with pytest.raises(IntegrityError, match="the signature is wrong"):
        TrustedKeys(trusted.public_key).verify(json.dumps(bundle))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"dsseEnvelope": {}}', "\x00"])
def test_what_is_no_bundle_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        TrustedKeys().verify(text)


def test_a_certificate_is_of_one_version_behind_one_alias() -> None:
    check_certificate(CERTIFICATE, model="m", version="1", digest="sha256:d", alias="production")
    for wrong in ({"model": "n"}, {"version": "2"}, {"digest": "sha256:e"}, {"alias": "canary"}):
        wanted = {"model": "m", "version": "1", "digest": "sha256:d", "alias": "production", **wrong}
        with pytest.raises(IntegrityError, match=next(iter(wrong))):
            check_certificate(CERTIFICATE, **wanted)


CANARY = replace(CERTIFICATE, alias="canary", weight=0.25)


@pytest.mark.parametrize("weight", [0, 0.0, 0.05, 1.0, 1])
@pytest.mark.parametrize("alias", ["canary", "shadow"])
def test_a_canary_and_a_shadow_say_which_share_they_get(alias: str, weight: float) -> None:
    certificate = replace(CANARY, alias=alias, weight=weight)
    statement = json.loads(json.dumps(certificate.to_statement()))
    assert statement["predicate"]["weight"] == weight
    assert Certificate.from_statement(statement) == certificate


def test_what_was_signed_before_there_were_weights_is_what_is_signed_now() -> None:
    assert set(CERTIFICATE.to_statement()["predicate"]) == {
        "model",
        "version",
        "digest",
        "alias",
        "epoch",
        "ledger_hash",
    }


@pytest.mark.parametrize("weight", [-0.01, 1.01, float("nan"), float("inf"), True, False, "0.5", None, [0.5], {}])
def test_a_share_that_is_none_is_refused(weight: object) -> None:
    statement = CANARY.to_statement()
    statement["predicate"]["weight"] = weight
    with pytest.raises(IntegrityError, match=r"share from 0 to 1|contradicts"):
        Certificate.from_statement(statement)


@pytest.mark.parametrize("alias", ["production", "staging", "previous"])
def test_other_aliases_have_no_share(alias: str) -> None:
    statement = CERTIFICATE.to_statement()
    statement["predicate"] |= {"alias": alias, "weight": 0.5}
    with pytest.raises(IntegrityError, match="has no weight"):
        Certificate.from_statement(statement)
    statement["predicate"]["weight"] = None
    with pytest.raises(IntegrityError, match="contradicts itself"):
        Certificate.from_statement(statement)


def test_a_canary_without_a_share_is_refused() -> None:
    statement = CANARY.to_statement()
    del statement["predicate"]["weight"]
    with pytest.raises(IntegrityError, match="share from 0 to 1"):
        Certificate.from_statement(statement)


def test_a_version_statement_is_of_one_version_and_its_files() -> None:
    statement = version_statement(MANIFEST, model="m", version="1", facts={"commit": "c"})
    check_version_statement(statement, MANIFEST, model="m", version="1")
    other = Manifest(files=(FileEntry(path="a", size_bytes=1, sha256="11" * 32),))
    with pytest.raises(IntegrityError):
        check_version_statement(statement, other, model="m", version="1")
    with pytest.raises(IntegrityError):
        check_version_statement(statement, MANIFEST, model="m", version="2")
    with pytest.raises(IntegrityError):
        check_version_statement(CERTIFICATE.to_statement(), MANIFEST, model="m", version="1")


def test_openssf_model_signing_verifies_our_signature(tmp_path: Path) -> None:
    verifying = pytest.importorskip("model_signing.verifying")
    folder = tmp_path / "package"
    (folder / "data").mkdir(parents=True)
    (folder / "model.skops").write_bytes(b"model")
    (folder / "data" / "golden.json").write_bytes(b"{}")
    signer = Signer(nist_key())
    statement = version_statement(manifest_of(folder), model="package", version="1", facts={"commit": "c"})
    (tmp_path / "model.sig").write_text(signer.sign(statement))
    (tmp_path / "key.pub").write_bytes(public_pem(signer.public_key))
    config = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "key.pub")
    config.verify(folder, tmp_path / "model.sig")
    (folder / "model.skops").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"model\.skops"):
        config.verify(folder, tmp_path / "model.sig")


def test_a_folder_makes_its_key_once_and_keeps_it_private(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    first = keys.signer()
    assert key_id(keys.signer().public_key) == key_id(first.public_key)
    assert (tmp_path / "keys" / "signing.pem").stat().st_mode & 0o777 == 0o600
    keys.trusted().verify(first.sign(CERTIFICATE.to_statement()))


def test_after_a_rotation_both_keys_are_trusted_until_the_old_one_is_not(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path)
    old = keys.signer()
    bundle = old.sign(CERTIFICATE.to_statement())
    new = keys.rotate()
    assert len(keys.trusted().ids) == 2
    keys.trusted().verify(bundle)
    keys.distrust(key_id(old.public_key))
    with pytest.raises(IntegrityError, match="not trusted"):
        keys.trusted().verify(bundle)
    keys.trusted().verify(new.sign(CERTIFICATE.to_statement()))


def test_a_text_that_is_no_key_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not a usable key"):
        Signer(b"hello")


@pytest.mark.parametrize("as_file", [True, False])
def test_a_secret_from_outside_signs_and_is_trusted_but_never_written(tmp_path: Path, as_file: bool) -> None:
    pem = new_key()
    (tmp_path / "secret.pem").write_bytes(pem)
    keys = KeyFolder(tmp_path / "keys", str(tmp_path / "secret.pem") if as_file else pem.decode())
    bundle = keys.signer().sign(CERTIFICATE.to_statement())
    assert keys.trusted().verify(bundle) == CERTIFICATE.to_statement()
    assert keys.signer().public_key == Signer(pem).public_key
    assert not (tmp_path / "keys" / "signing.pem").exists()
    with pytest.raises(Refused, match="RELEASE_SIGNING_KEY"):
        keys.rotate()


@pytest.mark.parametrize("secret", ["nowhere.pem", "-----BEGIN PRIVATE KEY-----"])
def test_a_secret_that_is_no_key_is_refused_and_not_shown(tmp_path: Path, secret: str) -> None:
    with pytest.raises(IntegrityError, match="not a usable key"):
        KeyFolder(tmp_path, secret).signer()
