"""Defects in moving versions, in what the registry shows of it, and in the audit."""

from tests.mutants.defect import Defect

_RELEASES = "release_platform/releases.py"
_PROJECTION = "release_platform/projection.py"
_OF_RELEASES = "tests/integration/test_releases.py::"

DEFECTS = (
    Defect(
        name="a promotion takes the epoch of its commit, not that of its decision",
        file=_RELEASES,
        old="expected_epoch=facts.head.epoch,",
        new="expected_epoch=(self.check_ready(facts), self.store.head(request.model).epoch)[1],",
        tests=(f"{_OF_RELEASES}test_a_promotion_that_was_decided_before_another_one_is_told_so",),
    ),
    Defect(
        name="the signature is not checked before a promotion",
        file=_RELEASES,
        old="check_version_statement(statement, record.manifest, model=record.model, version=record.version)",
        new="assert statement",
        tests=(f"{_OF_RELEASES}test_a_version_with_the_signature_of_another_is_not_promoted",),
    ),
    Defect(
        name="the files are not checked before a promotion",
        file=_RELEASES,
        old="load_package(Path(folder), record.manifest)",
        new="assert any(Path(folder).iterdir())",
        tests=(f"{_OF_RELEASES}test_a_version_whose_files_were_changed_is_not_promoted",),
    ),
    Defect(
        name="a rollback fails while the registry is down",
        file=_RELEASES,
        old="except Unavailable:  # committed",
        new="except NotFound:  # committed",
        tests=(f"{_OF_RELEASES}test_a_rollback_commits_while_the_registry_is_down_and_the_aliases_follow",),
    ),
    Defect(
        name="no server is told of a rollback",
        file=_RELEASES,
        old="self._deliver(model, tell)  # before the registry, which may take its time to not answer",
        new="tell(model)",
        tests=("tests/integration/test_delivery.py::test_every_move_of_production_is_pushed_with_its_proof",),
    ),
    Defect(
        name="a projection does not look at the head again: a slow one wins",
        file=_PROJECTION,
        old="if self._store.head(model).epoch == head.epoch:\n                if not problems:",
        new="if head.epoch >= 0:\n                if not problems:",
        tests=(f"{_OF_RELEASES}test_a_slow_projection_of_an_older_head_does_not_win",),
    ),
    Defect(
        name="an alias moves before its certificate is written",
        file=_PROJECTION,
        old="                if alias is not Alias.PREVIOUS and version is not None:\n"
        "                    self._certify(moved[alias], shown)\n"
        "                if shown.aliases.get(alias) != version:\n",
        new="                self._registry.set_alias(head.model, alias, version)\n"
        "                if alias is not Alias.PREVIOUS and version is not None:\n"
        "                    self._certify(moved[alias], shown)\n",
        tests=(f"{_OF_RELEASES}test_an_alias_never_moves_before_its_certificate_is_there",),
    ),
    Defect(
        name="a change behind the platform's back is named and not undone",
        file=_PROJECTION,
        old="problems = self._mend(model, found) if found else ()",
        new="problems: tuple[str, ...] = ()",
        tests=(
            f"{_OF_RELEASES}test_an_alias_moved_behind_the_back_is_named_and_moved_back",
            f"{_OF_RELEASES}test_an_edited_tag_is_named_and_put_back",
        ),
    ),
    Defect(
        name="what a dead projection left is said to be moved by hand",
        file=_PROJECTION,
        old="if projections.under_way(model) or self._store",
        new="if self._store",
        tests=(
            f"{_OF_RELEASES}test_what_a_projection_left_that_died_is_put_right_and_not_named"
            "_also_where_changes_are_only_reported",
        ),
    ),
    Defect(
        name="a change is undone although the policy only reports",
        file=_PROJECTION,
        old="if not undo:",
        new="if not undo and not found:",
        tests=(f"{_OF_RELEASES}test_what_the_policy_only_reports_stays_as_it_is",),
    ),
    Defect(
        name="a missing certificate is not noticed",
        file=_PROJECTION,
        old="if self._certificate(row, shown) != certificate_of(row)]",
        new="if row is None]",
        tests=(f"{_OF_RELEASES}test_an_edited_certificate_is_signed_again",),
    ),
    Defect(
        name="an edited tag is not noticed",
        file="release_platform/domain/projection.py",
        old="if seen.get(name) != value",
        new="if name not in seen",
        tests=(f"{_OF_RELEASES}test_an_edited_tag_is_named_and_put_back",),
    ),
    Defect(
        name="the audit misses versions that nobody registered",
        file="release_platform/domain/invariants.py",
        old="if version not in registered:\n            whose",
        new="if version in store.removed and version not in registered:\n            whose",
        tests=(f"{_OF_RELEASES}test_a_deleted_version_that_a_rollback_may_need_breaks_an_invariant",),
    ),
)
