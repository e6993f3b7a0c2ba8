"""Ends connections to PostgreSQL that do not answer in time.

The client library waits for an answer for ever, and keep-alive probes do not help where somebody between still
acknowledges them. So a timer shuts the socket of a connection that is in use for too long; who waits for it gets an
error. Each connection also asks the server not to wait for a client that is gone while it holds locks.
"""

import os
import socket
from contextlib import suppress
from threading import Timer
from typing import Any

import sqlalchemy as sa

CONNECT = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""What the client library is told: seconds, and milliseconds in the last one."""
PATIENCE_S = 45.0
"""Seconds that a connection may be in use: one transaction."""
ANSWER_S = 5.0
"""Seconds that an idle connection may take to show that it is alive, and a new one to be ready."""
_SESSION = "SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '60s'"
_TIMER = "deadline"


def bound_connections(engine: sa.Engine, *, patience_s: float = PATIENCE_S) -> None:
    """Ends every connection of an engine for PostgreSQL that is in use for longer; an idle one is tried before use."""
    errors = engine.dialect.loaded_dbapi.Error

    @sa.event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, record: Any, arguments: Any, settings: Any) -> Any:
        connection = dialect.connect(*arguments, **settings)
        _begin(record, connection, min(ANSWER_S, patience_s))
        with connection.cursor() as cursor:
            cursor.execute(_SESSION)
        connection.commit()
        return connection

    @sa.event.listens_for(engine, "checkout")
    def _checkout(connection: Any, record: Any, _: Any) -> None:
        _begin(record, connection, min(ANSWER_S, patience_s))
        try:
            engine.dialect.do_ping(connection)
        except errors as error:
            _end(record)
            raise sa.exc.DisconnectionError from error  # the pool connects anew
        _begin(record, connection, patience_s)

    @sa.event.listens_for(engine, "checkin")
    def _checkin(_: Any, record: Any) -> None:
        _end(record)


def _begin(record: Any, connection: Any, seconds: float) -> None:
    _end(record)
    timer = Timer(seconds, _shut, [connection])
    timer.daemon = True
    record.info[_TIMER] = timer
    timer.start()


def _end(record: Any) -> None:
    timer = record.info.pop(_TIMER, None)
    if timer is not None:
        timer.cancel()


def _shut(connection: Any) -> None:
    """Shuts a connection's socket under whoever waits for it; one that is closed already has none."""
    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as used:
        used.shutdown(socket.SHUT_RDWR)
