"""Asks one server the golden rows through every protocol, and says where it answers otherwise than it should."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

from release_platform.adapters.serving_client import ServingClient
from release_platform.adapters.serving_protocols import PROTOCOLS, CannotAsk, Protocol
from release_platform.domain.errors import ReleaseError, Unavailable, VerificationFailed
from release_platform.domain.verification import Expected, difference_of, problem_of

N_CONNECTIONS = 4
"""How often the first protocol is asked at the same time, so that no one worker takes them all."""

MOST_CONNECTIONS = 64
"""How often it is asked for each worker behind the port, until every one has answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How a server answered through one protocol.

    Attributes:
        protocol: Its name.
        latency_ms: From connecting to having the whole answer; of the slowest request.
        difference: The largest difference of a number: 0 when all is equal, infinite where it cannot be told.
        problem: What is wrong; empty when the answer is right to the last bit.
        worker: The process that gave the answer; empty where that is not told.
    """

    protocol: str
    latency_ms: float = 0.0
    difference: float = 0.0
    problem: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """How one server answered.

    Attributes:
        url: Its address.
        checked: A line for each protocol that was asked.
        left_out: Why others were not, by name.
        n_workers: How many processes behind the address answered; 0 where the server does not tell.
        unavailable: Why it does not answer any further; None when it answered everything.
    """

    url: str
    checked: tuple[Checked, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    n_workers: int = 0
    unavailable: Unavailable | None = None

    @property
    def passed(self) -> bool:
        """Whether every answer was right."""
        return self.unavailable is None and not any(one.problem for one in self.checked)

    @property
    def latency_ms(self) -> float:
        """Of the slowest answer."""
        return max((one.latency_ms for one in self.checked), default=0.0)

    @property
    def difference(self) -> float:
        """The largest one of any protocol."""
        return max((one.difference for one in self.checked), default=0.0)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with its answers: a sentence for each problem, which names the server and the protocols."""
        protocols: dict[str, list[str]] = {}
        for one in self.checked:
            if one.problem:
                protocols.setdefault(one.problem, []).append(one.protocol)
        whole = len(self.checked)
        return tuple(
            f"{self.url}, {'every protocol' if len(names) == whole > 1 else ', '.join(names)}: {problem}"
            for problem, names in protocols.items()
        )


def verify_live(client: ServingClient, expected: Expected) -> ServerReport:
    """Returns how a server answers; it stops at the first request to which it gives no answer.

    The first protocol is asked of every worker behind the port, the others of any. A `/status` that cannot be read is
    wrong like an answer: nobody could tell whether every worker was asked.
    """
    checked: list[Checked] = []
    left_out: dict[str, str] = {}
    workers: set[str] = set()
    named: frozenset[str] = frozenset()
    unavailable = None
    try:
        try:
            named = client.workers()
        except VerificationFailed as error:
            checked.append(_wrong(client, "status", error))
        for protocol in PROTOCOLS:
            try:
                found = (
                    [_check_once(client, protocol, expected)]
                    if checked
                    else _of_every_worker(client, protocol, expected, named)
                )
            except CannotAsk as reason:
                left_out[protocol.name] = str(reason)
            else:
                checked.append(_together(found))
                workers |= {one.worker for one in found if one.worker}
    except Unavailable as error:
        unavailable = error
    return ServerReport(
        url=client.base_url,
        checked=tuple(checked),
        left_out=left_out,
        n_workers=len(workers),
        unavailable=unavailable,
    )


def failure_of(reports: Sequence[ServerReport], model: str) -> ReleaseError | None:
    """Returns one error for all that is wrong, or None; a wrong answer weighs more than none."""
    problems = [problem for report in reports for problem in report.problems]
    away = [report.unavailable for report in reports if report.unavailable is not None]
    lines = "\n".join([*problems, *(error.problem for error in away)])
    if problems:
        return VerificationFailed(
            lines,
            remedy="wait until /status of that server shows the version in Production, or see there why it was "
            f"refused; if the version is right, restart it and compare its libraries with `release lineage {model}`",
        )
    return Unavailable(lines, remedy=away[0].remedy) if away else None


def _of_every_worker(
    client: ServingClient, protocol: Protocol, expected: Expected, named: frozenset[str]
) -> list[Checked]:
    """Returns how a server answers: over at least one connection to each worker that it names, if all are right."""
    unmet = named
    most = MOST_CONNECTIONS * max(1, len(unmet))
    found: list[Checked] = []
    with ThreadPoolExecutor(N_CONNECTIONS, thread_name_prefix="verify") as threads:
        while not found or (unmet and len(found) < most):
            outcomes = list(threads.map(lambda _: _attempt(client, protocol, expected), range(N_CONNECTIONS)))
            found += [one for one in outcomes if isinstance(one, Checked)]
            if any(one.problem for one in found):  # the rest would change nothing; a refusal names no worker
                return found
            for one in outcomes:
                if isinstance(one, Unavailable):
                    raise one
            unmet -= {one.worker for one in found}
    if unmet:
        with suppress(VerificationFailed):
            unmet &= client.workers()  # some may have ended meanwhile
    if unmet:
        raise Unavailable(
            f"{client.base_url}: {len(unmet)} of its workers answered none of {len(found)} requests: "
            f"{', '.join(sorted(unmet))}",
            remedy=f"look at {client.base_url}/status, which names them, and at the server's log; then try again",
        )
    return found


def _together(found: Sequence[Checked]) -> Checked:
    """Returns the worst of some answers through one protocol."""
    wrong = [one for one in found if one.problem]
    worst = max(wrong or found, key=lambda one: one.difference)
    some = f" (over {len(wrong)} of {len(found)} connections)" if 0 < len(wrong) < len(found) else ""
    return replace(worst, latency_ms=max(one.latency_ms for one in found), problem=worst.problem + some)


def _attempt(client: ServingClient, protocol: Protocol, expected: Expected) -> Checked | Unavailable:
    try:
        return _check_once(client, protocol, expected)
    except Unavailable as error:
        return error


def _check_once(client: ServingClient, protocol: Protocol, expected: Expected) -> Checked:
    asked = protocol.ask(expected)
    try:
        body, headers, latency_ms = client.ask(asked)
    except VerificationFailed as error:
        return _wrong(client, protocol.name, error)
    try:
        told = protocol.read(body, headers, expected)
        difference, problem = difference_of(told, expected), problem_of(told, expected)
    except Exception as error:  # noqa: BLE001 - what a server says may break a reader in any way
        difference, problem = float("inf"), f"the answer cannot be read ({type(error).__name__}: {str(error)[:200]})"
    worker = headers.get("x-prediction-id", "").partition("-")[0]
    return Checked(protocol=protocol.name, latency_ms=latency_ms, difference=difference, problem=problem, worker=worker)


def _wrong(client: ServingClient, name: str, error: VerificationFailed) -> Checked:
    said = error.problem.removeprefix(f"{client.base_url}: ")
    return Checked(protocol=name, difference=float("inf"), problem=said)
