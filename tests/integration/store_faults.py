"""Faults in the release store, as anyone who has its file or its password can make them."""

from dataclasses import replace

from release_platform.domain.invariants import LINEAGE
from release_platform.domain.ledger import sealed
from tests.integration.homes import Home
from tests.integration.seeded_faults import MODEL, fault, store_sql, write_ledger

# The ledger


@fault((5, "ledger row 4", "was edited"), (10, "ledger row 4", "gives another reason than request second"))
def a_ledger_row_is_edited(home: Home) -> None:
    store_sql(home, "UPDATE ledger SET reason = 'he asked for it' WHERE epoch = 4")


@fault(
    (5, "ledger row 5", "does not follow the row before it"),
    (10, "ledger row 4", "names mallory, but ada asked for it"),
    (5, "production_version", "Dagster shows a move to version 2 (epoch 4) that the ledger does not know"),
)
def a_ledger_row_is_edited_and_sealed_again(home: Home) -> None:
    row = replace(home.services.store.ledger(MODEL)[3], actor="mallory")
    store_sql(home, f"UPDATE ledger SET actor = 'mallory', hash = '{sealed(row).hash}' WHERE epoch = 4")


@fault(
    (5, "ledger row 6", "follows row 4; a row is missing, added or moved"),
    (5, "ledger row 6", "does not follow the row before it"),
    (5, "ledger row 6", "is no allowed transition (diabetes: version 2 is in Production now)"),
    (5, "head", "epoch 7 was projected, but the ledger ends at epoch 6"),
    (5, "ledger row 5", "is missing; the certificate of version 1 behind production was made for it"),
    (5, "production_version", "Dagster shows a move to version 1 (epoch 5) that the ledger does not know"),
)
def a_ledger_row_is_deleted_in_the_middle(home: Home) -> None:
    store_sql(home, "DELETE FROM ledger WHERE epoch = 5")


@fault(
    (14, "alias staging", "is version 3, the head says absent"),
    (5, "ledger row 7", "is missing; the certificate of version 3 behind staging was made for it"),
)
def the_ledgers_end_is_cut_off_and_the_head_set_back(home: Home) -> None:
    write_ledger(home, list(home.services.store.ledger(MODEL)[:6]))


@fault(
    (14, "alias staging", "is version 3, the head says absent"),
    (14, "version 2", "the certificate of version 2 for its move to production is absent or wrong"),
    (5, "ledger row 5", "is missing; the certificate of version 1 behind production was made for it"),
    (5, "ledger row 6", "is missing; the certificate of version 2 behind production was made for it"),
    (5, "ledger row 7", "is missing; the certificate of version 3 behind staging was made for it"),
    (5, "production_version", "Dagster shows a move to version 1 (epoch 5) that the ledger does not know"),
    (5, "production_version", "Dagster shows a move to version 2 (epoch 6) that the ledger does not know"),
)
def the_ledger_is_set_back_to_before_a_rollback(home: Home) -> None:
    write_ledger(home, list(home.services.store.ledger(MODEL)[:4]))


@fault(
    (5, "ledger row 5", "does not follow the row before it"),
    (5, "ledger row 5", "was edited"),
    (5, "ledger row 5", "is no allowed transition (diabetes: version 2 is in Production now)"),
    (5, "ledger row 6", "follows row 6; a row is missing, added or moved"),
    (5, "ledger row 6", "does not follow the row before it"),
    (5, "ledger row 6", "was edited"),
    (5, "ledger row 6", "its heads are not the fold of the rows before it"),
    (5, "ledger row 7", "follows row 5; a row is missing, added or moved"),
    (5, "ledger row 7", "does not follow the row before it"),
    (5, "ledger row 7", "its heads are not the fold of the rows before it"),
    (5, "ledger row 5", "is not the one that the certificate of version 1 behind production was made for"),
    (5, "ledger row 6", "is not the one that the certificate of version 2 behind production was made for"),
    (5, "production_version", "Dagster shows a move to version 1 (epoch 5) that the ledger does not know"),
    (5, "production_version", "Dagster shows a move to version 2 (epoch 6) that the ledger does not know"),
)
def two_ledger_rows_are_swapped(home: Home) -> None:
    moves = [f"UPDATE ledger SET epoch = {to} WHERE epoch = {of}" for of, to in ((5, 99), (6, 5), (99, 6))]
    store_sql(home, *moves)


