"""Outcomes that clients told a server which does not know their predictions are carried to the one that does.

Nothing is remembered here between two rounds: what is under way is held by the servers until it is settled.
"""

from collections.abc import Sequence

from release_platform.domain.held_outcomes import HandedOutcomes, HeldOutcome, OutcomeServers, Settled, settle

MOST_PROBLEMS = 3


class HeldOutcomes:
    """What one set of servers holds for each other; without servers there is nothing."""

    def __init__(self, servers: OutcomeServers | None) -> None:
        self._servers = servers

    def carry(self) -> tuple[str, ...]:
        """Offers what is held to every server, once, and settles it; returns a sentence for each thing to tell.

        A server that does not answer is asked again the next time; its problem is told only where something is held.
        """
        if self._servers is None:
            return ()
        handed = self._servers.held_outcomes()
        outcomes = list({one.key: one for of in handed for one in of.outcomes}.values())
        if not outcomes:
            return ()
        offered = self._servers.offer_outcomes(outcomes)
        settled = settle(outcomes, offered)
        problems = [one.problem for one in offered if one.problem]
        problems += self._tell(self._servers, handed, settled)
        return (*_said(outcomes, settled), *problems[:MOST_PROBLEMS])

    def _tell(self, servers: OutcomeServers, handed: Sequence[HandedOutcomes], settled: Settled) -> list[str]:
        problems = []
        for one in handed:
            mine = {outcome.key for outcome in one.outcomes}
            part = Settled(
                carried=[outcome for outcome in settled.carried if outcome.key in mine],
                unknown=[outcome for outcome in settled.unknown if outcome.key in mine],
            )
            if part.carried or part.unknown:
                problems.append(servers.settle_outcomes(one.url, part))
        return [problem for problem in problems if problem]


def _said(outcomes: Sequence[HeldOutcome], settled: Settled) -> list[str]:
    n_left = len(outcomes) - len(settled.carried) - len(settled.unknown)
    counts = (
        (len(settled.carried), "outcome(s) were carried to the server that made the prediction"),
        (len(settled.unknown), "outcome(s) are of predictions that no server knows"),
        (n_left, "outcome(s) wait for a server that knows their prediction"),
    )
    return [f"{n:,} {what}" for n, what in counts if n]
