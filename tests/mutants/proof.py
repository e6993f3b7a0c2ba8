"""Defects in signatures, certificates, digests and the loading of files."""

from tests.mutants.defect import Defect

_ATTESTATION = "release_platform/domain/attestation.py"
_SIGNING = "release_platform/adapters/signing.py"
_TRUST = "release_platform/adapters/trust.py"
_FILES = "release_platform/adapters/package_files.py"
_FINGERPRINT = "release_platform/domain/fingerprint.py"
_IDENTITY = "release_platform/domain/identity.py"
_OF_SIGNING = "tests/unit/test_signing.py::"
_OF_PUSHES = "tests/unit/test_serving_pushes.py::"
_OF_FILES = "tests/unit/test_package_files.py::"
_OF_FINGERPRINT = "tests/unit/test_fingerprint.py::"

DEFECTS = (
    Defect(
        name="signatures are not verified",
        file=_SIGNING,
        old="if kind != PAYLOAD_TYPE or not _is_valid(key, signature, pae(payload)):",
        new="if kind != PAYLOAD_TYPE or not signature:",
        tests=(f"{_OF_SIGNING}test_every_flipped_bit_of_a_payload_or_signature_is_found",),
    ),
    Defect(
        name="a signature by a key that is not trusted is accepted",
        file=_SIGNING,
        old="        key = self._keys.get(str(hint))\n        if key is None:",
        new="        key = self._keys.get(str(hint))\n        if key is None and kind == PAYLOAD_TYPE:\n"
        "            return dict(read_json(payload))\n        if key is None:",
        tests=(
            f"{_OF_SIGNING}test_a_key_that_is_not_trusted_is_refused",
            f"{_OF_PUSHES}test_a_certificate_that_proves_something_else_is_refused[stranger]",
        ),
    ),
    Defect(
        name="a distrusted key stays trusted",
        file=_SIGNING,
        old='(self._trusted / f"{identity}.pem").unlink(missing_ok=True)',
        new='(self._trusted / f"{identity}.distrusted").touch()',
        tests=(f"{_OF_SIGNING}test_after_a_rotation_both_keys_are_trusted_until_the_old_one_is_not",),
    ),
    Defect(
        name="the certificate is not checked",
        file=_TRUST,
        old="check_certificate(certificate, model=model, version=version, digest=manifest.digest, alias=alias)",
        new="assert certificate",
        tests=(
            f"{_OF_PUSHES}test_a_certificate_that_proves_something_else_is_refused[alias]",
            f"{_OF_PUSHES}test_a_certificate_that_proves_something_else_is_refused[digest]",
        ),
    ),
    Defect(
        name="the signature of the version is not checked",
        file=_TRUST,
        old="        check_version_statement(keys.verify(proof.signature), manifest, model=model, version=version)\n",
        new="",
        tests=(f"{_OF_PUSHES}test_another_signature_or_manifest_than_the_versions_own_is_refused",),
    ),
    *(
        Defect(
            name=f"a certificate of another {field} is accepted",
            file=_ATTESTATION,
            old='wanted = {"model": model, "version": version, "digest": digest, "alias": alias}',
            new='wanted = {"model": model, "version": version, "digest": digest, "alias": alias}\n'
            f'    del wanted["{field}"]',
            tests=(f"{_OF_SIGNING}test_a_certificate_is_of_one_version_behind_one_alias",),
        )
        for field in ("model", "version", "alias")
    ),
    Defect(
        name="a statement of another version is accepted",
        file=_ATTESTATION,
        old='raise _refused(f"the signature is not of {model} version {version} with these files")',
        new='assert statement, f"the signature is not of {model} version {version} with these files"',
        tests=(f"{_OF_SIGNING}test_a_version_statement_is_of_one_version_and_its_files",),
    ),
    Defect(
        name="the digest of a file is not compared",
        file=_FILES,
        old="if len(data) != entry.size_bytes or hashlib.sha256(data).hexdigest() != entry.sha256:",
        new="if len(data) != entry.size_bytes:",
        tests=(f"{_OF_FILES}test_a_file_with_other_bytes_is_refused",),
    ),
    Defect(
        name="a file may have any size",
        file=_FILES,
        old="if entry.size_bytes > LIMITS[entry.path]:",
        new="if entry.size_bytes < 0:",
        tests=(f"{_OF_FILES}test_a_file_may_have_as_many_bytes_as_its_limit_and_no_more",),
    ),
    Defect(
        name="a file that is not in the manifest is overlooked",
        file=_FILES,
        old="if name not in listed:",
        new='if name not in listed and name.endswith(".pkl"):',
        tests=(f"{_OF_FILES}test_a_file_that_is_not_in_the_manifest_is_refused",),
    ),
    Defect(
        name="links are followed",
        file=_FILES,
        old="os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK",
        new="os.O_RDONLY | os.O_NONBLOCK",
        tests=(f"{_OF_FILES}test_a_link_to_the_same_bytes_is_refused[symbolic]",),
    ),
    Defect(
        name="a file that lies elsewhere too is read",
        file=_FILES,
        old="if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:",
        new="if not stat.S_ISREG(found.st_mode):",
        tests=(f"{_OF_FILES}test_a_link_to_the_same_bytes_is_refused[hard]",),
    ),
    Defect(
        name="a skops file may hold any type",
        file="release_platform/adapters/skops_archive.py",
        old="if not isinstance(loader, str) or kind not in TYPES.get(loader, ()):",
        new="if not isinstance(loader, str) or loader not in TYPES:",
        tests=("tests/unit/test_skops_archive.py::test_a_type_that_is_not_on_the_list_is_refused",),
    ),
    Defect(
        name="an estimator whose compiled code trusts its state is on the list",
        file="release_platform/adapters/skops_types.py",
        old='"sklearn.svm._classes": "LinearSVC LinearSVR",',
        new='"sklearn.svm._classes": "LinearSVC LinearSVR SVR",',
        tests=("tests/unit/test_skops_archive.py::test_a_type_that_is_not_on_the_list_is_refused[SVR]",),
    ),
    Defect(
        name="the fingerprint does not tell missing from zero",
        file=_FINGERPRINT,
        old="digest = hashlib.sha256(np.packbits(missing).tobytes())",
        new="digest = hashlib.sha256()",
        tests=(f"{_OF_FINGERPRINT}test_data_that_differs_has_another_fingerprint[missing and zero]",),
    ),
    Defect(
        name="the fingerprint does not cover the dtype",
        file=_FINGERPRINT,
        old="parts: list[object] = [self.name, self.dtype, self.n_missing, self.digest]",
        new="parts: list[object] = [self.name, self.n_missing, self.digest]",
        tests=(f"{_OF_FINGERPRINT}test_data_that_differs_has_another_fingerprint",),
    ),
    Defect(
        name="the fingerprint does not cover the order of rows",
        file=_FINGERPRINT,
        old="digest.update(_plain(column.values[start:stop], missing))",
        new="digest.update(_plain(np.sort(column.values[start:stop]), missing))",
        tests=(f"{_OF_FINGERPRINT}test_data_that_differs_has_another_fingerprint",),
    ),
    Defect(
        name="the canonical model digest does not cover arrays",
        file=_IDENTITY,
        old="        feed(np.ascontiguousarray(array).tobytes())",
        new="        feed(str(array.size).encode())",
        tests=("tests/unit/test_identity.py::test_the_same_training_gives_the_same_digest",),
    ),
    Defect(
        name="a manifest names files outside of its folder",
        file=_IDENTITY,
        old='if not _PLAIN_PATH.fullmatch(path) or any(set(part) == {"."} for part in path.split("/")):',
        new='if path.startswith("/"):',
        tests=("tests/unit/test_identity.py::test_a_manifest_holds_plain_relative_paths_only[../up]",),
    ),
    Defect(
        name="a version whose answers differ is reproduced",
        file="release_platform/pipeline/reproduction.py",
        old="return self.same_model and self.same_answers",
        new="return self.same_model",
        tests=("tests/unit/test_causes.py::test_the_same_model_with_other_answers_is_not_reproduced",),
    ),
)
