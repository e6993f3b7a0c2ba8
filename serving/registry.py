"""The only way to a model: resolve the alias, fetch, verify, load, compare golden answers, or refuse with a reason."""

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from release_platform.adapters.model_package import ModelPackage, load_package
from release_platform.adapters.trust import Proof, Trust, proof_of
from release_platform.domain.attestation import CERTIFICATE_TAG, Certificate
from release_platform.domain.errors import IntegrityError, ReleaseError, Unavailable
from release_platform.domain.identity import Manifest
from release_platform.domain.ports import Clock, RegistryReader, VersionRecord
from serving.cache import Note, PackageCache
from serving.forms import form_of
from serving.golden import check_golden
from serving.models import (
    BEHIND,
    UNASSIGNED,
    Confirmed,
    Event,
    LoadedModel,
    Lost,
    Origin,
    Refusal,
    Refused,
    StoodBy,
    Went,
)
from serving.warmup import INLINE_S, is_same_in_company, rows_within

ALIAS = "production"
PREVIOUS = "previous"
WARM = 5
"""How many versions of each model stay in memory: the live one, the one before it, canary, shadow, and one to go back
and forth."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_LOG = logging.getLogger(__name__)


class ModelSource:
    """Brings verified versions from the registry, or from the copies on disk. All of it blocks: call it on a thread.

    Args:
        connect: Returns the registry; called when it is first needed, and again until it succeeds.
        cache: Where verified copies are kept.
        trust: Decides by signatures whether a version may answer.
        only: The models to serve; empty for all that have a version in Production.
        retry_s: Seconds before a refused version is tried again; they double with each attempt.
        retry_max_s: Where the doubling ends.
        cache_keep: How many copies of each model that are no longer served are kept.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], RegistryReader],
        cache: PackageCache,
        trust: Trust,
        clock: Clock,
        only: tuple[str, ...] = (),
        retry_s: float = 2.0,
        retry_max_s: float = 60.0,
        cache_keep: int = 4,
    ) -> None:
        self._connect = connect
        self._registry: RegistryReader | None = None
        self._cache = cache
        self._trust = trust
        self._clock = clock
        self._only = only
        self._retry_s = retry_s
        self._retry_max_s = retry_max_s
        self._cache_keep = cache_keep
        self._warm: dict[str, tuple[LoadedModel, ...]] = {}
        self._no_way_back: dict[str, datetime] = {}
        self._unnoted: set[str] = set()  # models whose live version is not noted on disk

    def now(self) -> datetime:
        """Returns the present moment, in UTC."""
        return self._clock.now()

    def models(self) -> tuple[str, ...]:
        """Returns the names of the models to serve.

        Raises:
            Unavailable: The registry does not answer.
        """
        listed = tuple(self.reach().models())
        return self._only or listed

    def is_served(self, model: str) -> bool:
        """Returns whether this server may serve a model of that name."""
        return not self._only or model in self._only

    def look(
        self, model: str, live: LoadedModel | None, refusal: Refusal | None, *, at_once: bool = False
    ) -> Event | None:
        """Returns what the registry says of a model now; None while a refused version waits to be tried again.

        Whatever goes wrong with a version is a refusal, never an exception: a live one goes on answering.

        Args:
            model: Its name.
            live: The version that answers, if one does.
            refusal: Why the version that was named last does not, if it does not.
            at_once: Whether a refused version need not wait.
        """
        version: str | None = None
        record: VersionRecord | None = None
        try:
            version = self.reach().find_alias(model, ALIAS)
            if version is None:
                return self._unassigned(model, live, refusal)
            record = self.reach().get_version(model, version)
            proof = record.tags.get(CERTIFICATE_TAG + ALIAS)
            if live is not None and (live.version, live.proof.certificate) == (version, proof):
                if model in self._unnoted:
                    self.confirm(live)
                return Confirmed(model=model, epoch=live.epoch)
            waits = refusal is not None and refusal.version == version and self._clock.now() < refusal.retry_at
            if waits and not at_once:
                return None
            return Went(loaded=self._take(record, live))
        except _Behind as error:
            return self.refused(model, version, BEHIND, error.problem, refusal)
        except Exception as error:  # noqa: BLE001 - no version, however broken, may take a good one down
            if record is None and isinstance(error, Unavailable):
                return Lost(problem=error.problem)
            _LOG.warning("%s version %s is refused: %s", model, version, error)
            return self.refused(model, version, type(error).__name__, reason_of(error), refusal)

    def look_behind(self, model: str, live: LoadedModel | None, standby: LoadedModel | None) -> StoodBy | None:
        """Returns the version that was in Production before the live one, loaded; None when nothing changed.

        A way back is a convenience here: whatever goes wrong is logged, and no refusal.
        """
        try:
            version = self.reach().find_alias(model, PREVIOUS)
            if version == (None if standby is None else standby.version):
                return None
            if version is None or live is None:
                return StoodBy(model=model, loaded=None)
            if model in self._no_way_back and self._clock.now() < self._no_way_back[model]:
                return None
            record = self.reach().get_version(model, version)
            proof = proof_of(record, ALIAS)
            certificate = self.authorise(proof, record.manifest, model, version)
            loaded = self.prepare(certificate, proof, record.manifest, live, Origin.REGISTRY)
            return StoodBy(model=model, loaded=loaded)
        except Exception as error:  # noqa: BLE001 - as above
            _LOG.warning("the previous version of %s is not kept warm: %s", model, error)
            self._no_way_back[model] = self._clock.now() + timedelta(seconds=self._retry_max_s)
            return None

    def remembered(self) -> tuple[str, ...]:
        """Returns the models, of those to serve, that a verified copy may be on disk of."""
        return tuple(model for model in self._cache.remembered() if self.is_served(model))

    def restore(self, model: str) -> Went | None:
        """Returns the version that was served last, from its copy on disk; None when there is no good one."""
        try:
            note = self._cache.recall(model)
            folder = None if note is None else self._cache.find(note.manifest.digest)
            if note is None or folder is None:
                return None
            certificate = self.authorise(note.proof, note.manifest, model, note.version)
            package = _load(model, folder, note.manifest)
        except Exception as error:  # noqa: BLE001 - as above
            _LOG.warning("the copy of %s on disk is refused: %s", model, error)
            return None
        return Went(loaded=self._loaded(package, certificate, note.proof, Origin.DISK))

    def noted_at(self) -> dict[str, int]:
        """Returns when the note of each model was written that this server, or one beside it, keeps."""
        return {model: self._cache.noted_at(model) for model in self.remembered()}

    def follow(self, model: str, live: LoadedModel | None) -> Went | None:
        """Returns the version that a server beside this one took, if it took it later than the live one here."""
        try:
            note = self._cache.recall(model)
            if note is None:
                return None
            certificate = self.authorise(note.proof, note.manifest, model, note.version)
            if live is not None and certificate.epoch <= live.epoch:
                return None
            return Went(loaded=self.prepare(certificate, note.proof, note.manifest, live, Origin.PUSH))
        except Exception as error:  # noqa: BLE001 - as above
            _LOG.warning("what a server beside this one took of %s is refused: %s", model, error)
            return None

    def confirm(self, loaded: LoadedModel) -> None:
        """Notes on disk that a version went live, unless a later move is noted already.

        A full disk is logged; it does not stop serving, and it is tried again whenever the registry is looked at.
        """
        self._unnoted.add(loaded.model)
        try:
            note = Note(version=loaded.version, manifest=loaded.package.manifest, proof=loaded.proof)
            with self._cache.sole_writer():
                if self.accepted_epoch(loaded.model, None) <= loaded.epoch:
                    self._cache.remember(loaded.model, note)
                self._unnoted.discard(loaded.model)
                self._cache.prune(keep=self._cache_keep, now_s=self._clock.now().timestamp())
        except (OSError, ValueError) as error:
            _LOG.warning("%s version %s is live, but not noted for a restart: %s", loaded.model, loaded.version, error)

    def reach(self) -> RegistryReader:
        """Returns the registry, connected to when it is first needed."""
        if self._registry is None:
            self._registry = self._connect()
        return self._registry

    def _take(self, record: VersionRecord, live: LoadedModel | None) -> LoadedModel:
        proof = proof_of(record, ALIAS)
        certificate = self.authorise(proof, record.manifest, record.model, record.version)
        self._check_fence(certificate, live)
        self.check_newest(certificate)
        return self.prepare(certificate, proof, record.manifest, live, Origin.REGISTRY)

    def _check_fence(self, certificate: Certificate, live: LoadedModel | None) -> None:
        accepted = self.accepted_epoch(certificate.model, live)
        if certificate.epoch >= accepted:
            return
        # What a push or the disk named is not in the registry yet; what the registry named cannot be taken back.
        behind = live is not None and live.origin is not Origin.REGISTRY
        raise (_Behind if behind else IntegrityError)(
            f"{certificate.model} version {certificate.version} stood in Production in epoch {certificate.epoch}, "
            f"but epoch {accepted} was served already" + ("; the registry does not show that yet" if behind else ""),
            remedy=f"the alias was moved behind the platform's back; see `release history {certificate.model}`",
        )

    def check_newest(self, certificate: Certificate) -> None:
        """Refuses an alias that was moved back: also a server that never served anything sees that it was.

        Raises:
            IntegrityError: The registry shows a later certificate of the alias.
        """
        alias, model = certificate.alias, certificate.model
        newest = self._trust.newest_epoch(self.reach().shown(model), model=model, alias=alias)
        if certificate.epoch < newest:
            raise IntegrityError(
                f"{model} version {certificate.version} stood behind {alias} in epoch {certificate.epoch}, but the "
                f"registry shows a certificate of epoch {newest}: its alias was moved back, or soon moves",
                remedy=f"wait for the promotion sensor; see `release history {certificate.model}`",
            )

    def prepare(
        self, certificate: Certificate, proof: Proof, manifest: Manifest, live: LoadedModel | None, origin: Origin
    ) -> LoadedModel:
        """Returns an authorised version, ready to go live: from its copy on disk, else from the registry.

        Raises:
            Unavailable: There is no good copy, and the registry does not answer.
            IntegrityError: Its files or its golden answers are not the registered ones.
            NotFound: There is no good copy, and the registry does not have the version.
        """
        if live is not None and (live.digest, live.version) == (manifest.digest, certificate.version):
            return replace(live, epoch=certificate.epoch, proof=proof, origin=origin)
        warm = self._from_memory(certificate, manifest)
        if warm is not None:
            warm = replace(warm, version=certificate.version, epoch=certificate.epoch, since=self._clock.now())
            return self._keep_warm(replace(warm, proof=proof, origin=origin))
        package = self._from_cache(certificate, manifest) or self._from_registry(certificate, manifest)
        return self._loaded(package, certificate, proof, origin)

    def authorise(
        self, proof: Proof, manifest: Manifest, model: str, version: str | None = None, *, alias: str | None = ALIAS
    ) -> Certificate:
        """Returns the certificate by which these files stand behind an alias; None: whichever version or alias it is.

        Raises:
            IntegrityError: A key is not trusted, a signature is wrong, or it is of something else.
        """
        return self._trust.authorise(proof, manifest, model=model, version=version, alias=alias)

    def accepted_epoch(self, model: str, live: LoadedModel | None) -> int:
        """Returns the newest epoch that this server accepted, also before a restart; it never decreases."""
        if live is not None:
            return live.epoch
        try:
            note = self._cache.recall(model)
            return 0 if note is None else self.authorise(note.proof, note.manifest, model, note.version).epoch
        except (ValueError, IntegrityError) as error:
            _LOG.warning("the note of what was served of %s is of no use: %s", model, error)
            return 0

    def _from_memory(self, named: Certificate, manifest: Manifest) -> LoadedModel | None:
        warm = self._warm.get(named.model, ())
        return next((loaded for loaded in warm if loaded.digest == manifest.digest), None)

    def _from_cache(self, named: Certificate, manifest: Manifest) -> ModelPackage | None:
        folder = self._cache.find(manifest.digest)
        if folder is None:
            return None
        try:
            return _load(named.model, folder, manifest)
        except IntegrityError as error:
            _LOG.warning("the copy of %s version %s on disk is fetched again: %s", named.model, named.version, error)
            return None

    def _from_registry(self, named: Certificate, manifest: Manifest) -> ModelPackage:
        of_no_use = self._cache.find(manifest.digest) is not None
        with self._cache.incoming() as folder:
            self.reach().fetch(named.model, named.version, folder)
            package = _load(named.model, folder, manifest)
            if of_no_use:  # and not before: the reason may pass, and the registry may not answer
                self._cache.discard(manifest.digest)
            self._cache.keep(folder, manifest.digest)
        return package

    def _keep_warm(self, loaded: LoadedModel) -> LoadedModel:
        others = (other for other in self._warm.get(loaded.model, ()) if other.package is not loaded.package)
        self._warm[loaded.model] = (loaded, *others)[:WARM]
        return loaded

    def _loaded(self, package: ModelPackage, certificate: Certificate, proof: Proof, origin: Origin) -> LoadedModel:
        form_of(package.plan)  # made here, not while the first client waits
        loaded = LoadedModel(
            model=package.model,
            version=certificate.version,
            digest=package.digest,
            epoch=certificate.epoch,
            proof=proof,
            package=package,
            since=self._clock.now(),
            origin=origin,
            inline_rows=rows_within(package, INLINE_S),
            same_in_company=is_same_in_company(package),
        )
        return self._keep_warm(loaded)

    def _unassigned(self, model: str, live: LoadedModel | None, refusal: Refusal | None) -> Refused | None:
        if refusal is not None and refusal.version is None and refusal.kind == UNASSIGNED:
            return None
        if live is not None and live.origin is Origin.PUSH:  # its alias is about to follow
            return None
        reason = f"no version of '{model}' is in Production; promote one with `release promote {model}`"
        if live is not None:
            reason = f"no version of '{model}' is in Production any more; version {live.version} goes on"
        return self.refused(model, None, UNASSIGNED, reason, refusal)

    def refused(self, model: str, version: str | None, kind: str, reason: str, before: Refusal | None) -> Refused:
        """Returns a refusal that follows another, if there was one, and waits twice as long to try again."""
        again = before is not None and before.version == version
        n_attempts = before.n_attempts + 1 if before is not None and again else 1
        wait_s = min(self._retry_s * 2.0 ** min(n_attempts - 1, 30), self._retry_max_s)
        now = self._clock.now()
        since: datetime = before.at if before is not None and again else now
        return Refused(
            refusal=Refusal(
                model=model,
                version=version,
                kind=kind,
                reason=reason,
                at=since,
                n_attempts=n_attempts,
                retry_at=now + timedelta(seconds=wait_s),
            )
        )


class _Behind(IntegrityError):
    """The registry names what was in Production before the move that is served."""


def _load(model: str, folder: Path, manifest: Manifest) -> ModelPackage:
    package = load_package(folder, manifest)
    if package.model != model:
        raise IntegrityError(
            f"the files registered as '{model}' are a version of '{package.model}'",
            remedy="find out who registered them under that name, then promote a version that belongs to it",
        )
    check_golden(package)
    return package


def reason_of(error: Exception) -> str:
    """Returns what went wrong, in a sentence."""
    if isinstance(error, ReleaseError):
        return error.problem
    if isinstance(error, OSError) and error.errno in _FULL:
        return "there is no room left in SERVING_CACHE_DIR; it is tried again when there is"
    return f"{type(error).__name__}: {error}"
