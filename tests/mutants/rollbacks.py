"""Defects in what happens by itself: rollbacks by policy, verifications that failed, what follows from drift."""

from tests.mutants.defect import Defect

_ROLLBACK = "release_platform/domain/rollback.py"
_WATCH = "release_platform/watch.py"
_VERIFIED = "release_platform/domain/verified.py"
_DAY = "release_platform/domain/drift_day.py"
_DRIFT_STORE = "release_platform/adapters/drift_store.py"
_RETRAINING = "release_platform/domain/retraining.py"
_OF_ROLLBACK = "tests/unit/test_rollback.py::"
_OF_WATCH = "tests/integration/test_rollback_policy.py::"
_OF_DAY = "tests/unit/test_drift_day.py::"
_OF_DRIFT_STORE = "tests/contract/test_drift_store.py::"
_OF_RETRAINING = "tests/unit/test_retraining.py::"

DEFECTS = (
    Defect(
        name="the policy does not hold off after its own rollback",
        file=_ROLLBACK,
        old="        if at < until:",
        new="        if at < promoted < until:",
        tests=(f"{_OF_ROLLBACK}test_it_holds_off_after_its_own_rollback_so_that_it_cannot_flap",),
    ),
    Defect(
        name="the policy undoes what a person went back to",
        file=_ROLLBACK,
        old="if last.move is not Move.PROMOTED:",
        new="if last.move is not Move.PROMOTED and last.actor == POLICY:",
        tests=(f"{_OF_ROLLBACK}test_where_there_is_no_way_back_or_somebody_went_it_nothing_is_done",),
    ),
    Defect(
        name="a version that a person promotes again is taken back for what was known before",
        file=_ROLLBACK,
        old="if day.day < promoted.astimezone(UTC).date() or datetime.fromisoformat(day.at) < promoted:",
        new="if day.day < promoted.astimezone(UTC).date():",
        tests=(
            f"{_OF_WATCH}test_a_version_that_a_person_promotes_again_is_not_taken_back_for_drift_of_before",
            "tests/unit/test_drift_day.py::test_what_was_known_when_a_version_was_promoted_takes_it_back_no_more",
        ),
    ),
    Defect(
        name="a rollback in the middle of a drill goes to the version before both",
        file="release_platform/releases.py",
        old="or self._target(head)",
        new="or rollback_target(head)",
        tests=(f"{_OF_WATCH}test_a_rollback_of_a_person_in_the_middle_of_a_drill_says_where_it_goes",),
    ),
    Defect(
        name="a drill ends the watch of a version",
        file=_ROLLBACK,
        old="return [row for row in rows if moves_production(row) and find_drill(row) is None]",
        new="return [row for row in rows if moves_production(row)]",
        tests=(f"{_OF_ROLLBACK}test_a_drill_is_no_decision_of_a_person_and_is_left_alone",),
    ),
    Defect(
        name="the policy goes to the oldest version, not to the one before",
        file=_ROLLBACK,
        old="before=head.previous[-1],",
        new="before=head.previous[0],",
        tests=(f"{_OF_ROLLBACK}test_of_several_former_versions_it_is_the_last_one_that_it_goes_back_to",),
    ),
    Defect(
        name="the policy goes by itself, and no rollout that bakes hears of it",
        file=_WATCH,
        old="kept.rollout.rollout_id == request_of(taken.watched.row)",
        new="kept.rollout.rollout_id == taken.watched.row.actor",
        tests=(f"{_OF_WATCH}test_while_it_bakes_the_rollout_is_aborted",),
    ),
    Defect(
        name="the policy undoes a move that was made while it looked",
        file=_WATCH,
        old="expected_epoch=epoch,",
        new="expected_epoch=self._store.head(model).epoch,",
        tests=(f"{_OF_WATCH}test_what_a_person_promotes_while_the_policy_looks_is_not_undone",),
    ),
    Defect(
        name="a version is watched for good",
        file=_ROLLBACK,
        old="if (at - promoted).total_seconds() > spec.watch_s:",
        new="if (at - promoted).total_seconds() > max(spec.watch_s, 30 * 86400):",
        tests=(f"{_OF_ROLLBACK}test_a_version_is_watched_for_a_time",),
    ),
    Defect(
        name="an advisory gate takes a version back",
        file=_ROLLBACK,
        old="if worse and gate.blocking:",
        new="if worse:",
        tests=(f"{_OF_ROLLBACK}test_an_advisory_gate_takes_nothing_back",),
    ),
    Defect(
        name="what came of the version before after it was replaced is its record",
        file=_ROLLBACK,
        old="if w.key.version == watched.before and w.key.minute < watched.since - 1]",
        new="if w.key.version == watched.before]",
        tests=(f"{_OF_ROLLBACK}test_labels_of_the_version_before_that_come_after_it_change_nothing",),
    ),
    Defect(
        name="the record may be used again at the same level for ever",
        file=_ROLLBACK,
        old="level = spec.false_rollback / n_blocking * 6 / (pi * (number + 1)) ** 2",
        new="level = spec.false_rollback / n_blocking * 6 / pi**2 + number * 0",
        tests=(f"{_OF_ROLLBACK}test_the_same_evidence_says_less_each_time_that_the_record_is_used_again",),
    ),
    Defect(
        name="every gate may take a version back falsely with the whole probability",
        file=_ROLLBACK,
        old="level = spec.false_rollback / n_blocking * 6",
        new="level = spec.false_rollback * 6",
        tests=(f"{_OF_ROLLBACK}test_of_several_gates_each_needs_more_evidence",),
    ),
    Defect(
        name="a server that does not answer makes up for one that answered wrongly",
        file=_VERIFIED,
        old="            case Found.UNANSWERED:\n                pass",
        new="            case Found.UNANSWERED:\n                failed.clear()",
        tests=(f"{_OF_ROLLBACK}test_a_verification_that_nobody_answered_does_not_hide_one_that_failed",),
    ),
    Defect(
        name="a server that does not answer takes a version back",
        file=_VERIFIED,
        old="            case Found.UNANSWERED:\n                pass",
        new="            case Found.UNANSWERED:\n                failed.append(one)",
        tests=(f"{_OF_ROLLBACK}test_less_than_that_takes_nothing_back",),
    ),
    Defect(
        name="verifications that failed count over one that passed",
        file=_VERIFIED,
        old="            case Found.PASSED:\n                failed.clear()",
        new="            case Found.PASSED:\n                pass",
        tests=(f"{_OF_ROLLBACK}test_less_than_that_takes_nothing_back",),
    ),
    Defect(
        name="a verification that failed weeks ago is evidence",
        file=_VERIFIED,
        old="fresh = bool(failed) and (at - _moment(failed[-1])).total_seconds() <= COUNTS_S",
        new="fresh = bool(failed)",
        tests=(f"{_OF_ROLLBACK}test_a_verification_that_is_old_is_no_evidence",),
    ),
    Defect(
        name="a verification counts that was made while a move was under way",
        file=_VERIFIED,
        old="v.epoch >= row.epoch and _moment(v) >= settled]",
        new="v.epoch >= row.epoch and v.at >= row.at]",
        tests=(f"{_OF_ROLLBACK}test_less_than_that_takes_nothing_back",),
    ),
    Defect(
        name="verifications of an earlier promotion of the version count",
        file=_VERIFIED,
        old="if v.version == row.version and v.epoch >= row.epoch and",
        new="if v.version == row.version and",
        tests=(f"{_OF_ROLLBACK}test_less_than_that_takes_nothing_back",),
    ),
    Defect(
        name="an alarm that a person lifted goes on",
        file=_DAY,
        old="return self.alarmed and self.lift is None",
        new="return self.alarmed",
        tests=(
            f"{_OF_DAY}test_an_alarm_asks_for_what_the_yaml_said_until_somebody_lifts_it",
            f"{_OF_DAY}test_a_version_is_taken_back_for_its_own_standing_alarm_only",
        ),
    ),
    Defect(
        name="drift does what the YAML did not ask for",
        file=_DAY,
        old="return self.stands and what in self.on_alarm",
        new="return self.stands and bool(self.on_alarm)",
        tests=(f"{_OF_DAY}test_an_alarm_asks_for_what_the_yaml_said_until_somebody_lifts_it",),
    ),
    Defect(
        name="a version is taken back for the drift of another one",
        file=_ROLLBACK,
        old="if day is None or day.version != watched.row.version or not",
        new="if day is None or not",
        tests=(f"{_OF_DAY}test_a_version_is_taken_back_for_its_own_standing_alarm_only",),
    ),
    Defect(
        name="a hold for drift holds nothing",
        file="release_platform/domain/policy.py",
        old="    if facts.drifting:\n        found.append(facts.drifting)\n",
        new="",
        tests=(f"{_OF_DAY}test_a_promotion_waits_while_a_hold_stands",),
    ),
    Defect(
        name="an alarm is told each time its day is reported",
        file=_DRIFT_STORE,
        old="told_before = row is not None and bool(row",
        new="told_before = row is None and bool(row",
        tests=(f"{_OF_DRIFT_STORE}test_an_alarm_is_told_once_however_often_its_day_is_reported[sqlite]",),
    ),
    Defect(
        name="an alarm is answered by a run again and again",
        file=_RETRAINING,
        old="still = [one for one in wanted if one.key not in answered]",
        new="still = [one for one in wanted if one.key not in answered or runs[0].key == one.key]",
        tests=(f"{_OF_RETRAINING}test_a_cause_starts_it_once_whatever_became_of_the_run",),
    ),
    Defect(
        name="a storm of alarms has one run more than the bound",
        file=_RETRAINING,
        old="if len(recent) >= spec.most_per_day:",
        new="if len(recent) > spec.most_per_day:",
        tests=(f"{_OF_RETRAINING}test_no_more_than_so_many_in_any_day",),
    ),
    Defect(
        name="runs that fail are started for ever",
        file=_RETRAINING,
        old="if len(failed) >= spec.stop_after:",
        new="if not runs and len(failed) >= spec.stop_after:",
        tests=(f"{_OF_RETRAINING}test_after_so_many_failures_in_a_row_it_ends_until_a_person_starts_one",),
    ),
    Defect(
        name="two retrainings run at once",
        file=_RETRAINING,
        old="if any(not run.ended for run in runs):",
        new="if any(not run.ended and not run.key for run in runs):",
        tests=(f"{_OF_RETRAINING}test_one_at_a_time_whoever_started_it",),
    ),
    Defect(
        name="version 10 in Staging is older than version 3 in Production",
        file=_RETRAINING,
        old="int(head.staging) > int(day.version)",
        new="head.staging > day.version",
        tests=(f"{_OF_RETRAINING}test_a_newer_version_in_staging_is_decided_on_first",),
    ),
)
