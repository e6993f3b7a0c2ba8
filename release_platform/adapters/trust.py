"""Decides, by signatures alone, whether a version may stand behind an alias; the one rule of serving and of verify."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from release_platform.adapters.signing import KeyFolder, TrustedKeys
from release_platform.domain.attestation import (
    CERTIFICATE_TAG,
    SIGNATURE_TAG,
    Certificate,
    check_certificate,
    check_version_statement,
)
from release_platform.domain.errors import IntegrityError
from release_platform.domain.identity import Manifest
from release_platform.domain.ports import VersionRecord
from release_platform.domain.projection import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a version shows: the signed statement of its registration, and the certificate of its move to an alias."""

    signature: str
    certificate: str


def proof_of(record: VersionRecord, alias: str) -> Proof:
    """Returns what a version in the registry shows for an alias.

    Raises:
        IntegrityError: It was not signed, or never moved to that alias by the platform.
    """
    missing = [tag for tag in (SIGNATURE_TAG, CERTIFICATE_TAG + alias) if tag not in record.tags]
    if missing:
        raise IntegrityError(
            f"{record.model} version {record.version} has no {' and no '.join(missing)}: "
            f"the platform did not put it behind the alias {alias}",
            remedy=f"move aliases by promoting and rolling back only; see `release history {record.model}`",
        )
    return Proof(signature=record.tags[SIGNATURE_TAG], certificate=record.tags[CERTIFICATE_TAG + alias])


def bundles_in(shown: Shown) -> tuple[str, ...]:
    """Returns all that stands as a certificate among the tags of a model, unchecked."""
    return tuple(
        bundle for tags in shown.tags.values() for name, bundle in tags.items() if name.startswith(CERTIFICATE_TAG)
    )


def certified(model: str, bundles: Iterable[str], keys: TrustedKeys) -> tuple[Certificate, ...]:
    """Returns, of these bundles, the certificates of a model that a trusted key signed; the others prove nothing."""
    found = []
    for bundle in bundles:
        with suppress(IntegrityError):
            found.append(Certificate.from_statement(keys.verify(bundle)))
    return tuple(certificate for certificate in found if certificate.model == model)


class Trust:
    """Checks proofs.

    Args:
        keys: Returns the keys that are trusted now.
    """

    def __init__(self, keys: Callable[[], TrustedKeys]) -> None:
        self._keys = keys

    @staticmethod
    def in_folder(folder: Path) -> "Trust":
        """Returns the trust in the keys of a `KeyFolder`, read anew each time, so that keys rotate without restart."""
        return Trust(KeyFolder(folder).trusted)

    def authorise(
        self, proof: Proof, manifest: Manifest, *, model: str, version: str | None, alias: str | None
    ) -> Certificate:
        """Returns the certificate by which exactly these files, as this version, stand behind an alias.

        Args:
            proof: The two signed statements.
            manifest: The files.
            model: The model's name.
            version: The version's number; None for the one that the certificate names.
            alias: The alias; None for the one that the certificate names.

        Raises:
            IntegrityError: A key is not trusted, a signature is wrong, or it is of something else.
        """
        keys = self._keys()
        certificate = Certificate.from_statement(keys.verify(proof.certificate))
        version = certificate.version if version is None else version
        alias = certificate.alias if alias is None else alias
        check_version_statement(keys.verify(proof.signature), manifest, model=model, version=version)
        check_certificate(certificate, model=model, version=version, digest=manifest.digest, alias=alias)
        return certificate

    def newest_epoch(self, shown: Shown, *, model: str, alias: str) -> int:
        """Returns the newest epoch in which a registry shows that something came behind an alias; 0 for none."""
        certificates = certified(model, bundles_in(shown), self._keys())
        return max((certificate.epoch for certificate in certificates if certificate.alias == alias), default=0)
