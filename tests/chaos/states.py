"""Prepared states of a platform, made once and copied for each crash: folders, and databases from templates."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from tests.chaos.driver import Driver, How
from tests.chaos.operations import Place, log_package, open_parts
from tests.chaos.repertoire import STATES
from tests.fakes.packages import build_linear_classifier, manifest_of
from tests.integration.homes import blank_home

PACKAGES = ("first", "second", "third", "fourth")


class States:
    """The states of a platform on one kind of database.

    Args:
        folder: Where they are kept.
        driver: Makes one out of another.
        server: URL of a PostgreSQL server; empty for SQLite.
    """

    def __init__(self, folder: Path, driver: Driver, server: str = "") -> None:
        self._folder = folder
        self._driver = driver
        self._server = server
        self._made = {"blank": self._blank()}

    def _blank(self) -> Place:
        place = self._place(self._folder / "blank")
        place.home.mkdir(parents=True)
        shutil.copyfile(blank_home() / "mlflow.db", place.home / "mlflow.db")
        parts = open_parts(place)
        for n, name in enumerate(PACKAGES):
            package = build_linear_classifier(self._folder / "packages" / name, n_rows=300 + n)
            log_package(place, parts.store, name, package, manifest_of(package), self._folder / "artifacts")
        parts.store.close()
        return place

    def made(self, name: str) -> Place:
        """Returns a state, made on first use; it must not be changed."""
        if name not in self._made:
            start, _ = STATES[name]
            place = self._copied(self.made(start), self._folder / name)
            assert self._driver.run(name, place, How.PREPARE).code == 0
            self._made[name] = place
        return self._made[name]

    @contextmanager
    def copy(self, name: str, number: int) -> Iterator[Place]:
        """Yields a copy of a state, which is removed at the end."""
        place = self._copied(self.made(name), self._folder / f"{name}-{number}")
        yield place
        shutil.rmtree(place.home)
        if self._server:
            self._execute(f"DROP DATABASE {sa.make_url(place.store_url).database} WITH (FORCE)")

    def _copied(self, place: Place, folder: Path) -> Place:
        shutil.copytree(place.home, folder)
        return self._place(folder, template=place.store_url)

    def _place(self, home: Path, template: str = "") -> Place:
        if not self._server:
            return Place(home=home, store_url=f"sqlite:///{home / 'release.db'}")
        name = f"chaos_{uuid.uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {sa.make_url(template).database}" if template else ""))
        url = sa.make_url(self._server).set(database=name)
        return Place(home=home, store_url=url.render_as_string(hide_password=False))

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self._server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(statement))
