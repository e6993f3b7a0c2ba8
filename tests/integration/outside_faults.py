"""Faults in MLflow, in the files, and in Dagster, as anyone who reaches them can make them."""

import json
import shutil

from release_platform.adapters.signing import Signer, new_key
from release_platform.defs.naming import asset_key
from release_platform.domain.attestation import CERTIFICATE_TAG, SIGNATURE_TAG
from release_platform.domain.invariants import LINEAGE
from release_platform.domain.ledger import certificate_of
from tests.integration.homes import Home
from tests.integration.seeded_faults import (
    MODEL,
    fault,
    file_of,
    mlflow_sql,
    registration,
    registry,
    report,
    set_tag,
    snapshot_of,
    store_sql,
)

# The registry


@fault((14, "alias production", "is version 1, the head says version 2"))
def the_alias_production_is_moved(home: Home) -> None:
    registry(home).set_registered_model_alias(MODEL, "production", "1")


@fault((14, "alias previous", "is version 3, the head says version 1"))
def the_alias_previous_is_moved(home: Home) -> None:
    registry(home).set_registered_model_alias(MODEL, "previous", "3")


@fault((14, "alias staging", "is version 1, the head says version 3"))
def the_alias_staging_is_moved(home: Home) -> None:
    registry(home).set_registered_model_alias(MODEL, "staging", "1")


@fault((14, "alias production", "is absent, the head says version 2"))
def the_alias_production_is_deleted(home: Home) -> None:
    registry(home).delete_registered_model_alias(MODEL, "production")


@fault(
    (3, "version 2", "tag release.digest of version 2 was edited"),
    (3, "version 2", "its manifest does not match its digest, so one of the two tags was edited"),
)
def a_digest_tag_is_edited(home: Home) -> None:
    set_tag(home, "2", "release.digest", f"sha256:{'0' * 64}")


@fault(
    (3, "version 1", "tag release.manifest of version 1 was edited"),
    (3, "version 1", "its manifest does not match its digest, so one of the two tags was edited"),
)
def a_manifest_tag_is_edited(home: Home) -> None:
    set_tag(home, "1", "release.manifest", "[]")


@fault(
    (3, "version 2", "tag release.signature of version 2 was edited"),
    (3, "version 2", "the signature cannot be read (KeyError)"),
)
def a_signature_tag_is_edited(home: Home) -> None:
    set_tag(home, "2", SIGNATURE_TAG, "{}")


@fault(
    (3, "version 2", "tag release.signature of version 2 was edited"),
    (3, "version 2", "the signature is not of diabetes version 2 with these files"),
)
def a_signature_is_that_of_another_version(home: Home) -> None:
    set_tag(home, "2", SIGNATURE_TAG, registration(home, "1").tags[SIGNATURE_TAG])


@fault((3, "version 3", "tag release.data_fingerprint of version 3 was removed"))
def a_data_fingerprint_tag_is_removed(home: Home) -> None:
    registry(home).delete_model_version_tag(MODEL, "3", "release.data_fingerprint")


@fault((14, "version 2", "the certificate of version 2 for its move to production is absent or wrong"))
def a_certificate_is_removed(home: Home) -> None:
    registry(home).delete_model_version_tag(MODEL, "2", f"{CERTIFICATE_TAG}production")


@fault((14, "version 2", "the certificate of version 2 for its move to production is absent or wrong"))
def a_certificate_is_forged_with_a_key_that_is_not_trusted(home: Home) -> None:
    row = home.services.store.ledger(MODEL)[5]
    set_tag(home, "2", f"{CERTIFICATE_TAG}production", Signer(new_key()).sign(certificate_of(row).to_statement()))


@fault((14, "registered model", "is not marked as a model of the platform in the registry: no server looks for it"))
def the_mark_of_the_platform_is_taken_off_the_model(home: Home) -> None:
    registry(home).delete_registered_model_tag(MODEL, "release.platform")


@fault((14, "alias previous", "is absent, the head says version 1"), (4, "version 1", "was deleted from the registry"))
def a_version_is_deleted(home: Home) -> None:
    registry(home).delete_model_version(MODEL, "1")


@fault(
    (14, "alias staging", "is absent, the head says version 3"),
    (14, "alias production", "is absent, the head says version 2"),
    (14, "alias previous", "is absent, the head says version 1"),
    (4, "version 1", "was deleted from the registry"),
    (4, "version 2", "was deleted from the registry"),
    (4, "version 3", "was deleted from the registry"),
    (14, "version 3", "the certificate of version 3 for its move to staging is absent or wrong"),
    (14, "version 2", "the certificate of version 2 for its move to production is absent or wrong"),
)
def the_model_is_deleted_from_the_registry(home: Home) -> None:
    registry(home).delete_registered_model(MODEL)


