"""All live servers, asked at once over HTTP: moves are pushed to them, windows and samples come from them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

import httpx

from release_platform.adapters.addresses import each_server
from release_platform.adapters.serving_client import ServingClient
from release_platform.domain.errors import Unavailable, VerificationFailed
from release_platform.domain.held_outcomes import HandedOutcomes, HeldOutcome, Offered, Settled
from release_platform.domain.ports import HandedIn, HandedSamples
from release_platform.domain.push import Accepted, Declined, Outcome, Push, Unanswered

_Answer = TypeVar("_Answer")

CONNECT_S = 2.0
ANSWER_S = 5.0
"""A server that has a copy loads it in well under a second; one that must ask the registry goes on after we stop."""
MOST_OUTCOMES = 5_000
"""Outcomes that are carried at once, from all servers together: what is left is carried next."""
OFFERED_AT_ONCE = 1_000
HAND_IN_S = 3.0
"""For all windows, to the last byte: rollouts of other models wait meanwhile. A server gives its processes two."""


class Servers:
    """The servers at these addresses; see the port `Servers`.

    Args:
        urls: Their addresses; those with the prefix `dns+` are looked up each time.
        answer_s: Seconds that each has for all of an answer; to connect it has two at most, for windows three.
        api_key: The API key with which their windows and samples are read; empty for none. A pushed move proves itself.
    """

    def __init__(self, urls: Sequence[str], answer_s: float = ANSWER_S, *, api_key: str = "") -> None:
        self._urls = tuple(urls)
        self._answer_s = answer_s
        self._api_key = api_key

    def windows(self, after: int) -> Sequence[HandedIn]:
        """See `Servers`."""
        return [one for of in self._each(partial(self._windows_of, after=after)) for one in of]

    def _windows_of(self, url: str, after: int) -> list[HandedIn]:
        try:
            with self._client(url, min(HAND_IN_S, self._answer_s)) as client:
                told, n_silent = client.windows(after)
        except (Unavailable, VerificationFailed) as error:
            return [HandedIn(url=url, problem=error.problem)]
        found = [replace(one, url=url) for one in told]
        silent = f"{n_silent} of its processes did not answer in time"
        return [*found, HandedIn(url=url, problem=silent)] if n_silent else found

    def samples(self, after: Mapping[str, int], *, of: Collection[str] | None = None) -> Sequence[HandedSamples]:
        """See `Servers`."""
        return self._each(lambda url: self._samples_of(url, after.get(url, -1)), of=of)

    def _samples_of(self, url: str, after: int) -> HandedSamples:
        try:
            with self._client(url, None) as client:  # of many rows, and nothing waits for them
                told = client.samples(after)
        except (Unavailable, VerificationFailed) as error:
            return HandedSamples(url=url, problem=error.problem)
        if told.n_silent:
            silent = f"{told.n_silent} of its processes did not answer in time"
            return HandedSamples(url=url, samples=told.samples, labels=told.labels, calls=told.calls, problem=silent)
        return HandedSamples(
            url=url,
            closed=told.closed,
            samples=told.samples,
            labels=told.labels,
            calls=told.calls,
            more=told.more and told.closed > after,
        )

    def held_outcomes(self) -> Sequence[HandedOutcomes]:
        """See `OutcomeServers`."""
        n_servers = max(1, len(each_server(self._urls)))
        return self._each(partial(self._held_of, most=max(1, MOST_OUTCOMES // n_servers)))

    def _held_of(self, url: str, most: int) -> HandedOutcomes:
        try:
            with self._client(url, min(HAND_IN_S, self._answer_s)) as client:
                return HandedOutcomes(url=url, outcomes=client.held_outcomes(most))
        except (Unavailable, VerificationFailed) as error:
            return HandedOutcomes(url=url, problem=error.problem)

    def offer_outcomes(self, outcomes: Sequence[HeldOutcome]) -> Sequence[Offered]:
        """See `OutcomeServers`."""
        return self._each(partial(self._offer_to, outcomes=outcomes))

    def _offer_to(self, url: str, outcomes: Sequence[HeldOutcome]) -> Offered:
        unknown, unanswered = set[str](), set[str]()
        for begin in range(0, len(outcomes), OFFERED_AT_ONCE):
            try:
                with self._client(url, self._answer_s) as client:
                    no, nothing = client.offer_outcomes(outcomes[begin : begin + OFFERED_AT_ONCE])
            except (Unavailable, VerificationFailed) as error:
                rest = {one.prediction_id for one in outcomes[begin:]}
                return Offered(url=url, unknown=unknown, unanswered=unanswered | rest, problem=error.problem)
            unknown |= no
            unanswered |= nothing
        return Offered(url=url, unknown=unknown, unanswered=unanswered)

    def settle_outcomes(self, url: str, settled: Settled) -> str:
        """See `OutcomeServers`."""
        try:
            with self._client(url, self._answer_s) as client:
                client.settle_outcomes(settled)
        except (Unavailable, VerificationFailed) as error:
            return error.problem
        return ""

    def push(self, push: Push) -> Sequence[Outcome]:
        """See `Servers`."""
        return self._each(partial(push_to, push=push, answer_s=self._answer_s))

    def _each(self, ask: Callable[[str], _Answer], *, of: Collection[str] | None = None) -> Sequence[_Answer]:
        """Returns what each server answers, or each of some, all asked at once."""
        urls = [url for url in each_server(self._urls) if of is None or url in of]
        if not urls:
            return ()
        with ThreadPoolExecutor(len(urls), thread_name_prefix="servers") as threads:
            return list(threads.map(ask, urls))

    def _client(self, url: str, whole_s: float | None) -> ServingClient:
        connect_s = min(CONNECT_S, self._answer_s)
        return ServingClient(url, self._answer_s, connect_s=connect_s, whole_s=whole_s, api_key=self._api_key)


def push_to(url: str, push: Push, answer_s: float = ANSWER_S) -> Outcome:
    """Pushes a move to one server and returns what it says to it; whatever goes wrong is an outcome."""
    try:
        with ServingClient(url, answer_s, connect_s=min(CONNECT_S, answer_s), whole_s=answer_s) as client:
            status, said = client.push_certificate(push.model, push.to_json())
    except Unavailable as error:
        return Unanswered(url=url, problem=error.problem)
    return _outcome(url, push, status, said)


def _outcome(url: str, push: Push, status: int, said: Mapping[str, object]) -> Outcome:
    if status != httpx.codes.OK:
        return Declined(url=url, reason=str(said.get("detail") or f"it answers with status {status}"))
    if (said.get("version"), said.get("epoch")) != (push.version, push.epoch):
        return Declined(url=url, reason=f"it serves version {said.get('version')} of epoch {said.get('epoch')}")
    return Accepted(url=url, version=push.version, epoch=push.epoch, done=push.done)