@fault(
    (14, "alias production", "is version 2, the head says version 1"),
    (14, "alias previous", "is version 1, the head says absent"),
    (14, "version 3", "the certificate of version 3 for its move to staging is absent or wrong"),
    (14, "version 1", "the certificate of version 1 for its move to production is absent or wrong"),
    (5, "ledger row 1", "is not the one that the certificate of version 1 behind staging was made for"),
    (5, "ledger row 3", "is not the one that the certificate of version 2 behind staging was made for"),
    (5, "ledger row 5", "is not the one that the certificate of version 1 behind production was made for"),
    (5, "ledger row 6", "is not the one that the certificate of version 2 behind production was made for"),
    (5, "ledger row 7", "is not the one that the certificate of version 3 behind staging was made for"),
    (5, "production_version", "Dagster shows a move to version 1 (epoch 2) that the ledger does not know"),
    (5, "production_version", "Dagster shows a move to version 2 (epoch 4) that the ledger does not know"),
    (5, "production_version", "Dagster shows a move to version 1 (epoch 5) that the ledger does not know"),
    (5, "production_version", "Dagster shows a move to version 2 (epoch 6) that the ledger does not know"),
    (LINEAGE, "production_version", "Dagster does not show the move to version 1, epoch 8"),
)
def a_row_is_added_and_the_whole_chain_written_anew(home: Home) -> None:
    rows = list(home.services.store.ledger(MODEL))
    back = replace(rows[4], epoch=8, request_id="rollback-extra", before=rows[6].after)
    after = {**rows[6].after, "epoch": 8, "production": "1", "previous": []}
    write_ledger(home, [replace(rows[0], actor="mallory"), *rows[1:], replace(back, after=after)])


@fault((9, "records", "release store: row 3 of the ledger of diabetes cannot be read"))
def a_ledger_rows_json_is_broken(home: Home) -> None:
    store_sql(home, """UPDATE ledger SET "after" = '{"epoch": 3' WHERE epoch = 3""")


@fault((9, "records", "release store: row 7 of the ledger of diabetes cannot be read"))
def a_ledger_rows_json_is_emptied(home: Home) -> None:
    store_sql(home, """UPDATE ledger SET "after" = '{}' WHERE epoch = 7""")


@fault((9, "records", "release store: row 2 of the ledger of diabetes cannot be read"))
def a_ledger_row_has_a_move_that_there_is_not(home: Home) -> None:
    store_sql(home, "UPDATE ledger SET move = 'forced' WHERE epoch = 2")


# The head


@fault((5, "head", "is not the fold of the ledger, which ends at epoch 7"))
def the_head_is_edited(home: Home) -> None:
    store_sql(home, """UPDATE heads SET state = json_set(state, '$.production', '1')""")


@fault((9, "records", "release store: the head of diabetes has two epochs: 7 and 8"))
def the_heads_epoch_is_edited(home: Home) -> None:
    store_sql(home, "UPDATE heads SET epoch = 8")


@fault((9, "records", "release store: the head of diabetes cannot be read"))
def the_head_is_broken(home: Home) -> None:
    store_sql(home, "UPDATE heads SET state = 'production: 1'")


@fault((5, "head", "is not the fold of the ledger, which ends at epoch 7"))
def the_head_is_deleted(home: Home) -> None:
    store_sql(home, "DELETE FROM heads")


@fault((5, "head", "epoch 9 was projected, but the ledger ends at epoch 7"))
def the_projected_epoch_is_ahead(home: Home) -> None:
    store_sql(home, "UPDATE heads SET projected_epoch = 9")


# Requests and approvals


@fault((10, "ledger row 4", "names ada, but mallory asked for it"))
def a_request_names_another_actor(home: Home) -> None:
    store_sql(home, "UPDATE requests SET actor = 'mallory' WHERE request_id = 'second'")


@fault((10, "ledger row 4", "gives another reason than request second"))
def a_request_gives_another_reason(home: Home) -> None:
    store_sql(home, "UPDATE requests SET reason = 'none' WHERE request_id = 'second'")


@fault((10, "ledger row 4", "promotes version 2 by request second, which asks for version 3 and is promoted"))
def a_request_asks_for_another_version(home: Home) -> None:
    store_sql(home, "UPDATE requests SET version = '3' WHERE request_id = 'second'")


