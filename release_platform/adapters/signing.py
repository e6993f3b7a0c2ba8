"""Signs and verifies statements with Ed25519 (or ECDSA) keys, in DSSE envelopes inside Sigstore bundles.

The bundle is the one that OpenSSF model signing writes with a key. A key is known by its id: the SHA-256 of its public
half in PEM, which the bundle carries as a hint; only keys that are trusted are ever tried.
"""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from release_platform.adapters.strict_json import read_json
from release_platform.domain.attestation import PAYLOAD_TYPE, pae
from release_platform.domain.errors import IntegrityError, Refused
from release_platform.domain.identity import canonical_json

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_HASHES: dict[int, type[hashes.HashAlgorithm]] = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | EllipticCurvePublicKey


def new_key() -> bytes:
    """Returns a new Ed25519 private key in PEM, not encrypted."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: PublicKey) -> bytes:
    """Returns a public key in PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(key: PublicKey) -> str:
    """Returns the id of a key: 64 hex digits."""
    return hashlib.sha256(public_pem(key)).hexdigest()


class Signer:
    """Signs with one private key.

    Args:
        pem: The private key in PEM: Ed25519, or a NIST curve for tools that know nothing else.

    Raises:
        IntegrityError: It is no such key.
    """

    def __init__(self, pem: bytes) -> None:
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise _bad_key(str(error)) from error
        if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey):
            raise _bad_key("it is neither Ed25519 nor on an elliptic curve")
        self._key: PrivateKey = key

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return self._key.public_key()

    def sign(self, statement: Mapping[str, Any]) -> str:
        """Returns the bundle of a signed statement, as JSON text."""
        payload = canonical_json(statement)
        if isinstance(self._key, Ed25519PrivateKey):
            signature = self._key.sign(pae(payload))
        else:
            signature = self._key.sign(pae(payload), ECDSA(_HASHES[self._key.curve.key_size]()))
        return json.dumps(
            {
                "mediaType": MEDIA_TYPE,
                "verificationMaterial": {"publicKey": {"hint": key_id(self.public_key)}, "tlogEntries": []},
                "dsseEnvelope": {
                    "payload": base64.b64encode(payload).decode(),
                    "payloadType": PAYLOAD_TYPE,
                    "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
                },
            }
        )


class TrustedKeys:
    """Verifies against several trusted public keys, so that keys can be rotated.

    Args:
        keys: The public keys.
    """

    def __init__(self, *keys: PublicKey) -> None:
        self._keys = {key_id(key): key for key in keys}

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, in order."""
        return tuple(sorted(self._keys))

    def verify(self, bundle: str) -> dict[str, Any]:
        """Returns the statement of a bundle that a trusted key signed.

        Raises:
            IntegrityError: It is no bundle, its key is not trusted, or its signature is wrong.
        """
        try:
            value = read_json(bundle)
            hint = value["verificationMaterial"]["publicKey"]["hint"]
            envelope = value["dsseEnvelope"]
            payload = base64.b64decode(envelope["payload"], validate=True)
            (only,) = envelope["signatures"]
            signature = base64.b64decode(only["sig"], validate=True)
            kind = envelope["payloadType"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _refused(f"the signature cannot be read ({type(error).__name__})") from error
        key = self._keys.get(str(hint))
        if key is None:
            raise _refused(f"it was signed by the key {str(hint)[:12]}, which is not trusted here")
        if kind != PAYLOAD_TYPE or not _is_valid(key, signature, pae(payload)):
            raise _refused("the signature is wrong")
        statement = read_json(payload)
        if not isinstance(statement, dict):
            raise _refused("what was signed is no statement")
        return statement


def _is_valid(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ECDSA(_HASHES[key.curve.key_size]()))
    except InvalidSignature:
        return False
    return True


def load_public_key(pem: bytes) -> PublicKey:
    """Returns a public key from PEM.

    Raises:
        IntegrityError: It is no Ed25519 or elliptic-curve key.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise _bad_key(str(error)) from error
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey):
        raise _bad_key("it is neither Ed25519 nor on an elliptic curve")
    return key


class KeyFolder:
    """Keys in a folder: `signing.pem`, and every public key that is trusted in `trusted/<id>.pem`.

    Args:
        folder: The folder, made when a first key is written.
        secret: The private key in PEM, or the path of a file with it; empty: `signing.pem` signs.
    """

    def __init__(self, folder: Path, secret: str = "") -> None:
        self._signing = folder / "signing.pem"
        self._trusted = folder / "trusted"
        self._secret = secret

    def signer(self) -> Signer:
        """Returns the signer of the secret, else of the folder's own key, which is made on first use.

        The public half of it is trusted from then on.

        Raises:
            IntegrityError: It is no usable key.
        """
        signer = Signer(_read_secret(self._secret) if self._secret else self._own())
        self.trust(signer.public_key)
        return signer

    @property
    def folder(self) -> Path:
        """Where the keys are."""
        return self._signing.parent

    def trusted(self) -> TrustedKeys:
        """Returns the keys that are trusted.

        Raises:
            IntegrityError: One of the files is no key.
        """
        return TrustedKeys(*(_trusted_key(path) for path in sorted(self._trusted.glob("*.pem"))))

    def trust(self, key: PublicKey) -> None:
        """Trusts a public key from now on."""
        path = self._trusted / f"{key_id(key)}.pem"
        if not path.exists():
            self._trusted.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            fresh.write_bytes(public_pem(key))
            fresh.replace(path)  # whole or not at all: half a key would be trusted by nobody, and never mended

    def distrust(self, identity: str) -> None:
        """Stops trusting the key of an id; what it signed is refused from then on."""
        (self._trusted / f"{identity}.pem").unlink(missing_ok=True)

    def rotate(self) -> Signer:
        """Makes a new signing key; the one before stays trusted until it is distrusted. Returns the new signer.

        Raises:
            Refused: The key is a secret from outside, which is rotated where it comes from.
        """
        if self._secret:
            raise Refused(
                "the signing key comes from RELEASE_SIGNING_KEY",
                remedy="give that another private key; the one before stays trusted until `release keys distrust`",
            )
        self._write(new_key(), replace=True)
        return self.signer()

    def _own(self) -> bytes:
        if not self._signing.exists():
            self._write(new_key(), replace=False)
        return self._signing.read_bytes()

    def _write(self, pem: bytes, *, replace: bool) -> None:
        self._signing.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._signing.with_name(f".signing-{os.getpid()}.pem")
        fresh.touch(mode=0o600)
        fresh.write_bytes(pem)
        if replace:
            fresh.replace(self._signing)
            return
        try:
            os.link(fresh, self._signing)  # of several processes at first use, one wins
        except FileExistsError:
            pass
        finally:
            fresh.unlink()


def _read_secret(secret: str) -> bytes:
    if secret.lstrip().startswith("-----BEGIN"):
        return secret.encode()
    try:
        return Path(secret).read_bytes()
    except OSError as error:
        raise _bad_key(f"RELEASE_SIGNING_KEY is no PEM text, and no file that can be read ({error})") from error


def _trusted_key(path: Path) -> PublicKey:
    try:
        return load_public_key(path.read_bytes())
    except IntegrityError as error:
        raise IntegrityError(f"the trusted key {path.name} is not a usable key", remedy=error.remedy) from error


def _bad_key(problem: str) -> IntegrityError:
    return IntegrityError(f"not a usable key: {problem}", remedy="`release keys` shows the keys and makes new ones")


def _refused(problem: str) -> IntegrityError:
    return IntegrityError(problem, remedy="find out who signed it; `release keys` shows which keys are trusted")
