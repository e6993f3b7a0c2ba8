"""A replay's gates hold refused rows, changed answers and times to their limits; its digest knows no time."""

import json
from dataclasses import replace
from typing import Any

import pytest

from release_platform.domain.flips import SliceFlips
from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.replay import (
    FLIPS,
    LATENCY,
    REFUSED,
    SLICE_FLIPS,
    Replay,
    Side,
    judge_replay,
    said_of,
    unmet_replay,
)
from release_platform.domain.replay_spec import ReplaySpec

LIMITS = ReplaySpec(max_refused_share=0.01, max_flip_share=0.1, max_latency_ratio=2.0, minimum_rows=100)


def side(version: str, *, p95: float = 1.0, **refused: int) -> Side:
    times = {"p50": p95 / 2, "p95": p95, "p99": p95 * 2}
    return Side(version=version, digest=f"sha256:{version}", refused=refused, latency_ms=times)


def replay(*, answered: int = 200, refused: int = 0, flips: int = 0, p95: float = 1.0, pairs: int = 200) -> Replay:
    every = SliceFlips(slice="", pairs=pairs, share=flips / pairs, flips=(("no -> yes", flips),) if flips else ())
    return Replay(
        model="m",
        stable=side("1"),
        candidate=side("2", p95=p95),
        rows_digest="sha256:rows",
        n_recorded=1000,
        n_rows=200,
        n_answered=answered,
        n_refused=refused,
        flips=(every, replace(every, slice="sex=f")),
        since="2026-01-01T00:00:00.000000+00:00",
        at="2026-01-08T00:00:00.000000+00:00",
    )


def verdicts(found: Replay, limits: ReplaySpec = LIMITS) -> dict[str, Verdict]:
    return {one.gate: one.verdict for one in judge_replay(found, limits)}


