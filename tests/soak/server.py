"""The server of a soak: a process of its own, with a registry in memory whose aliases the parent moves by a pipe."""

import gc
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from release_platform.domain.attestation import CERTIFICATE_TAG
from serving.server import Server, build_server
from tests.fakes.registry import FakeRegistry, push_of
from tests.fakes.server import address_of, settings_for, until
from tests.soak.versions import MODEL, VERSIONS


def serve(folders: Mapping[str, Path], cache: Path, pipe: Connection) -> None:
    """Serves the first version until the parent says None.

    Each pair `(version, pushed)` from the parent moves Production. The answer is the epoch of the move and, if it is to
    be pushed, the body of the push: then the registry follows only when the parent sends anything again.
    """
    registry = FakeRegistry(
        {(MODEL, version): folder for version, folder in folders.items()},
        aliases={(MODEL, "production"): VERSIONS[0]},
    )
    server = build_server(settings_for(cache, refresh_s=0.1), registry)
    Thread(target=_obey, args=(server, registry, pipe), daemon=True).start()
    gc.freeze()  # as `python -m serving` does
    server.run()


def _obey(server: Server, registry: FakeRegistry, pipe: Connection) -> None:
    until(lambda: server.started)
    pipe.send(address_of(server))
    while (order := pipe.recv()) is not None:
        version, pushed = order
        before = registry.find_alias(MODEL, "production")
        if pushed:
            _announce(registry, version, pipe)
        else:
            registry.set_alias(MODEL, "production", version)
            pipe.send((registry.epoch, None))
        assert before is not None
        registry.move_behind_the_back(MODEL, "previous", before)
    server.should_exit = True


def _announce(registry: FakeRegistry, version: str, pipe: Connection) -> None:
    """Gives the parent what it is to push; the alias follows when it has done so."""
    registry.epoch += 1
    push = push_of(registry.get_version(MODEL, version), epoch=registry.epoch)
    body: Mapping[str, Any] = push.to_json()
    pipe.send((registry.epoch, body))
    pipe.recv()
    registry.set_tag(MODEL, version, CERTIFICATE_TAG + "production", push.certificate)
    registry.move_behind_the_back(MODEL, "production", version)
