"""The release store, in SQLite and in PostgreSQL: what a test asks of it is asked of both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from release_platform.adapters.release_store import ReleaseStore


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'release.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def store(url: str) -> Iterator[ReleaseStore]:
    opened = ReleaseStore(url)
    yield opened
    opened.close()
