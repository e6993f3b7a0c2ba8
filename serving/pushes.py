"""Takes a pushed move of Production or beside it. Signatures prove it, so it needs neither a login nor the registry."""

from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from release_platform.adapters.trust import Proof
from release_platform.domain.attestation import Certificate
from release_platform.domain.errors import IntegrityError
from release_platform.domain.identity import FileEntry, Manifest
from release_platform.domain.lifecycle import Alias
from serving.background import call_in_daemon
from serving.errors import InvalidPush, NoCopy, Overloaded, StaleMove, UnknownModel, UnprovenMove
from serving.models import Live, LoadedModel, Origin, RouteTable, StoodBeside, Went
from serving.parsing import parse
from serving.registry import ModelSource, reason_of
from serving.schemas import PushBody
from serving.watch import Watcher

MAX_BODY_BYTES = 512 * 1024
"""Certificate, signature and manifest are tags in the registry, of at most 100,000 characters each. This holds the
largest three, with the escapes that JSON text inside JSON needs."""

MAX_UNDER_WAY = 8
_ALIASES = frozenset({Alias.PRODUCTION, Alias.CANARY, Alias.SHADOW})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """What a body holds; nothing of it is believed before it is authorised."""

    proof: Proof
    manifest: Manifest


class Pushes:
    """Makes what is pushed live, if it is authorised, newer than what is live, and a good copy is at hand.

    Args:
        watcher: Takes what is pushed into the route table, on the event loop.
    """

    def __init__(self, *, source: ModelSource, live: Live, watcher: Watcher) -> None:
        self._source = source
        self._live = live
        self._watcher = watcher
        self._n_under_way = 0

    async def accept(self, model: str, body: bytes) -> LoadedModel | Certificate:
        """Returns what is live by the pushed certificate, also when it was before.

        Of a version beside Production it returns the certificate that holds now.

        Raises:
            MalformedBody: It is no JSON.
            InvalidPush: It is not certificate, signature and manifest.
            UnknownModel: This server is not to serve the model.
            UnprovenMove: A signature is wrong or not trusted, or of something else.
            StaleMove: A move of this epoch or a later one was accepted already, or the registry shows a later one.
            NoCopy: Neither the disk nor the registry has the version's files as registered, or the registry does not
                answer a server that has accepted nothing yet.
            Overloaded: Too many pushes are under way.
        """
        if self._n_under_way >= MAX_UNDER_WAY:
            raise Overloaded(f"{MAX_UNDER_WAY} pushes are under way already; come again")
        self._n_under_way += 1
        try:
            return await self._accept(model, body)
        finally:
            self._n_under_way -= 1

    async def _accept(self, model: str, body: bytes) -> LoadedModel | Certificate:
        table = self._live.table
        live = table.loaded.get(model)
        pushed = await call_in_daemon(partial(self._prepare, model, body, table))
        if isinstance(pushed, _Share):
            return self._stand_beside(pushed)
        if pushed is not live:
            await self._watcher.settle(Went(loaded=pushed))
        now_live = self._live.table.get_model(model)
        if now_live.epoch != pushed.epoch:  # a later move was quicker
            raise _stale(model, pushed.epoch, now_live.epoch)
        return now_live

    def _prepare(self, model: str, body: bytes, table: RouteTable) -> "LoadedModel | _Share":
        """Returns the version ready to go live; the live one itself when that is what was pushed. Blocks."""
        live = table.loaded.get(model)
        if not self._source.is_served(model):
            raise UnknownModel(f"this server is not configured to serve '{model:.100}'")
        move = _read(body)
        certificate = self._authorise(model, move)
        if certificate.alias != Alias.PRODUCTION:
            return self._prepare_beside(certificate, move, table)
        accepted = self._source.accepted_epoch(model, live)
        if live is not None and (live.epoch, live.version) == (certificate.epoch, certificate.version):
            return live
        if certificate.epoch < accepted or (live is not None and certificate.epoch == accepted):
            raise _stale(model, certificate.epoch, accepted)
        if not accepted:
            self._check_newest(certificate)
        try:
            return self._source.prepare(certificate, move.proof, move.manifest, live, Origin.PUSH)
        except Exception as error:
            raise _no_copy(certificate, error) from error

    def _check_newest(self, certificate: Certificate) -> None:
        """Refuses a move that the registry shows a later one of: whoever has an old certificate may push it."""
        try:
            self._source.check_newest(certificate)
        except IntegrityError as error:
            raise StaleMove(error.problem) from error
        except Exception as error:
            raise NoCopy(
                f"this server has taken no move of {certificate.model} yet, and cannot ask the registry whether there "
                f"is a later one: {reason_of(error)}"
            ) from error

    def _stand_beside(self, share: "_Share") -> Certificate:
        event = share.event
        if self._watcher.beside.is_newest(share.certificate):
            self._watcher.stand_beside(event)
            if self._live.table.beside(event.route).get(event.model) is event.beside:
                return share.certificate
        raise _late(share.certificate)  # a later move was quicker

    def _prepare_beside(self, certificate: Certificate, move: _Move, table: RouteTable) -> "_Share":
        try:
            event = self._watcher.beside.take(certificate, move.proof, move.manifest, table)
        except Exception as error:
            raise _no_copy(certificate, error) from error
        if event is None:
            raise _late(certificate)
        return _Share(certificate=certificate, event=event)

    def _authorise(self, model: str, move: _Move) -> Certificate:
        try:
            certificate = self._source.authorise(move.proof, move.manifest, model, alias=None)
            if certificate.alias in _ALIASES:
                return certificate
            return self._source.authorise(move.proof, move.manifest, model)  # says what is wrong with it
        except IntegrityError as error:
            raise UnprovenMove(error.problem) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """What a pushed share of the traffic comes to."""

    certificate: Certificate
    event: StoodBeside


def _late(certificate: Certificate) -> StaleMove:
    return StaleMove(f"{certificate.model}: the share of the traffic of epoch {certificate.epoch} comes too late")


def _no_copy(certificate: Certificate, error: Exception) -> NoCopy:
    return NoCopy(
        f"no good copy of {certificate.model} version {certificate.version} is on this server's disk, "
        f"nor could it be had from the registry: {reason_of(error)}"
    )


def _read(body: bytes) -> _Move:
    value = parse(body)
    try:
        read = PushBody.model_validate(value)
        files = tuple(FileEntry(path=f.path, size_bytes=f.size_bytes, sha256=f.sha256) for f in read.manifest)
        return _Move(
            proof=Proof(signature=read.signature, certificate=read.certificate), manifest=Manifest(files=files)
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidPush(f"{where or 'the body'}: {first['msg']}", field=where or None) from None
    except ValueError as error:
        raise InvalidPush(f"manifest: {error}", field="manifest") from None


def _stale(model: str, epoch: int, accepted: int) -> StaleMove:
    return StaleMove(f"{model}: the move of epoch {epoch} comes too late, epoch {accepted} was accepted already")
