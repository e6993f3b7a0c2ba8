"""A model registry in memory, with the versions' files on disk."""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from release_platform.adapters.signing import Signer, TrustedKeys, new_key, public_pem
from release_platform.adapters.trust import Trust
from release_platform.adapters.version_tags import DIGEST_TAG, MANIFEST_TAG
from release_platform.domain.attestation import (
    CERTIFICATE_TAG,
    SIGNATURE_TAG,
    WEIGHTED,
    Certificate,
    version_statement,
)
from release_platform.domain.errors import IntegrityError, NotFound, Unavailable
from release_platform.domain.ports import VersionRecord
from release_platform.domain.projection import Shown
from release_platform.domain.push import Push
from tests.fakes.packages import manifest_of

SIGNER = Signer(new_key())
TRUST = Trust(lambda: TrustedKeys(SIGNER.public_key))
REGISTERED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def trust_signer(key_folder: Path) -> Path:
    """Makes a folder trust what `SIGNER` signed, and returns it."""
    (key_folder / "trusted").mkdir(parents=True, exist_ok=True)
    (key_folder / "trusted" / "signer.pem").write_bytes(public_pem(SIGNER.public_key))
    return key_folder


class FakeRegistry:
    """The `Registry` over folders. Its versions are signed by `SIGNER`, and so is each move of an alias.

    Args:
        packages: The folder of each version, by model and number. Manifests are taken now: what is changed in a folder
            afterwards is tampering.
        aliases: The version of each alias, by model and alias.
        down: Whether it does not answer. It may be switched at any time.
        signs: Whether its versions and moves come signed, as the platform would; False for tests of the platform.
        without_files: The versions, by model and number, whose files cannot be had. It may be changed at any time.
    """

    def __init__(
        self,
        packages: Mapping[tuple[str, str], Path],
        *,
        aliases: Mapping[tuple[str, str], str] | None = None,
        down: bool = False,
        signs: bool = True,
        without_files: Collection[tuple[str, str]] = (),
    ) -> None:
        self._packages = dict(packages)
        self._records = {key: _record(key, folder, signs) for key, folder in packages.items()}
        self._signs = signs
        self._aliases: dict[tuple[str, str], str] = {}
        self.without_files = set(without_files)
        self.down = False
        self.n_fetches = 0
        self.epoch = 0
        for (model, alias), version in (aliases or {}).items():
            self.set_alias(model, alias, version)
        self.down = down

    def models(self) -> Sequence[str]:
        """See `Registry`."""
        self._answer()
        return sorted({model for model, _ in self._records})

    def versions(self, model: str) -> Sequence[VersionRecord]:
        """See `Registry`."""
        self._answer()
        return [self._records[key] for key in sorted(self._records, key=lambda k: int(k[1])) if key[0] == model]

    def get_version(self, model: str, version: str) -> VersionRecord:
        """See `Registry`."""
        self._answer()
        if (model, version) not in self._records:
            raise NotFound(f"{model}: there is no version {version}", remedy="take one that there is")
        return self._records[model, version]

    def shown(self, model: str) -> Shown:
        """See `Registry`."""
        self._answer()
        return Shown(
            aliases={alias: version for (name, alias), version in self._aliases.items() if name == model},
            tags={number: dict(record.tags) for (name, number), record in self._records.items() if name == model},
        )

    def find_alias(self, model: str, alias: str) -> str | None:
        """See `Registry`."""
        self._answer()
        return self._aliases.get((model, alias))

    def set_alias(self, model: str, alias: str, version: str | None) -> None:
        """See `Registry`; what moves is certified for the next epoch, as the platform does, but see `put_beside`."""
        self._answer()
        if self._aliases.get((model, alias)) == version:
            return
        if version is None:
            self._aliases.pop((model, alias), None)
            return
        self.epoch += 1
        if self._signs and alias not in WEIGHTED:
            self.certify(model, alias, version, self.epoch)
        self.move_behind_the_back(model, alias, version)

    def put_beside(self, model: str, alias: str, version: str, weight: float) -> None:
        """Puts a version on the route `canary` or `shadow` with a weight, or changes that, certified as by a move."""
        self._answer()
        self.epoch += 1
        self.certify(model, alias, version, self.epoch, weight=weight)
        self.move_behind_the_back(model, alias, version)

    def move_behind_the_back(self, model: str, alias: str, version: str) -> None:
        """Moves an alias as anyone could, without a certificate."""
        self._aliases[model, alias] = version

    def remove_tag_behind_the_back(self, model: str, version: str, name: str) -> None:
        """Removes a tag as anyone could."""
        record = self.get_version(model, version)
        kept = {tag: value for tag, value in record.tags.items() if tag != name}
        self._records[model, version] = replace(record, tags=kept)

    def certify(
        self,
        model: str,
        alias: str,
        version: str,
        epoch: int,
        signer: Signer = SIGNER,
        weight: float | None = None,
    ) -> None:
        """Certifies that a version stands behind an alias since an epoch."""
        record = self._records.get((model, version))
        if record is None:
            return
        certificate = Certificate(
            model=model,
            version=version,
            digest=record.digest,
            alias=alias,
            epoch=epoch,
            ledger_hash=f"sha256:{epoch}",
            weight=weight,
        )
        self.set_tag(model, version, CERTIFICATE_TAG + alias, signer.sign(certificate.to_statement()))

    def delete(self, model: str, version: str) -> None:
        """Deletes a version as anyone could; its aliases go with it."""
        del self._records[model, version]
        self._aliases = {key: named for key, named in self._aliases.items() if (key[0], named) != (model, version)}

    def remove(self, model: str, version: str) -> None:
        """See `Registry`."""
        self._answer()
        if (model, version) in self._records:
            self.delete(model, version)

    def set_tag(self, model: str, version: str, name: str, value: str) -> None:
        """See `Registry`."""
        record = self.get_version(model, version)
        self._records[model, version] = replace(record, tags={**record.tags, name: value})

    def fetch(self, model: str, version: str, folder: Path) -> VersionRecord:
        """See `Registry`."""
        record = self.get_version(model, version)
        if (model, version) in self.without_files:
            raise Unavailable("the artefact storage does not answer", remedy="start it")
        self.n_fetches += 1
        source = self._packages[model, version]
        for entry in record.manifest.files:
            target = folder / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source / entry.path, target)
            except FileNotFoundError:
                raise IntegrityError(f"{entry.path} is gone", remedy="restore it") from None
        return record

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the registry does not answer", remedy="start it")


