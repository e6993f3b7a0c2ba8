"""Defects in what is demanded of a replay, in messages and their outbox, and in how old an asset may become."""

from tests.mutants.defect import Defect

_REPLAY = "release_platform/domain/replay.py"
_MESSAGES = "release_platform/domain/messages.py"
_OUTBOX = "release_platform/adapters/outbox_store.py"
_DELIVERY = "release_platform/messages.py"
_FRESHNESS = "release_platform/domain/freshness_spec.py"
_NAMING = "release_platform/defs/naming.py"
_OF_REPLAY = "tests/unit/test_replay.py::"
_OF_MESSAGES = "tests/unit/test_messages.py::"
_OF_OUTBOX = "tests/contract/test_outbox_store.py::"
_OF_SPEC = "tests/unit/test_spec.py::"

DEFECTS = (
    Defect(
        name="a replay of rows that Production did not answer is enough",
        file=_REPLAY,
        old="if replay.n_answered < limits.minimum_rows:",
        new="if replay.n_rows < limits.minimum_rows:",
        tests=(f"{_OF_REPLAY}TestGates::test_one_row_too_few_passes_nothing_and_says_what_to_do",),
    ),
    Defect(
        name="what a replay did not measure passes",
        file=_REPLAY,
        old='verdict, reason = Verdict.INCONCLUSIVE, f"{said} was not measured, so it cannot pass"',
        new='verdict, reason = Verdict.PASSED, f"{said} was not measured"',
        tests=(f"{_OF_REPLAY}TestGates::test_where_the_candidate_answers_no_row_changes_and_times_are_not_measured",),
    ),
    Defect(
        name="a replay beside an earlier Production version is enough",
        file=_REPLAY,
        old="if replay.stable.version != production:",
        new="if int(replay.stable.version) > int(production):",
        tests=(f"{_OF_REPLAY}TestDemand::test_none_of_other_files_and_beside_another_version_are_not",),
    ),
    Defect(
        name="a replay of other files is enough",
        file=_REPLAY,
        old="if (replay.model, replay.candidate.version, replay.candidate.digest) != (model, version, digest):",
        new="if (replay.model, replay.candidate.version) != (model, version):",
        tests=(f"{_OF_REPLAY}TestDemand::test_none_of_other_files_and_beside_another_version_are_not",),
    ),
    Defect(
        name="only a replay that failed holds a promotion",
        file=_REPLAY,
        old="for one in judge_replay(replay, limits) if not one.passed)",
        new="for one in judge_replay(replay, limits) if one.verdict is Verdict.FAILED)",
        tests=(f"{_OF_REPLAY}TestDemand::test_what_is_beyond_a_limit_is_named",),
    ),
    Defect(
        name="the same replay has another digest when it took longer",
        file=_REPLAY,
        old="candidate=replace(self.candidate, latency_ms={}),",
        new="candidate=self.candidate,",
        tests=(f"{_OF_REPLAY}TestDigest::test_times_and_moments_do_not_count",),
    ),
    Defect(
        name="a drill is told as a rollback",
        file=_MESSAGES,
        old="if row.move is not Move.ROLLED_BACK or find_drill(row) is not None:",
        new="if row.move is not Move.ROLLED_BACK:",
        tests=(f"{_OF_MESSAGES}test_other_moves_and_drills_are_not_told",),
    ),
    Defect(
        name="a message can be sent again by whoever heard it",
        file=_MESSAGES,
        old='signed = str(timestamp).encode() + b"." + body',
        new="signed = body",
        tests=(f"{_OF_MESSAGES}test_the_signature_is_over_time_and_body",),
    ),
    Defect(
        name="a message that was delivered is due again",
        file=_MESSAGES,
        old="return self.state is State.WAITING and (self.next_at is None or self.next_at <= now)",
        new="return self.next_at is None or self.next_at <= now",
        tests=(f"{_OF_MESSAGES}test_a_failed_attempt_is_due_again_after_its_wait",),
    ),
    Defect(
        name="a message that one receiver has is closed for all",
        file=_MESSAGES,
        old="(State.WAITING, State.GIVEN_UP, State.DELIVERED) if state in states)",
        new="(State.DELIVERED, State.WAITING, State.GIVEN_UP) if state in states)",
        tests=(f"{_OF_MESSAGES}test_a_message_is_closed_when_no_receiver_waits",),
    ),
    Defect(
        name="a receiver that is down is asked without end",
        file=_MESSAGES,
        old="if now - committed >= KEPT:",
        new="if now - committed >= KEPT * 52:",
        tests=(f"{_OF_MESSAGES}test_a_message_is_given_up_after_seven_days",),
    ),
    Defect(
        name="messages go out unsigned where the secret is missing",
        file="release_platform/adapters/receivers.py",
        old="if len(secret) < SECRET_CHARACTERS:",
        new="if 0 < len(secret) < SECRET_CHARACTERS:",
        tests=(f"{_OF_MESSAGES}test_messages_are_not_sent_unsigned",),
    ),
    Defect(
        name="a rollback is committed without its message",
        file="release_platform/adapters/release_store.py",
        old="post_move(connection, row)",
        new="assert row",
        tests=(f"{_OF_OUTBOX}test_a_rollback_leaves_one_message_however_often_it_is_asked_for[sqlite]",),
    ),
    Defect(
        name="a message is removed though it waits",
        file=_OUTBOX,
        old="_outbox.delete().where(_outbox.c.state != State.WAITING.value, _outbox.c.at < before.isoformat())",
        new="_outbox.delete().where(_outbox.c.at < before.isoformat())",
        tests=(f"{_OF_OUTBOX}test_what_is_closed_and_old_is_removed[sqlite]",),
    ),
    Defect(
        name="an asset warns when it already failed",
        file=_FRESHNESS,
        old="if self.warn_s is not None and not 60 <= self.warn_s < self.fail_s:",
        new="if self.warn_s is not None and not 60 <= self.warn_s <= self.fail_s:",
        tests=(f"{_OF_SPEC}test_how_old_an_asset_may_become_is_a_time_of_an_asset_that_there_is",),
    ),
    Defect(
        name="an asset that is to warn never does",
        file=_NAMING,
        old="warn = None if fresh.warn_s is None else timedelta(seconds=fresh.warn_s)",
        new="warn = None if fresh.warn_s is not None else timedelta(seconds=fresh.fail_s / 2)",
        tests=("tests/unit/test_freshness.py::test_an_asset_fails_and_warns_at_the_ages_of_the_yaml",),
    ),
    Defect(
        name="the age of one asset is held against all of them",
        file=_NAMING,
        old="fresh = next((rule for asset, rule in spec.freshness.items() if asset == stage), None)",
        new="fresh = next(iter(spec.freshness.values()), None)",
        tests=("tests/unit/test_freshness.py::test_an_asset_without_an_age_has_none",),
    ),
)
