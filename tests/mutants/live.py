"""Defects in serving, and in the verification of what is live."""

from tests.mutants.defect import Defect

_MODELS = "serving/models.py"
_REGISTRY = "serving/registry.py"
_PUSHES = "serving/pushes.py"
_VERIFICATION = "release_platform/domain/verification.py"
_PROTOCOLS = "release_platform/adapters/serving_protocols.py"
_BOUND_ROW = "release_platform/adapters/bound_row.py"
_OF_BOUND_ROW = "tests/unit/test_bound_row.py::"
_OF_MODELS = "tests/unit/test_serving_models.py::"
_OF_REGISTRY = "tests/unit/test_serving_registry.py::"
_OF_PUSHES = "tests/unit/test_serving_pushes.py::"
_OF_VERIFY = "tests/integration/test_serving_verify.py::"

DEFECTS = (
    Defect(
        name="verify compares no answers",
        file=_VERIFICATION,
        old="places = np.argwhere(bits[0] != bits[1])",
        new="places = np.argwhere(np.isnan(found))",
        tests=(
            f"{_OF_VERIFY}test_one_bit_in_one_protocol_is_found_and_nothing_else_is_blamed[csv]",
            f"{_OF_VERIFY}test_a_changed_preprocessing_step_is_found_by_its_numbers_though_the_server_names_the_right_digest",
        ),
    ),
    Defect(
        name="verify does not compare the digest",
        file=_VERIFICATION,
        old='names = {"model": self.model, "version": self.version, "digest": self.digest, "epoch": str(self.epoch)}',
        new='names = {"model": self.model, "version": self.version, "epoch": str(self.epoch)}',
        tests=(f"{_OF_VERIFY}test_other_bytes_under_the_same_number_are_found",),
    ),
    Defect(
        name="verify does not compare the epoch",
        file=_VERIFICATION,
        old='names = {"model": self.model, "version": self.version, "digest": self.digest, "epoch": str(self.epoch)}',
        new='names = {"model": self.model, "version": self.version, "digest": self.digest}',
        tests=(f"{_OF_VERIFY}test_another_epoch_is_found_though_version_and_digest_are_right",),
    ),
    Defect(
        name="verify asks one worker only",
        file="release_platform/adapters/live_verification.py",
        old="while not found or (unmet and len(found) < most):",
        new="while not found:",
        tests=(f"{_OF_VERIFY}test_a_worker_that_is_named_and_never_met_fails_the_verification",),
    ),
    Defect(
        name="verify does not ask in bytes",
        file=_PROTOCOLS,
        old="ask=_ask_v2_binary",
        new="ask=_ask_v2_json",
        tests=(f"{_OF_VERIFY}test_one_bit_in_one_protocol_is_found_and_nothing_else_is_blamed[v2 binary]",),
    ),
    Defect(
        name="the route table goes back to an earlier epoch",
        file=_MODELS,
        old="if live is not None and (loaded.epoch, loaded.origin is Origin.REGISTRY) < (\n"
        "        live.epoch,\n        live.origin is Origin.REGISTRY,\n    ):",
        new="if live is not None and loaded is live:",
        tests=(
            f"{_OF_MODELS}test_the_accepted_epoch_never_decreases_in_whatever_order_looks_and_pushes_settle",
            f"{_OF_MODELS}test_a_look_that_began_before_a_push_does_not_undo_it",
        ),
    ),
    Defect(
        name="a look takes any certified version, however old its move",
        file=_REGISTRY,
        old="if certificate.epoch >= accepted:",
        new="if certificate.epoch >= 0:",
        tests=(f"{_OF_REGISTRY}test_an_alias_that_was_moved_back_to_a_certified_version_is_not_followed",),
    ),
    Defect(
        name="a restart forgets the epoch that was accepted",
        file=_REGISTRY,
        old="return 0 if note is None else self.authorise(note.proof, note.manifest, model, note.version).epoch",
        new="return 0",
        tests=(
            f"{_OF_REGISTRY}test_the_epoch_does_not_decrease_over_a_restart_either",
            f"{_OF_PUSHES}test_the_fence_holds_over_a_restart[4-409]",
        ),
    ),
    Defect(
        name="a server that never served follows an alias that was moved back",
        file=_REGISTRY,
        old="if certificate.epoch < newest:",
        new="if newest < 0:",
        tests=(f"{_OF_REGISTRY}test_a_server_that_never_served_does_not_follow_an_alias_that_was_moved_back_either",),
    ),
    Defect(
        name="a push of an earlier move is accepted",
        file=_PUSHES,
        old="if certificate.epoch < accepted or (live is not None and certificate.epoch == accepted):",
        new="if certificate.epoch < 0:",
        tests=(f"{_OF_PUSHES}test_an_epoch_that_is_not_later_is_refused",),
    ),
    Defect(
        name="a certificate for Staging puts a version into Production",
        file="release_platform/adapters/trust.py",
        old="version=version, digest=manifest.digest, alias=alias)",
        new="version=version, digest=manifest.digest, alias=certificate.alias)",
        tests=(f"{_OF_PUSHES}test_a_certificate_that_proves_something_else_is_refused[alias]",),
    ),
    Defect(
        name="the golden rows are not asked before a version goes live",
        file=_REGISTRY,
        old="    check_golden(package)\n",
        new="",
        tests=(f"{_OF_REGISTRY}test_golden_answers_decide_whether_a_version_goes_live",),
    ),
    Defect(
        name="a version of another model answers",
        file=_REGISTRY,
        old="if package.model != model:",
        new="if not package.model:",
        tests=(f"{_OF_REGISTRY}test_a_version_of_another_model_is_refused",),
    ),
    Defect(
        name="a copy on disk is served whoever signed it",
        file=_REGISTRY,
        old="certificate = self.authorise(note.proof, note.manifest, model, note.version)\n            package",
        new="certificate = Certificate(\n"
        "                model=model, version=note.version, digest=note.manifest.digest, alias=ALIAS, epoch=1, "
        'ledger_hash=""\n'
        "            )\n            package",
        tests=(f"{_OF_REGISTRY}test_a_copy_on_disk_whose_key_is_trusted_no_more_is_not_served",),
    ),
    Defect(
        name="a file of any size is fetched",
        file="release_platform/adapters/stored_files.py",
        old="if size_bytes != entry.size_bytes:",
        new="if entry.path not in sizes:",
        tests=("tests/hostile/test_fetch.py::test_a_file_of_another_size_is_not_fetched[golden.json-one-byte-more]",),
    ),
    Defect(
        name="the memory of one answer is given away",
        file=_BOUND_ROW,
        old="return self._answer.copy()",
        new="return self._answer",
        tests=(f"{_OF_BOUND_ROW}test_each_row_has_the_bits_that_it_has_without[scaled]",),
    ),
    Defect(
        name="threads share the memory of one row",
        file=_BOUND_ROW,
        old="self._lock = Lock()",
        new="self._lock = __import__('threading').Semaphore(99)",
        tests=(f"{_OF_BOUND_ROW}test_rows_of_many_threads_are_not_mixed_up",),
    ),
)