class TestGates:
    @pytest.mark.parametrize(
        ("at_the_limit", "beyond", "gate"),
        [
            (replay(refused=2), replay(refused=3), REFUSED),
            (replay(flips=20), replay(flips=21), FLIPS),
            (replay(p95=2.0), replay(p95=2.001), LATENCY),
        ],
    )
    def test_each_passes_up_to_its_limit_and_fails_beyond(
        self, at_the_limit: Replay, beyond: Replay, gate: str
    ) -> None:
        assert set(verdicts(at_the_limit).values()) == {Verdict.PASSED}
        others = set(verdicts(beyond)) - {gate}
        assert verdicts(beyond)[gate] is Verdict.FAILED
        assert {verdicts(beyond)[name] for name in others} == {Verdict.PASSED}

    def test_one_row_too_few_passes_nothing_and_says_what_to_do(self) -> None:
        assert set(verdicts(replay(answered=100)).values()) == {Verdict.PASSED}
        found = judge_replay(replay(answered=99, refused=99, flips=99), LIMITS)
        assert {one.verdict for one in found} == {Verdict.INCONCLUSIVE}
        assert found[0].reason == (
            "version 1 answered 99 recorded row(s), 100 are needed: let the servers record more "
            "(SERVING_SAMPLE_SHARE, and an API key of scope admin: the last tick of `recordings_sensor` says what is "
            "missing), or look further back with `release replay m --version 2 --since 14d`"
        )
        assert said_of(found, replay(answered=99)) == (
            f"replay_refused, replay_flips, replay_slice_flips, replay_latency inconclusive: {found[0].reason}",
        )

    def test_where_the_candidate_answers_no_row_changes_and_times_are_not_measured(self) -> None:
        found = replace(replay(refused=200), flips=(), candidate=replace(side("2"), latency_ms={}))
        assert verdicts(found) == {
            REFUSED: Verdict.FAILED,
            FLIPS: Verdict.INCONCLUSIVE,
            SLICE_FLIPS: Verdict.INCONCLUSIVE,
            LATENCY: Verdict.INCONCLUSIVE,
        }

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_refused_share": -0.1},
            {"max_flip_share": 1.1},
            {"max_flip_share": float("nan")},
            {"max_slice_flip_share": 1.1},
            {"max_slice_flip_share": float("nan")},
            {"minimum_slice_rows": 0},
            {"max_latency_ratio": 0.0},
            {"max_latency_ratio": float("inf")},
            {"minimum_rows": 0},
        ],
    )
    def test_no_limit_is_without_sense(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ReplaySpec(**wrong)


def in_slices(**flipped: tuple[int, int]) -> Replay:
    """A replay of which the answers of so many rows of so many change, in each slice of a column `kind`."""
    one = replay()
    slices = [SliceFlips(slice=f"kind={k}", pairs=n, share=of / n, flips=()) for k, (of, n) in flipped.items()]
    return replace(one, flips=(one.flips[0], *slices))


class TestSlices:
    def judged(self, found: Replay, **limits: Any) -> GateResult:
        return next(one for one in judge_replay(found, replace(LIMITS, **limits)) if one.gate == SLICE_FLIPS)

    def test_a_slice_of_few_rows_that_changes_whole_fails_though_the_share_over_all_is_small(self) -> None:
        found = in_slices(rare=(50, 50), often=(0, 950))
        gate = self.judged(found)
        assert gate.verdict is Verdict.FAILED
        assert gate.reason == (
            "the share of answers that it changes in the slice 'kind=rare' of 50 row(s) is 1, above the maximum 0.3"
        )
        assert verdicts(found)[FLIPS] is Verdict.PASSED

    @pytest.mark.parametrize(("flipped", "verdict"), [(49, Verdict.PASSED), (50, Verdict.PASSED), (51, Verdict.FAILED)])
    def test_a_slice_passes_up_to_the_limit(self, flipped: int, verdict: Verdict) -> None:
        assert self.judged(in_slices(a=(flipped, 100)), max_slice_flip_share=0.5).verdict is verdict

    def test_the_worst_is_named_and_how_many_others_are_beyond_the_limit(self) -> None:
        gate = self.judged(in_slices(a=(60, 100), b=(70, 100), c=(80, 100), d=(1, 100)))
        assert "slice 'kind=c' of 100 row(s) (and 2 more slice(s) are above the maximum)" in gate.reason
        assert gate.value == 0.8

    def test_one_row_too_few_and_a_slice_is_not_judged_and_that_is_said(self) -> None:
        gate = self.judged(in_slices(rare=(49, 49)))
        assert (gate.verdict, gate.value) == (Verdict.PASSED, None)
        assert gate.reason == "no slice has 50 row(s) that both answer, so only the share over all rows is judged"
        assert self.judged(in_slices(rare=(49, 49)), minimum_slice_rows=49).verdict is Verdict.FAILED

    @pytest.mark.parametrize(("overall", "limit"), [(0.05, 0.15), (0.2, 0.6), (0.9, 1.0)])
    def test_without_a_limit_of_its_own_a_slice_may_change_three_times_as_much(
        self, overall: float, limit: float
    ) -> None:
        assert ReplaySpec(max_flip_share=overall).slice_limit == pytest.approx(limit)
        assert ReplaySpec(max_flip_share=overall, max_slice_flip_share=0.07).slice_limit == 0.07

    def test_what_to_do_next_is_said_of_a_slice_too(self) -> None:
        (said,) = unmet_replay(
            in_slices(rare=(50, 50)), LIMITS, model="m", version="2", digest="sha256:2", production="1"
        )
        assert said.startswith("replay_slice_flips failed: ")
        assert "max_slice_flip_share" in said


class TestDigest:
    def test_times_and_moments_do_not_count(self) -> None:
        later = replace(replay(p95=9.0), at="2027", since="2026")
        assert later.digest == replay().digest

    @pytest.mark.parametrize(
        "other",
        [
            replay(flips=1),
            replay(refused=1),
            replace(replay(), rows_digest="sha256:other"),
            replace(replay(), candidate=replace(side("2"), digest="sha256:x")),
            replace(replay(), candidate=side("2", absent=1)),
            replace(replay(), n_recorded=1001),
        ],
    )
    def test_everything_else_does(self, other: Replay) -> None:
        assert other.digest != replay().digest

    def test_a_report_is_read_as_it_was_written_and_refused_when_it_was_changed(self) -> None:
        written = json.loads(json.dumps(replay(flips=3, refused=1).to_json()))
        assert Replay.from_json(written) == replay(flips=3, refused=1)
        with pytest.raises(ValueError, match="its digest is not"):
            Replay.from_json({**written, "n_refused": 0})

    def test_counts_that_cannot_be_are_refused(self) -> None:
        with pytest.raises(ValueError, match="each part of the next"):
            replay(answered=1, refused=2)


class TestDemand:
    def unmet(self, found: Replay | None, *, digest: str = "sha256:2", production: str | None = "1") -> tuple[str, ...]:
        return unmet_replay(found, LIMITS, model="m", version="2", digest=digest, production=production)

    def test_a_replay_within_the_limits_is_enough(self) -> None:
        assert self.unmet(replay()) == ()

    def test_none_of_other_files_and_beside_another_version_are_not(self) -> None:
        again = "run `release replay m --version 2`"
        assert self.unmet(None) == (f"it was not replayed over recorded requests: {again}",)
        assert self.unmet(replay(), production="3") == (
            f"it was replayed beside version 1, but Production is version 3 now: {again}",
        )
        (other,) = self.unmet(replay(), digest="sha256:x")
        assert "other files than the registered ones" in other

    def test_what_is_beyond_a_limit_is_named(self) -> None:
        (found,) = self.unmet(replay(flips=21))
        assert found.startswith("replay_flips failed: the share of answers that it changes is 0.105, above the maximum")
        assert len(self.unmet(replay(answered=3))) == 1

    @pytest.mark.parametrize(
        ("beyond", "shown", "limit"),
        [
            (replay(refused=3), "which rows it refuses", "max_refused_share"),
            (replay(flips=21), "which answers change in which slices", "max_flip_share"),
            (replay(p95=2.001), "its times", "max_latency_ratio"),
        ],
    )
    def test_what_is_beyond_a_limit_names_the_next_commands(self, beyond: Replay, shown: str, limit: str) -> None:
        (found,) = self.unmet(beyond)
        assert found.endswith(
            f": `release replay m --version 2` shows {shown}; mend the model and run `release run m`; or, if that is "
            f"wanted, raise policy.replay.{limit} in its defs.yaml"
        )
        assert limit in vars(ReplaySpec)["__slots__"]

    @pytest.mark.parametrize(("since", "further"), [("2026-01-07T23:00", "2d"), ("2025-12-31T23:59", "16d")])
    def test_how_much_further_back_to_look_is_twice_as_far(self, since: str, further: str) -> None:
        (found, *_) = self.unmet(replace(replay(answered=3), since=f"{since}:00.000000+00:00"))
        assert found.endswith(f"`release replay m --version 2 --since {further}`")

    def test_the_first_promotion_needs_none_because_nothing_was_asked_yet(self) -> None:
        assert self.unmet(None, production=None) == ()