@fault((LINEAGE, "version 4", "was registered by hand, but the release store does not know it"))
def a_version_is_registered_by_hand(home: Home) -> None:
    registry(home).create_model_version(MODEL, source=str(file_of(home, "2").parent))


@fault((LINEAGE, "version 4", "was registered by the platform, but the release store does not know it"))
def a_version_with_the_platforms_tags_is_nobodys(home: Home) -> None:
    tags = dict(registry(home).get_model_version(MODEL, "2").tags)
    registry(home).create_model_version(MODEL, source=str(file_of(home, "2").parent), tags=tags)


@fault(
    (14, "version 3", "the certificate of version 3 for its move to staging is absent or wrong"),
    (14, "version 2", "the certificate of version 2 for its move to production is absent or wrong"),
    (14, "version 1", "the certificate of version 1 for its move to staging is absent or wrong"),
    (14, "version 1", "the certificate of version 1 for its move to production is absent or wrong"),
    (14, "version 2", "the certificate of version 2 for its move to staging is absent or wrong"),
    (3, "version 1", "it was signed by the key ID, which is not trusted here"),
    (3, "version 2", "it was signed by the key ID, which is not trusted here"),
    (3, "version 3", "it was signed by the key ID, which is not trusted here"),
)
def a_signing_key_is_trusted_no_more(home: Home) -> None:
    (path,) = (home.folder / "keys" / "trusted").iterdir()
    path.unlink()


@fault(
    (
        9,
        "records",
        "the trusted key ID.pem is not a usable key",
    )
)
def a_trusted_key_is_no_key(home: Home) -> None:
    (path,) = (home.folder / "keys" / "trusted").iterdir()
    path.write_text("-----BEGIN PUBLIC KEY-----")


@fault(
    (3, "version 1", "tag release.manifest of version 1 was edited"),
    (3, "version 2", "tag release.signature of version 2 was edited"),
    (3, "version 3", "tag release.signature of version 3 was edited"),
    (3, "version 2", "the signature cannot be read (ValueError)"),
    (3, "version 3", "it was signed by the key [], which is not trusted here"),
    (3, "version 1", "its manifest does not match its digest, so one of the two tags was edited"),
)
def a_signature_and_a_manifest_are_made_to_choke_on(home: Home) -> None:
    set_tag(home, "2", SIGNATURE_TAG, "[" * 4000)
    set_tag(home, "3", SIGNATURE_TAG, json.dumps(_hint_that_is_a_list(home)))
    set_tag(home, "1", "release.manifest", "[" * 4000)


def _hint_that_is_a_list(home: Home) -> dict[str, object]:
    bundle = json.loads(registration(home, "3").tags[SIGNATURE_TAG])
    return {**bundle, "verificationMaterial": {"publicKey": {"hint": []}}}


# Objects


@fault((4, "version 1", "the file model.onnx is gone from the artefact storage"))
def an_object_is_missing(home: Home) -> None:
    file_of(home, "1").unlink()


@fault((4, "version 2", "model.onnx was changed: its digest is not the registered one"))
def an_object_is_changed_and_has_its_size(home: Home) -> None:
    path = file_of(home, "2")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@fault((4, "version 3", "model.skops has N bytes in the artefact storage, not N"))
def an_object_is_truncated(home: Home) -> None:
    path = file_of(home, "3", "model.skops")
    path.write_bytes(path.read_bytes()[:-10])


@fault((4, "version 1", "the file MLmodel is gone from the artefact storage"))
def all_objects_of_a_version_are_missing(home: Home) -> None:
    shutil.rmtree(file_of(home, "1").parent)


@fault((4, "version 1", "MLmodel was changed: its digest is not the registered one"))
def a_version_points_to_the_files_of_another(home: Home) -> None:
    one, two = (registry(home).get_model_version_download_uri(MODEL, version) for version in ("1", "2"))
    mlflow_sql(home, f"UPDATE model_versions SET storage_location = '{two}' WHERE storage_location = '{one}'")


@fault((4, "version 1", "its files have an address that leads nowhere: nowhere://x"))
def a_version_points_nowhere(home: Home) -> None:
    one = registry(home).get_model_version_download_uri(MODEL, "1")
    mlflow_sql(home, f"UPDATE model_versions SET storage_location = 'nowhere://x' WHERE storage_location = '{one}'")


# Runs and data


@fault((LINEAGE, "version 2", "its MLflow run ID was deleted"))
def an_mlflow_run_is_deleted(home: Home) -> None:
    registry(home).delete_run(registration(home, "2").mlflow_run_id)


@fault((LINEAGE, "version 1", "its MLflow run ID is gone"))
def an_mlflow_run_is_gone_for_good(home: Home) -> None:
    mlflow_sql(home, f"DELETE FROM runs WHERE run_uuid = '{registration(home, '1').mlflow_run_id}'")


