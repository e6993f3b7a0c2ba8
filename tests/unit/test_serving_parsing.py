"""JSON is read once, and whatever is open to two readings is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import DuplicateKey, MalformedBody
from serving.parsing import parse

_LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    _LEAVES | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.sampled_from(':"\\{},a é\n'), max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_VALUES, st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]))
def test_what_has_no_duplicate_key_is_read_as_the_standard_library_reads_it(value, ascii_only, separators):
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    assert parse(text.encode()) == json.loads(text)


@given(
    _VALUES, _VALUES, st.text(st.sampled_from(':"\\a é'), max_size=4), st.sampled_from(["@", '{"rows": [@]}', "[[@]]"])
)
def test_a_duplicate_key_is_found_wherever_it_stands(first, second, key, around):
    written, written_otherwise = json.dumps(key), json.dumps(key, ensure_ascii=False)
    twice = f"{{{written}: {json.dumps(first)}, {written_otherwise}:{json.dumps(second)}}}"
    with pytest.raises(DuplicateKey):
        parse(around.replace("@", twice).encode())


@pytest.mark.parametrize(
    ("body", "field", "row"),
    [
        (b'{"rows": [], "rows": []}', "rows", None),
        (b'{"rows": [{"a": 1}, {"a": 1, "a": 1}]}', "a", 1),
        (b'{"columns": {"a": [1], "a": [2]}}', "a", None),
        (b'{"a": 1, "\\u0061": 2}', "a", None),
        (b'{"a": "x:y", "a": 1}', "a", None),
        (b'{"a:": 1, "b": "\\u003a", "a:": 1}', "a:", None),
        (b'{"rows": [{"a": [{"deep": 1, "deep": 1}]}]}', "deep", None),
    ],
)
def test_a_duplicate_key_is_named_with_its_row(body, field, row):
    with pytest.raises(DuplicateKey) as caught:
        parse(body)
    assert (caught.value.field, caught.value.row) == (field, row)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"[1,]",
        b"{'a': 1}",
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 01}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"9" * 5_000,
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_what_is_no_json_is_refused(body):
    with pytest.raises(MalformedBody):
        parse(body)
