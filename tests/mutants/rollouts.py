"""Defects in rollouts: the machine of their states, what it brings about, and how they are kept."""

from tests.mutants.defect import Defect

_ROLLOUT = "release_platform/domain/rollout.py"
_ROLLOUTS = "release_platform/rollouts.py"
_EFFECTS = "release_platform/effects.py"
_STORE = "release_platform/adapters/rollout_store.py"
_OF_ROLLOUT = "tests/unit/test_rollout.py::"
_OF_ROLLOUTS = "tests/integration/test_rollouts.py::"
_OF_STORE = "tests/contract/test_rollout_store.py::"
_OF_OUTBOX = "tests/contract/test_outbox_store.py::"

DEFECTS = (
    Defect(
        name="a stage passes with too few requests",
        file=_ROLLOUT,
        old="passed = event.verdict is Verdict.PASSED and event.n >= stage.minimum",
        new="passed = event.verdict is Verdict.PASSED",
        tests=(
            f"{_OF_ROLLOUT}test_a_stage_ends_when_it_passed_and_its_minima_are_reached",
            f"{_OF_ROLLOUT}test_passing_with_too_few_requests_until_the_maximum_time_is_aborted_too",
        ),
    ),
    Defect(
        name="a stage passes before its minimum time",
        file=_ROLLOUT,
        old="if passed and elapsed_s >= stage.minimum_s:",
        new="if passed:",
        tests=(f"{_OF_ROLLOUT}test_a_stage_ends_when_it_passed_and_its_minima_are_reached",),
    ),
    Defect(
        name="a stage that nothing failed is passed when its time is over",
        file=_ROLLOUT,
        old='return _ended(rollout, RolloutState.ABORTED, f"the gates did not pass within {most:g} s")',
        new='return _next(rollout, rollout.since, f"no gate failed within {most:g} s")',
        tests=(
            f"{_OF_ROLLOUT}test_without_a_verdict_until_the_maximum_time_it_is_aborted",
            f"{_OF_ROLLOUT}test_every_sequence_of_five_events_keeps_the_rules",
        ),
    ),
    Defect(
        name="a paused rollout goes on",
        file=_ROLLOUT,
        old="return paused or not rollout.begun or",
        new="return not rollout.begun or",
        tests=(f"{_OF_ROLLOUT}test_a_pause_stops_the_clock_and_progress_but_not_an_abort",),
    ),
    Defect(
        name="a paused rollout hears no gate that fails",
        file=_ROLLOUT,
        old="if event.verdict is Verdict.FAILED:",
        new="if event.verdict is Verdict.FAILED and rollout.state is RolloutState.RUNNING:",
        tests=(f"{_OF_ROLLOUT}test_a_pause_stops_the_clock_and_progress_but_not_an_abort",),
    ),
    Defect(
        name="the time of a pause counts",
        file=_ROLLOUT,
        old="return max((until - self.since).total_seconds() - still_s, 0.0)",
        new="return max((until - self.since).total_seconds(), 0.0)",
        tests=(f"{_OF_ROLLOUT}test_a_pause_stops_the_clock_and_progress_but_not_an_abort",),
    ),
    Defect(
        name="the time of a freeze counts",
        file=_ROLLOUT,
        old="still_s = self.paused_s + frozen_s(freeze, self.since, until)",
        new="still_s = self.paused_s",
        tests=(
            f"{_OF_ROLLOUT}test_in_a_freeze_a_stage_stands_still_and_only_falls_back",
            f"{_OF_ROLLOUTS}test_no_time_runs_out_in_a_freeze_however_long_it_is",
        ),
    ),
    Defect(
        name="a stage passes of which a server gives another share",
        file="release_platform/domain/coverage.py",
        old="gives = share in one.gives.get(model, (share,))",
        new="gives = bool(one.gives.get(model, (share,)))",
        tests=(
            "tests/unit/test_coverage.py::test_a_minute_in_which_a_process_gives_another_share_is_a_hole",
            f"{_OF_ROLLOUTS}test_while_one_of_two_servers_stays_at_the_share_before_the_stage_does_not_pass",
        ),
    ),
    Defect(
        name="a stage passes whose share no server was given",
        file=_ROLLOUT,
        old="return paused or not rollout.begun or",
        new="return paused or",
        tests=(
            f"{_OF_ROLLOUT}test_a_stage_counts_from_when_what_must_hold_in_it_does",
            f"{_OF_ROLLOUTS}test_no_stage_passes_before_servers_can_find_its_share",
        ),
    ),
    Defect(
        name="what was found of the stage before decides this one",
        file=_ROLLOUT,
        old="return rollout.ended or event.stage != rollout.stage or event.at < rollout.since",
        new="return rollout.ended or event.at < rollout.since",
        tests=(f"{_OF_ROLLOUT}test_what_is_late_or_of_another_stage_is_ignored",),
    ),
    Defect(
        name="a minute is judged twice",
        file=_ROLLOUT,
        old="if _is_late(rollout, event) or event.minute <= rollout.judged:",
        new="if _is_late(rollout, event):",
        tests=(f"{_OF_ROLLOUT}test_a_minute_that_was_judged_is_not_judged_again",),
    ),
    Defect(
        name="an aborted version keeps its traffic until Production was moved",
        file=_ROLLOUT,
        old="return (closed, none, *back)",
        new="return (closed, *back, none)",
        tests=(f"{_OF_ROLLOUT}test_a_failed_gate_takes_the_traffic_away_and_lets_nobody_give_it_again",),
    ),
    Defect(
        name="a share that is committed during an abort stays",
        file=_ROLLOUT,
        old="return (closed, none, *back)",
        new="return (none, *back, closed)",
        tests=(
            f"{_OF_ROLLOUT}test_a_failed_gate_takes_the_traffic_away_and_lets_nobody_give_it_again",
            f"{_OF_ROLLOUTS}test_an_abort_that_overlaps_the_first_share_leaves_no_share_behind",
        ),
    ),
    Defect(
        name="an abort waits for the registry",
        file=_EFFECTS,
        old="            if rollout.state is not RolloutState.ABORTED:\n                raise",
        new="            raise",
        tests=(
            f"{_OF_ROLLOUTS}test_an_abort_while_all_traffic_moved_needs_no_registry",
            f"{_OF_ROLLOUTS}test_a_version_that_fails_while_its_share_waits_for_the_registry_is_aborted_without_it",
        ),
    ),
    Defect(
        name="at full traffic the canary's share falls back to the old version for a moment",
        file=_ROLLOUT,
        old="return InProduction(version=rollout.candidate), none, *warm",
        new="return none, InProduction(version=rollout.candidate), *warm",
        tests=(f"{_OF_ROLLOUT}test_all_at_once_is_in_production_from_the_start_and_bakes",),
    ),
    Defect(
        name="the first release is aborted to nothing",
        file=_ROLLOUT,
        old='raise _refused(rollout, event, "it is the first release: there is no version to go back to")',
        new="return _ended(rollout, RolloutState.ABORTED, why)",
        tests=(f"{_OF_ROLLOUT}test_the_first_release_goes_all_at_once_and_cannot_be_aborted",),
    ),
    Defect(
        name="a rollout is not bound to what its approvals were of",
        file=_ROLLOUTS,
        old="            evidence=evidence,\n        )\n        return self._store.rollouts.open",
        new="        )\n        return self._store.rollouts.open",
        tests=(f"{_OF_ROLLOUTS}test_a_good_version_comes_into_production_step_by_step",),
    ),
    Defect(
        name="a rollout undoes the rollback of a person",
        file=_EFFECTS,
        old="if head.production == version or self._is_overtaken(kept):",
        new="if head.production == version:",
        tests=(f"{_OF_ROLLOUTS}test_a_rollback_by_a_person_ends_the_rollout_and_stands",),
    ),
    Defect(
        name="in a freeze a rollout goes further",
        file=_ROLLOUT,
        old="return paused or not rollout.begun or find_freeze(event.freeze, event.at) is not None",
        new="return paused or not rollout.begun",
        tests=(f"{_OF_ROLLOUTS}test_in_a_freeze_a_rollout_goes_no_further_and_still_falls_back",),
    ),
    Defect(
        name="in a freeze a bad version keeps its traffic",
        file=_ROLLOUT,
        old="    if event.verdict is Verdict.FAILED:\n        return",
        new="    if event.verdict is Verdict.FAILED and not _stands_still(rollout, event):\n        return",
        tests=(f"{_OF_ROLLOUTS}test_in_a_freeze_a_rollout_goes_no_further_and_still_falls_back",),
    ),
    Defect(
        name="windows that come after their minute was judged change what was judged",
        file=_ROLLOUTS,
        old="after = max(rollout.judged, int(rollout.since.timestamp() // 60) - 1)",
        new="after = int(rollout.since.timestamp() // 60) - 1",
        tests=(f"{_OF_ROLLOUTS}test_a_window_that_comes_after_its_minute_was_judged_is_left_out",),
    ),
    Defect(
        name="who replaces a rollout last wins",
        file=_STORE,
        old="return _rollouts.c.rollout_id == kept.rollout.rollout_id, _rollouts.c.revision == kept.revision",
        new="return (_rollouts.c.rollout_id == kept.rollout.rollout_id,)",
        tests=(
            f"{_OF_STORE}test_of_many_that_replace_a_rollout_at_once_one_is_first[sqlite]",
            f"{_OF_OUTBOX}test_an_abort_leaves_one_message_and_other_ends_none[sqlite]",
        ),
    ),
    Defect(
        name="a completed rollout is told as an aborted one",
        file=_STORE,
        old="if rollout.state is RolloutState.ABORTED and not kept.rollout.ended:",
        new="if rollout.ended and not kept.rollout.ended:",
        tests=(f"{_OF_OUTBOX}test_an_abort_leaves_one_message_and_other_ends_none[sqlite]",),
    ),
)