def push_of(
    record: VersionRecord,
    *,
    epoch: int,
    alias: str = "production",
    weight: float | None = None,
    signer: Signer = SIGNER,
    **changed: str,
) -> Push:
    """Returns what the platform pushes when a version goes to Production in an epoch.

    Args:
        record: The version.
        epoch: The epoch of the move.
        alias: Where the certificate puts it.
        weight: Of the aliases beside Production, the share of the requests.
        signer: Who signs the certificate.
        changed: Fields of the certificate that are other than the version's.
    """
    named = {"model": record.model, "version": record.version, "digest": record.digest, **changed}
    certificate = Certificate(**named, alias=alias, epoch=epoch, ledger_hash=f"sha256:{epoch}", weight=weight)
    return Push(
        model=record.model,
        version=record.version,
        epoch=epoch,
        certificate=signer.sign(certificate.to_statement()),
        signature=record.tags[SIGNATURE_TAG],
        manifest=record.tags[MANIFEST_TAG],
    )


def _record(key: tuple[str, str], folder: Path, signed: bool) -> VersionRecord:
    manifest = manifest_of(folder)
    statement = version_statement(manifest, model=key[0], version=key[1], facts={})
    return VersionRecord(
        model=key[0],
        version=key[1],
        digest=manifest.digest,
        manifest=manifest,
        run_id="run",
        tags={
            DIGEST_TAG: manifest.digest,
            MANIFEST_TAG: json.dumps(manifest.to_json(), separators=(",", ":")),
            **({SIGNATURE_TAG: SIGNER.sign(statement)} if signed else {}),
        },
        created_at=REGISTERED_AT,
    )
