"""Compares live servers with what is in Production: by the ledger, by the registry, and by a clean process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from release_platform.adapters.golden_answers import run_golden
from release_platform.adapters.live_verification import ServerReport, failure_of, verify_live
from release_platform.adapters.serving_client import ServingClient
from release_platform.adapters.trust import Trust, proof_of
from release_platform.domain.errors import IntegrityError, NotFound, ReleaseError, Unavailable, VerificationFailed
from release_platform.domain.ledger import LedgerRow, alias_of, standing
from release_platform.domain.lifecycle import Alias
from release_platform.domain.verification import Expected
from release_platform.domain.verified import Found, Verified
from release_platform.releases import Releases


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How all servers answered for one model.

    Attributes:
        expected: What they must answer.
        servers: How each one did, in the order of the addresses.
    """

    expected: Expected
    servers: tuple[ServerReport, ...]

    @property
    def failure(self) -> ReleaseError | None:
        """`VerificationFailed` when an answer is wrong, `Unavailable` when only some are missing, else None."""
        return failure_of(self.servers, self.expected.model)

    def verified(self, at: datetime) -> Verified:
        """Returns what is kept of it, when it ended at this moment."""
        failure, expected = self.failure, self.expected
        found = Found.UNANSWERED if failure is not None else Found.PASSED
        problems = [problem for report in self.servers for problem in report.problems]
        away = [report.unavailable.problem for report in self.servers if report.unavailable is not None]
        return Verified(
            model=expected.model,
            version=expected.version,
            digest=expected.digest,
            epoch=expected.epoch,
            at=at.isoformat(),
            found=Found.FAILED if isinstance(failure, VerificationFailed) else found,
            servers=tuple(report.url for report in self.servers),
            problems=(*problems, *away),
        )


def verify_production(
    releases: Releases, model: str, urls: Sequence[str], *, api_key: str = "", version: str | None = None
) -> Verification:
    """Returns how each server answers the golden rows of the version in Production; one that fails hides no other.

    Args:
        releases: Where the version is.
        model: The model's name.
        urls: The servers' addresses.
        api_key: What they ask for; empty for none.
        version: The version that must be in Production; None for any.

    Raises:
        NotFound: Nothing is in Production.
        VerificationFailed: Another version than the given one is.
        IntegrityError: The version in the registry is not the one that the ledger put there, or may not be loaded.
        Unavailable: The release store or the registry does not answer.
    """
    expected = get_expected(releases, model, version)
    return Verification(expected=expected, servers=tuple(_verify(url, expected, api_key) for url in urls))


def keep(releases: Releases, verification: Verification, at: datetime) -> str:
    """Keeps what the platform's own servers answered, for the rollback policy; returns what hindered it, or nothing.

    What other addresses answer is not kept: nothing that they say may move Production.
    """
    try:
        releases.store.verifications.record(verification.verified(at))
    except Unavailable as error:
        return f"the rollback policy does not see this verification: {error.problem}"
    return ""


def get_expected(releases: Releases, model: str, version: str | None = None) -> Expected:
    """Returns what a server must answer. Raises as `verify_production`."""
    return expected_of(releases, _production_row(releases, model, version))


def expected_of(releases: Releases, row: LedgerRow, columns: Mapping[str, Sequence[Any]] | None = None) -> Expected:
    """Returns what a server answers by a row of the ledger that put a version into Production.

    Args:
        releases: Where the version is.
        row: The row.
        columns: The golden rows of another version that takes the same columns; None for its own.

    Raises:
        IntegrityError: The version in the registry is not the one that the ledger put there, or may not be loaded.
        Unavailable: The registry does not answer.
    """
    model = row.model
    with TemporaryDirectory() as place:
        folder = Path(place) / f"{model} version {row.version}"
        folder.mkdir()
        record = releases.registry.fetch(model, row.version, folder)
        Trust(releases.keys.trusted).authorise(
            proof_of(record, Alias.PRODUCTION),
            record.manifest,
            model=model,
            version=row.version,
            alias=Alias.PRODUCTION,
        )
        if record.digest != row.digest:
            raise IntegrityError(
                f"{model} version {row.version}: its files in the registry are {record.digest}, but {row.digest} was "
                "put into Production",
                remedy=f"see `release audit {model}`",
            )
        golden = run_golden(folder, record.manifest, columns)
    return Expected(model=model, version=row.version, digest=row.digest, epoch=row.epoch, golden=golden)


def _production_row(releases: Releases, model: str, version: str | None) -> LedgerRow:
    rows = standing(releases.store.ledger(model))
    row = next((row for row in rows if alias_of(row.move) is Alias.PRODUCTION), None)
    if row is None:
        raise NotFound(f"{model}: nothing is in Production", remedy=f"`release promote {model} --reason ...` first")
    if version not in {None, row.version}:
        raise VerificationFailed(
            f"{model}: version {row.version} is in Production, not {version}", remedy=f"see `release status {model}`"
        )
    return row


def _verify(url: str, expected: Expected, api_key: str) -> ServerReport:
    try:
        with ServingClient(url, api_key=api_key) as client:
            return verify_live(client, expected)
    except Unavailable as error:
        return ServerReport(url=url, unavailable=error)
