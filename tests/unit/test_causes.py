"""Why a model came out differently: what differs is named, what is equal is not, and nothing is made up."""

import json
import math
from dataclasses import replace

import pytest

from release_platform.defs.reproduction import said
from release_platform.pipeline.causes import all_compared, code_differences, surrounding_differences
from release_platform.pipeline.reproduction import Reproduction

THEN = {
    "git_commit": "a",
    "lock": "sha256:1",
    "version.numpy": "1.0",
    "native.blas": "openblas 0.3 Haswell 2",
    "cpus": "2",
}
FILES = {"pipeline/a.py": "1", "pipeline/b.py": "2"}


def test_changed_new_and_lost_files_are_named_with_the_commits() -> None:
    found = code_differences(FILES, {"pipeline/a.py": "9", "own/c.py": "3"}, commits=("a", "b"))
    assert found == (
        "code: own/c.py is new",
        "code: pipeline/a.py was changed",
        "code: pipeline/b.py is gone",
        "code: the commit was a, is b",
    )


def test_another_commit_of_the_same_files_is_no_cause() -> None:
    assert code_differences(FILES, FILES, commits=("a", "b")) == ()


def test_nothing_is_said_of_files_that_were_not_recorded() -> None:
    assert code_differences({}, FILES, commits=("a", "a")) == ()
    assert "no source files, since none were recorded" in all_compared(THEN, THEN, 0)


@pytest.mark.parametrize(
    ("name", "now", "sentence"),
    [
        ("lock", "sha256:2", "lock file was sha256:1, is sha256:2"),
        ("version.numpy", "2.0", "library numpy was 1.0, is 2.0"),
        ("native.blas", "openblas 0.3 SkylakeX 2", "BLAS core type was Haswell; it is SkylakeX"),
        ("native.blas", "openblas 0.4 Haswell 2", "BLAS was openblas 0.3 Haswell 2, is openblas 0.4 Haswell 2"),
        ("native.blas", "openblas 0.3 Haswell 9", "BLAS was openblas 0.3 Haswell 2, is openblas 0.3 Haswell 9"),
    ],
)
def test_what_differs_is_named_once(name: str, now: str, sentence: str) -> None:
    assert surrounding_differences(THEN, THEN | {name: now}, asked_core=None) == (sentence,)


def test_what_may_differ_or_was_not_recorded_is_no_cause() -> None:
    now = THEN | {"cpus": "64", "git_commit": "b", "version.new": "1"}
    assert surrounding_differences(THEN, now, asked_core=None) == ()


def test_a_core_type_that_was_asked_for_and_not_given_is_not_offered_here() -> None:
    now = THEN | {"native.blas": "openblas 0.3 Zen 2"}
    (sentence,) = surrounding_differences(THEN, now, asked_core="Haswell")
    assert sentence == "BLAS core type was Haswell, which this machine or its BLAS does not offer; it is Zen"


SAME = Reproduction(
    recorded="sha256:a", found="sha256:a", differences=(), compared=("BLAS",), n_golden_rows=50, answers_differ_by=0.0
)


def test_model_and_answers_are_told_each() -> None:
    assert said(SAME) == "the same fitted model sha256:a, the same answers to 50 golden rows"
    other = replace(SAME, found="sha256:b")
    assert said(other) == ("another fitted model, the same answers to 50 golden rows; cause not found: equal are BLAS")
    assert said(replace(other, differences=("x", "y"), answers_differ_by=0.5)) == (
        "another fitted model, answers to 50 golden rows differ by up to 0.5; what differs: x; y"
    )


@pytest.mark.parametrize("by", [1e-300, math.nan, math.inf])
def test_the_same_model_with_other_answers_is_not_reproduced(by: float) -> None:
    found = replace(SAME, answers_differ_by=by)
    assert not found.same
    assert not Reproduction.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))).same
