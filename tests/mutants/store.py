"""Defects in the release store, the ledger and the state machine."""

from tests.mutants.defect import Defect

_STORE = "release_platform/adapters/release_store.py"
_DATABASE = "release_platform/adapters/store_database.py"
_SCHEMA = "release_platform/adapters/migrations/versions/0001_release_store.py"
_LEDGER = "release_platform/domain/ledger.py"
_LIFECYCLE = "release_platform/domain/lifecycle.py"
_CONTRACT = "tests/contract/test_release_store.py::"
_ROLE = "test_a_role_of_its_own_can_do_nothing_else"

DEFECTS = (
    Defect(
        name="compare-and-set removed: the expected epoch is ignored",
        file=_STORE,
        old="if head.epoch != expected_epoch:",
        new="if head.epoch < 0:",
        tests=(
            f"{_CONTRACT}test_a_stale_epoch_is_told_who_won_and_changes_nothing[sqlite]",
            f"{_CONTRACT}test_of_many_concurrent_moves_one_wins_each_round[sqlite]",
        ),
    ),
    Defect(
        name="compare-and-set removed: the head is written at whatever epoch it is",
        file=_STORE,
        old=".where(_heads.c.model == head.model, _heads.c.epoch == head.epoch).values(**values)",
        new=".where(_heads.c.model == head.model).values(**values)",
        tests=(f"{_CONTRACT}test_a_head_that_another_transaction_moves_meanwhile_is_not_overwritten",),
    ),
    Defect(
        name="a repeated request is not recognised",
        file=_STORE,
        old="done = _find_row(connection, request_id)\n    if done is not None and",
        new="done = None\n    if done is not None and",
        tests=(f"{_CONTRACT}test_one_request_moves_once_however_often_it_is_sent[sqlite]",),
    ),
    Defect(
        name="a request id serves for another version",
        file=_STORE,
        old="(done.model, done.move, done.version) != wanted:",
        new="(done.model, done.move) != wanted[:2]:",
        tests=(f"{_CONTRACT}test_a_request_id_cannot_be_used_for_another_move[sqlite]",),
    ),
    Defect(
        name="the ledger row is written in another transaction than the head",
        file=_STORE,
        old="                connection.execute(_ledger.insert().values(_row_values(row)))\n                post_move(",
        new="            with self._begin() as connection:\n"
        "                connection.execute(_ledger.insert().values(_row_values(row)))\n"
        "                post_move(",
        tests=(f"{_CONTRACT}test_a_head_never_moves_without_its_ledger_row[sqlite]",),
    ),
    Defect(
        name="ledger rows are not chained",
        file=_STORE,
        old="previous_hash=genesis(model) if last is None else last.hash,",
        new="previous_hash=genesis(model),",
        tests=(f"{_CONTRACT}test_moves_are_kept_in_a_ledger_without_fault[sqlite]",),
    ),
    Defect(
        name="ledger rows carry the clock's time, also when it went back",
        file=_STORE,
        old="return (now if last is None else max(now, datetime.fromisoformat(last.at))).isoformat()",
        new="return now.isoformat()",
        tests=(f"{_CONTRACT}test_rows_stay_in_order_of_time_although_the_clock_goes_back[sqlite]",),
    ),
    Defect(
        name="a request that was refused moves",
        file=_STORE,
        old="if closed is not None:",
        new="if closed is not None and not request_id:",
        tests=(f"{_CONTRACT}test_a_request_that_was_refused_moves_nothing[sqlite]",),
    ),
    Defect(
        name="a version that was removed moves",
        file=_STORE,
        old="_refuse_removed(connection, model, version)  # after the head's row is ours: removals wait for it",
        new="assert version",
        tests=(f"{_CONTRACT}test_a_removed_version_can_neither_move_nor_be_asked_for[sqlite]",),
    ),
    Defect(
        name="a version is recorded again with another digest",
        file=_STORE,
        old="if known is None or known.digest != registration.digest:",
        new="if known is None:",
        tests=(f"{_CONTRACT}test_a_registration_is_recorded_once_and_never_changes[sqlite]",),
    ),
    Defect(
        name="a closed request is closed again",
        file=_STORE,
        old=".where(_requests.c.request_id == request_id, _requests.c.state == RequestState.OPEN)",
        new=".where(_requests.c.request_id == request_id)",
        tests=(f"{_CONTRACT}test_requests_open_once_and_close_for_good[sqlite]",),
    ),
    Defect(
        name="the projected epoch goes back",
        file=_STORE,
        old=".where(_heads.c.model == model, _heads.c.projected_epoch < epoch)",
        new=".where(_heads.c.model == model)",
        tests=(f"{_CONTRACT}test_the_projected_epoch_never_goes_back[sqlite]",),
    ),
    Defect(
        name="SQLite lets ledger rows be edited",
        file=_SCHEMA,
        old='for what in ("UPDATE", "DELETE"):',
        new='for what in ("DELETE",):',
        tests=(f"{_CONTRACT}test_ledger_rows_cannot_be_changed[sqlite-UPDATE ledger SET actor = 'mallory']",),
    ),
    Defect(
        name="PostgreSQL lets ledger rows be deleted",
        file=_SCHEMA,
        old="BEFORE UPDATE OR DELETE ON ledger",
        new="BEFORE UPDATE ON ledger",
        tests=(f"{_CONTRACT}test_ledger_rows_cannot_be_changed[postgresql-DELETE FROM ledger]",),
    ),
    Defect(
        name="the platform's role may delete approvals",
        file=_DATABASE,
        old='"approvals": "SELECT, INSERT",',
        new='"approvals": "SELECT, INSERT, DELETE",',
        tests=(f"{_CONTRACT}{_ROLE}[DELETE FROM approvals]",),
    ),
    Defect(
        name="an edited ledger row is no fault",
        file=_LEDGER,
        old="if row.hash != row.expected_hash:",
        new="if not row.hash:",
        tests=("tests/unit/test_ledger.py::test_an_edited_field_is_found_at_its_row",),
    ),
    Defect(
        name="a ledger row need not follow the one before",
        file=_LEDGER,
        old="if row.previous_hash != last:",
        new="if not row.previous_hash:",
        tests=("tests/unit/test_ledger.py::test_an_edit_that_is_sealed_again_breaks_the_chain",),
    ),
    Defect(
        name="a ledger that was written anew agrees with every certificate",
        file=_LEDGER,
        old="elif held[certificate.epoch] != certificate.ledger_hash:",
        new="elif not held[certificate.epoch]:",
        tests=(
            "tests/integration/test_releases.py::"
            "test_what_was_cut_off_from_the_ledger_is_found_by_the_newest_certificate",
        ),
    ),
    Defect(
        name="`release ledger verify` does not compare the certificates",
        file="release_platform/cli/ledger.py",
        old="found += (*faults(name, rows), *certified_faults(name, rows, certificates))",
        new="found += faults(name, rows)",
        tests=("tests/integration/test_ledger_command.py::test_a_ledger_whose_end_was_cut_off_does_not_verify",),
    ),
    Defect(
        name="a rollback goes to a version that never was in Production",
        file=_LIFECYCLE,
        old="if version not in head.ever:",
        new="if version not in head.reachable:",
        tests=("tests/unit/test_lifecycle.py::test_a_rollback_to_what_never_was_in_production_is_refused",),
    ),
    Defect(
        name="a promotion forgets the version that it replaces",
        file=_LIFECYCLE,
        old="previous=head.previous if head.production is None else (*head.previous, head.production),",
        new="previous=head.previous,",
        tests=("tests/unit/test_lifecycle.py::test_a_promotion_keeps_the_version_that_it_replaces",),
    ),
    Defect(
        name="the alias previous names the oldest version, not the next to roll back to",
        file=_LIFECYCLE,
        old="Alias.PREVIOUS: self.previous[-1] if self.previous else None,",
        new="Alias.PREVIOUS: self.previous[0] if self.previous else None,",
        tests=("tests/unit/test_lifecycle.py::test_the_alias_previous_is_where_a_plain_rollback_goes",),
    ),
)
