"""Values that an input of each type takes, and values that it does not."""

from random import Random

from release_platform.domain.features import ColumnType
from tests.fuzz.json_text import quoted

_NUMBERS = [
    "0",
    "-0",
    "-0.0",
    "0.0",
    "1",
    "-1",
    "1.5",
    "12.25e0",
    "1E2",
    "1e-2",
    "1e-999",
    "5e-324",
    "3.4028234663852886e38",
    "-1e30",
    "123456789012345678901234567890",
    "9007199254740993",
    "18446744073709551616",
    "0.1000000000000000055511151231257827021181583404541015625",
]
_WHOLE = [
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "2.0",
    "1e2",
    "7",
    "4",
    "9007199254740993",
    "-123456789012345678901234567890",
    "1E1",
]
_NOT_FINITE = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 309, "9" * 400, "9" * 5000]
_NO_NUMBER = ["true", "false", '"1"', '""', '"NaN"', "[1]", "[]", "{}", '{"a":1}', '"\\ud800"', "[[[[[[1]]]]]]"]
_TEXTS = [
    "",
    "c:0",
    "c:1",
    "a",
    "ß",
    "日本",
    "\U0001f600",
    "\x00",
    "a:b",
    '"',
    "\\",
    "null",
    "é" * 300,
    "{}",
    "<Missing>",
]
_NO_TEXT = [
    "1",
    "0.5",
    "true",
    "[]",
    '["a"]',
    "{}",
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"a\\udfff"',
    '"<missing>"',
    "NaN",
]
_TIMES = [
    "2013-01-01T05:15:00",
    "2013-01-01",
    "2013-01-01T05:15:00Z",
    "2013-01-01T05:15+02:00",
    "20130101T051500",
    "2013-W01-1",
    "2013-01-01T05:15:00.123456",
    "0001-01-01",
    "9999-12-31T23:59:59",
    "2012-02-29T23:59:59-11:30",
]
_NO_TIMES = [
    *(f'"{text}"' for text in ("", "yesterday", "2013-13-01", "2013-02-29", "2013-01-01T25:00:00", "1357000000")),
    '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"', '"2013-01-01T00:00:00\\u0000"', "5", "true", "[]",
    '"\\ud800"', "1e999",
]  # fmt: skip


def good_value(kind: ColumnType, nullable: bool, rng: Random) -> bytes:
    """Returns the text of a value that the input takes."""
    if nullable and rng.random() < 0.1:
        return b"null"
    match kind:
        case ColumnType.NUMBER:
            return (rng.choice(_NUMBERS) if rng.random() < 0.2 else repr(rng.uniform(-50, 50))).encode()
        case ColumnType.INTEGER:
            return (rng.choice(_WHOLE) if rng.random() < 0.3 else repr(rng.randrange(-5, 6))).encode()
        case ColumnType.BOOLEAN:
            return rng.choice((b"true", b"false"))
        case ColumnType.CATEGORY:
            return quoted(rng.choice(_TEXTS), rng)
        case ColumnType.TIMESTAMP:
            return quoted(rng.choice(_TIMES))


def bad_value(kind: ColumnType, nullable: bool, rng: Random) -> bytes:
    """Returns the text of a value that the input does not take; some are no JSON."""
    if not nullable and rng.random() < 0.1:
        return b"null"
    match kind:
        case ColumnType.NUMBER:
            return rng.choice(_NO_NUMBER + _NOT_FINITE).encode()
        case ColumnType.INTEGER:
            return rng.choice([*_NO_NUMBER, *_NOT_FINITE, "1.5", "-0.25", "2.5e-1"]).encode()
        case ColumnType.BOOLEAN:
            return rng.choice(["0", "1", "1.0", '"true"', '"false"', '""', "[]", "{}", "NaN", "1e999"]).encode()
        case ColumnType.CATEGORY:
            return rng.choice(_NO_TEXT).encode()
        case ColumnType.TIMESTAMP:
            return rng.choice(_NO_TIMES).encode()