@fault((LINEAGE, "version 2", "its MLflow run ID has the tag release.version = 3 instead of 2"))
def an_mlflow_runs_tag_is_edited(home: Home) -> None:
    registry(home).set_tag(registration(home, "2").mlflow_run_id, "release.version", "3")


@fault((LINEAGE, "version 2", "its MLflow run names no data"))
def an_mlflow_run_names_no_data_any_more(home: Home) -> None:
    registry(home).delete_tag(registration(home, "2").mlflow_run_id, "release.snapshots")


@fault((LINEAGE, "version 2", "its data: the snapshots that its MLflow run names are other data"))
def an_mlflow_run_names_other_data(home: Home) -> None:
    features = next(p for p in (home.folder / "snapshots").glob("*.parquet") if p != snapshot_of(home, "2"))
    tag = json.dumps({"all": str(features)})
    registry(home).set_tag(registration(home, "2").mlflow_run_id, "release.snapshots", tag)


@fault(
    (LINEAGE, "version 1", "its data: HOME/snapshots/ID.parquet is gone"),
    (LINEAGE, "version 2", "its data: HOME/snapshots/ID.parquet is gone"),
    (LINEAGE, "version 3", "its data: HOME/snapshots/ID.parquet is gone"),
)
def a_snapshot_is_missing(home: Home) -> None:
    snapshot_of(home, "3").unlink()


@fault(
    (LINEAGE, "version 1", "its data: HOME/snapshots/ID.parquet does not hold the bytes that were written"),
    (LINEAGE, "version 2", "its data: HOME/snapshots/ID.parquet does not hold the bytes that were written"),
    (LINEAGE, "version 3", "its data: HOME/snapshots/ID.parquet does not hold the bytes that were written"),
)
def a_snapshot_is_changed(home: Home) -> None:
    path = snapshot_of(home, "3")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@fault(
    (LINEAGE, "version 1", "its data: HOME/snapshots/ID.parquet is gone"),
    (LINEAGE, "version 2", "its data: HOME/snapshots/ID.parquet is gone"),
    (LINEAGE, "version 3", "its data: HOME/snapshots/ID.parquet is gone"),
)
def a_snapshots_record_is_missing(home: Home) -> None:
    snapshot_of(home, "3").with_suffix(".json").unlink()


@fault(
    (LINEAGE, "version 2", "its Dagster run ID is gone"),
    (LINEAGE, "version 2", "no materialization of registered_version in Dagster has this version and digest"),
)
def a_dagster_run_is_deleted(home: Home) -> None:
    home.instance.delete_run(registration(home, "2").dagster_run_id)


@fault(
    (LINEAGE, "version 1", "no materialization of registered_version in Dagster has this version and digest"),
    (LINEAGE, "version 2", "no materialization of registered_version in Dagster has this version and digest"),
    (LINEAGE, "version 3", "no materialization of registered_version in Dagster has this version and digest"),
)
def materializations_of_registered_version_are_wiped(home: Home) -> None:
    home.instance.wipe_assets([asset_key(MODEL, "registered_version")])


@fault((LINEAGE, "production_version", "Dagster does not show the move to version 2, epoch 6"))
def materializations_of_production_version_are_wiped(home: Home) -> None:
    home.instance.wipe_assets([asset_key(MODEL, "production_version")])


@fault((5, "production_version", "Dagster shows a move to version 3 (epoch 8) that the ledger does not know"))
def a_move_that_never_was_is_shown_in_dagster(home: Home) -> None:
    report(home, "production_version", version="3", digest=registration(home, "3").digest, epoch=8, ledger_hash="x")


@fault((5, "production_version", "Dagster shows a move to version 3 (epoch 6) that the ledger does not know"))
def a_move_is_shown_in_dagster_with_another_version(home: Home) -> None:
    row = home.services.store.ledger(MODEL)[5]
    report(home, "production_version", version="3", digest=row.digest, epoch=6, ledger_hash=row.hash)


@fault((5, "production_version", "Dagster shows a move to version None (epoch None) that the ledger does not know"))
def production_version_is_materialized_by_hand(home: Home) -> None:
    report(home, "production_version")


@fault((LINEAGE, "registered_version", "Dagster shows version 9 (sha256:9), which the release store does not know"))
def a_version_that_was_never_registered_is_shown_in_dagster(home: Home) -> None:
    report(home, "registered_version", version="9", digest="sha256:9")


@fault((LINEAGE, "version 2", "its MLflow run ID has the tag dagster_run_id = ID instead of None"))
def the_claim_of_an_mlflow_run_is_deleted(home: Home) -> None:
    store_sql(home, f"DELETE FROM tracked_runs WHERE mlflow_run_id = '{registration(home, '2').mlflow_run_id}'")