@fault((10, "ledger row 2", "promotes version 1 without a request"))
def a_request_is_deleted(home: Home) -> None:
    store_sql(home, "DELETE FROM requests WHERE request_id = 'first'")


@fault((8, "request third", "is said to be promoted, but the ledger has no row of it"))
def a_request_is_said_to_be_promoted_but_was_not(home: Home) -> None:
    store_sql(home, "UPDATE requests SET state = 'promoted' WHERE request_id = 'third'")


@fault((16, "ledger row 4", "promotes version 2 by request second, which asks for version 2 and is open"))
def a_request_that_was_promoted_is_open_again(home: Home) -> None:
    store_sql(home, "UPDATE requests SET state = 'open' WHERE request_id = 'second'")


@fault((9, "records", "release store: request second cannot be read"))
def a_request_has_a_state_that_there_is_not(home: Home) -> None:
    store_sql(home, "UPDATE requests SET state = 'done' WHERE request_id = 'second'")


@fault((2, "request first", "was approved by Ada , who asked for it"))
def an_approval_is_by_the_requester(home: Home) -> None:
    store_sql(home, "UPDATE approvals SET actor = 'Ada ' WHERE request_id = 'first'")


# Registrations


@fault(
    (3, "ledger row 3", "moves version 2 with another digest than it was registered with"),
    (3, "ledger row 4", "moves version 2 with another digest than it was registered with"),
    (2, "ledger row 4", "its evidence is of no policy that the store knows, or of another model or report"),
    (3, "ledger row 6", "moves version 2 with another digest than it was registered with"),
    (3, "version 2", "what the release store says of digest is not what was signed"),
    (LINEAGE, "version 2", "its MLflow run ID has the tag release.digest = sha256:ID instead of sha256:ID"),
    (LINEAGE, "version 2", "no materialization of registered_version in Dagster has this version and digest"),
    (LINEAGE, "registered_version", "Dagster shows version 2 (sha256:ID), which the release store does not know"),
)
def a_registrations_digest_is_edited(home: Home) -> None:
    store_sql(home, f"UPDATE registrations SET digest = 'sha256:{'0' * 64}' WHERE version = '2'")


@fault(
    (2, "ledger row 4", "its evidence is of no policy that the store knows, or of another model or report"),
    (3, "version 2", "what the release store says of report_digest is not what was signed"),
)
def a_registrations_report_digest_is_edited(home: Home) -> None:
    store_sql(home, f"UPDATE registrations SET report_digest = 'sha256:{'0' * 64}' WHERE version = '2'")


@fault(
    (9, "ledger row 4", "promotes version 2, whose gate(s) rmse_cap did not pass"),
    (3, "version 2", "what the release store says of gates is not what was signed"),
)
def a_registrations_gate_is_edited_so_that_it_failed(home: Home) -> None:
    store_sql(home, "UPDATE registrations SET gates = json_set(gates, '$[0].verdict', 'failed') WHERE version = '2'")


@fault(
    (9, "ledger row 2", "promotes version 1, no blocking gate of which was judged"),
    (3, "version 1", "what the release store says of gates is not what was signed"),
)
def a_registration_has_no_gate_any_more(home: Home) -> None:
    store_sql(home, "UPDATE registrations SET gates = '[]' WHERE version = '1'")


@fault((9, "records", "release store: the registration of diabetes version 1 cannot be read"))
def a_registration_is_broken(home: Home) -> None:
    store_sql(home, "UPDATE registrations SET gates = 'none' WHERE version = '1'")


@fault(
    (2, "ledger row 3", "moves version 2, which was never registered"),
    (2, "ledger row 4", "moves version 2, which was never registered"),
    (2, "ledger row 6", "moves version 2, which was never registered"),
    (LINEAGE, "version 2", "was registered by the platform, but the release store does not know it"),
    (LINEAGE, "registered_version", "Dagster shows version 2 (sha256:ID), which the release store does not know"),
)
def a_registration_is_deleted(home: Home) -> None:
    store_sql(home, "DELETE FROM registrations WHERE version = '2'")


@fault(
    (LINEAGE, "version 2", "was removed, but is in the registry again"),
    (4, "version 2", "is recorded as removed, but the head still reaches it"),
)
def a_removal_is_recorded_of_the_version_in_production(home: Home) -> None:
    store_sql(
        home, f"INSERT INTO removals VALUES ('{MODEL}', '2', 'mallory', 'tidying up', '2026-01-01T00:00:00+00:00')"
    )
