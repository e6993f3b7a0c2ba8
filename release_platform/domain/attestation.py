"""What is signed: the statement of a version at its registration, and the certificate of each move.

Both are in-toto statements (v1) inside a DSSE envelope. The statement of a version follows the OpenSSF model signing
specification (predicate `https://model_signing/signature/v1.0`: every file with its digest, the subject's digest over
all of them), so its tools verify it; our own facts stand beside in `predicate.release`, which they ignore.

The certificate binds what that format does not: which version stands behind which alias since which epoch, by which row
of the ledger. A server needs the registry and a public key to check both, and nothing else.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from release_platform.domain.errors import IntegrityError
from release_platform.domain.identity import Manifest
from release_platform.domain.lifecycle import Alias

STATEMENT = "https://in-toto.io/Statement/v1"
MODEL_SIGNATURE = "https://model_signing/signature/v1.0"
CERTIFICATE = "https://model-release-platform/certificate/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SIGNATURE_TAG = "release.signature"
"""The tag of a version that holds its signed statement."""
CERTIFICATE_TAG = "release.certificate."
"""Begins the name of the tag that holds the certificate of a version's move to an alias."""
WEIGHTED: frozenset[str] = frozenset({Alias.CANARY, Alias.SHADOW})
"""The aliases whose certificates say which share of the traffic the version gets."""


def pae(payload: bytes) -> bytes:
    """Returns the bytes that a DSSE signature of an in-toto payload is over (DSSE's pre-authentication encoding)."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Says that a version stands behind an alias.

    Attributes:
        model: The model's name.
        version: The version's number.
        digest: `D(v)`.
        alias: The alias.
        epoch: The epoch of the move that put it there.
        ledger_hash: Hash of that move's row.
        weight: Of the aliases `canary` and `shadow`, the share of the traffic that the version is asked, 0 to 1, both
            included; None for every other alias, and then no part of what is signed.

    Raises:
        ValueError: The weight is no such share, or does not go with the alias.
    """

    model: str
    version: str
    digest: str
    alias: str
    epoch: int
    ledger_hash: str
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.alias not in WEIGHTED:
            if self.weight is not None:
                raise ValueError(f"the alias {self.alias} has no weight")
        elif type(self.weight) not in (int, float) or not 0 <= self.weight <= 1:  # type: ignore[operator]
            raise ValueError(f"the weight of {self.alias} is a share from 0 to 1, not {self.weight!r:.40}")

    def to_statement(self) -> dict[str, Any]:
        """Returns the in-toto statement to be signed."""
        predicate = {name: value for name, value in asdict(self).items() if name != "weight" or value is not None}
        return {
            "_type": STATEMENT,
            "subject": [
                {"name": f"{self.model}/{self.version}", "digest": {"sha256": self.digest.removeprefix("sha256:")}}
            ],
            "predicateType": CERTIFICATE,
            "predicate": predicate,
        }

    @staticmethod
    def from_statement(statement: Mapping[str, Any]) -> "Certificate":
        """Returns the certificate in a statement whose signature was verified.

        Raises:
            IntegrityError: It is no certificate.
        """
        if statement.get("_type") != STATEMENT or statement.get("predicateType") != CERTIFICATE:
            raise _refused("the certificate is a statement of another kind")
        try:
            found = Certificate(**statement["predicate"])
        except (KeyError, TypeError):
            raise _refused("the certificate lacks a field") from None
        except ValueError as error:
            raise _refused(f"the certificate is not good: {error}") from None
        if statement != found.to_statement() or not isinstance(found.epoch, int):
            raise _refused("the certificate contradicts itself")
        return found


def version_statement(manifest: Manifest, *, model: str, version: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the statement that is signed when a version is registered.

    Args:
        manifest: The version's files.
        model: The model's name.
        version: The version's number.
        facts: What else is vouched for: fingerprint, commit, lock, gate results.
    """
    digests = [bytes.fromhex(entry.sha256) for entry in manifest.files]
    return {
        "_type": STATEMENT,
        "subject": [{"name": model, "digest": {"sha256": hashlib.sha256(b"".join(digests)).hexdigest()}}],
        "predicateType": MODEL_SIGNATURE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": e.path, "algorithm": "sha256", "digest": e.sha256} for e in manifest.files],
            "release": {"model": model, "version": version, "digest": manifest.digest, **facts},
        },
    }


def check_version_statement(statement: Mapping[str, Any], manifest: Manifest, *, model: str, version: str) -> None:
    """Checks that a statement, whose signature was verified, is of exactly this version and these files.

    Raises:
        IntegrityError: It is of something else.
    """
    release = statement.get("predicate", {}).get("release", {})
    facts = {name: value for name, value in release.items() if name not in {"model", "version", "digest"}}
    if statement != version_statement(manifest, model=model, version=version, facts=facts):
        raise _refused(f"the signature is not of {model} version {version} with these files")


def check_certificate(certificate: Certificate, *, model: str, version: str, digest: str, alias: str) -> None:
    """Checks that a certificate, whose signature was verified, puts exactly this version behind exactly this alias.

    Raises:
        IntegrityError: It is of something else.
    """
    wanted = {"model": model, "version": version, "digest": digest, "alias": alias}
    wrong = [name for name, value in wanted.items() if getattr(certificate, name) != value]
    if wrong:
        raise _refused(f"the certificate of {model} version {version} is of another {', '.join(wrong)}")


def _refused(problem: str) -> IntegrityError:
    return IntegrityError(problem, remedy="promote the version through the platform, which signs what it moves")
