"""Arrow bodies are read by column, or the field and row at fault are named; whatever they hold, nothing breaks."""

import itertools
import random
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from release_platform.domain.features import ColumnType, FeaturePlan, Input
from serving.arrow import FILE, STREAM, read_arrow, wanted
from serving.errors import InvalidInput, MalformedBody, RequestProblem
from serving.forms import Form
from serving.limits import Limits
from tests.fakes.packages import ONNX_INPUTS, build_onnx_classifier

ROOT = Path(__file__).parents[2]
PLAN = FeaturePlan(
    inputs=(
        Input(name="a", type=ColumnType.NUMBER, nullable=True),
        Input(name="n", type=ColumnType.INTEGER),
        Input(name="flag", type=ColumnType.BOOLEAN, nullable=True),
        Input(name="city", type=ColumnType.CATEGORY, nullable=True),
        Input(name="when", type=ColumnType.TIMESTAMP, nullable=True),
    ),
    derived=(),
    features=("a", "n", "flag", "city"),
)
WORDS = FeaturePlan(inputs=(Input(name="word", type=ColumnType.CATEGORY),), derived=(), features=("word",))
GOOD = {
    "a": pa.array([1.5, None, 3.0]),
    "n": pa.array([1, 2, 3], pa.int32()),
    "flag": pa.array([True, None, False]),
    "city": pa.array(["Bern", None, "Zürich"]),
    "when": pa.array([0, None, 86_400_000], pa.timestamp("ms")),
}


def body_of(table, *, file=False, chunk=2, **options):
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_file if file else pa.ipc.new_stream
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue().to_pybytes()


def read(body, media_type=STREAM, plan=PLAN, **limits):
    return read_arrow(body, media_type, Form(plan), Limits(**({"max_rows": 100} | limits)))


def read_with(*, file=False, **changed):
    return read(body_of(pa.table(GOOD | changed), file=file), FILE if file else STREAM)


@pytest.mark.parametrize("file", [False, True])
def test_a_stream_and_a_file_of_several_batches_are_read(file):
    inputs = read_with(file=file)
    np.testing.assert_array_equal(inputs["a"], [1.5, np.nan, 3.0])
    np.testing.assert_array_equal(inputs["n"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(inputs["flag"], [1.0, np.nan, 0.0])
    assert inputs["city"].tolist()[::2] == ["Bern", "Zürich"]
    assert np.isnat(inputs["when"]).tolist() == [False, True, False]
    assert str(inputs["when"][2]) == "1970-01-02T00:00:00.000000"


@pytest.mark.parametrize(
    "city",
    [
        GOOD["city"].dictionary_encode(),
        GOOD["city"].cast(pa.large_string()),
        GOOD["city"].cast(pa.string_view()),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, 2], pa.uint8()), pa.array([None, "Bern", "Zürich"])),
    ],
    ids=lambda array: str(array.type)[:40],
)
def test_every_way_to_hold_text_says_the_same(city):
    assert read_with(city=city)["city"].tolist() == read_with()["city"].tolist()


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a", pa.array([1, None, 3], pa.int8())),
        ("a", pa.array([1.5, None, 3.0], pa.float32())),
        ("a", pa.nulls(3)),
        ("n", pa.array([1.0, 2.0, 3.0])),
        ("n", pa.array([1, 2, 3], pa.uint64())),
        ("city", pa.nulls(3)),
        ("when", pa.array([0, None, 1], pa.date32())),
        ("when", pa.array([0, None, 1], pa.timestamp("ns", "Europe/Zurich"))),
        ("when", pa.array(["1970-01-01", None, "1970-01-02T00:00:00Z"])),
    ],
    ids=str,
)
def test_a_type_that_means_the_same_is_taken(name, array):
    assert len(read_with(**{name: array})[name]) == 3


@pytest.mark.parametrize(
    ("name", "array", "row"),
    [
        ("a", pa.array(["1", None, "3"]), 0),
        ("a", pa.array([True, False, True]), 0),
        ("a", pa.array([1.5, np.inf, 3.0]), 1),
        ("a", pa.array([[1.0], None, [2.0]]), None),
        ("a", pa.array([{"x": 1}, None, None]), None),
        ("a", pa.array([1, 2, 3], pa.decimal128(5)), None),
        ("n", pa.array([1, None, 3]), 1),
        ("n", pa.array([1.0, 2.0, 3.5]), 2),
        ("n", pa.nulls(3), 0),
        ("flag", pa.array([1, 0, 1]), 0),
        ("city", pa.array([b"x", None, b"y"]), None),
        ("city", pa.array([1.5, None, 2.5]), 0),
        ("city", pa.array([1, None, 2]).dictionary_encode(), None),
        ("city", pa.array(["x", "<missing>", "y"]), 1),
        ("when", pa.array([0, None, 1]), 0),
        ("when", pa.array([0, None, 2**62], pa.timestamp("s")), 2),
        ("when", pa.array(["yesterday", None, None]), 0),
    ],
    ids=lambda value: str(value).replace("\n", "")[:40],
)
def test_what_the_model_does_not_take_is_named(name, array, row):
    with pytest.raises(InvalidInput) as caught:
        read_with(**{name: array})
    assert (caught.value.field, caught.value.row) == (name, row)


def test_columns_are_named_as_in_json():
    for table, field in (
        (pa.table({name: GOOD[name] for name in list(GOOD)[1:]}), "a"),
        (pa.table(GOOD | {"more": pa.array([[1], [2], [3]])}), "more"),
        (pa.table({"nothing": [1]}), "nothing"),
        (pa.table([*GOOD.values(), GOOD["a"]], [*GOOD, "a"]), "a"),
    ):
        with pytest.raises(InvalidInput) as caught:
            read(body_of(table))
        assert caught.value.field == field
    assert set(read(body_of(pa.table(GOOD | {"more": pa.array([[1], [2], [3]])})), ignore_extra=True)) == set(GOOD)


def test_as_many_rows_as_allowed_are_taken_and_none_are_not():
    assert len(read(body_of(pa.table(GOOD)), max_rows=3)["a"]) == 3
    for table, limit in ((pa.table(GOOD), 2), (pa.table(GOOD).slice(0, 0), 2)):
        with pytest.raises(InvalidInput, match="rows"):
            read(body_of(table), max_rows=limit)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("coded", [False, True], ids=["batch", "dictionary"])
def test_compressed_buffers_are_refused_before_they_are_decompressed(compression, file, coded):
    words = pa.array(["x" * 1_000_000])
    table = pa.table({"word": words.dictionary_encode() if coded else words})
    assert len(read(body_of(table, file=file), FILE if file else STREAM, WORDS)["word"]) == 1
    with pytest.raises(InvalidInput, match="compressed"):
        read(body_of(table, file=file, compression=compression), FILE if file else STREAM, WORDS)


def test_what_a_few_bytes_mean_many_times_is_refused_at_once():
    long = pa.array(["x" * 1_000_000])
    coded = pa.DictionaryArray.from_arrays(pa.array([0] * 9_000, pa.int16()), long)
    view = long.cast(pa.string_view()).buffers()
    viewed = pa.Array.from_buffers(pa.string_view(), 9_000, [None, pa.py_buffer(bytes(view[1])[:16] * 9_000), view[2]])
    empty = pa.array([""] * 1_000_000)
    shared = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), empty)] * 500)
    for column in (coded, viewed, shared):
        body = body_of(pa.table({"word": column}), chunk=10_000)
        assert len(body) < 5_000_000
        begun = time.perf_counter()
        with pytest.raises(InvalidInput, match="too long"):
            read(body, plan=WORDS, max_rows=10_000)
        assert time.perf_counter() - begun < 5


def test_a_batch_of_two_thousand_million_nulls_is_too_many_rows():
    nulls = pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])
    with pytest.raises(InvalidInput, match="2,147,483,647 rows"):
        read(body_of(pa.table({"word": nulls}), chunk=None), plan=WORDS)


def test_very_many_batches_and_columns_are_refused():
    with pytest.raises(InvalidInput, match="Arrow messages"):
        read(body_of(pa.table({"word": ["x"] * 1_000}), chunk=1), plan=WORDS, max_rows=10_000)
    with pytest.raises(InvalidInput, match="columns are more"):
        read(body_of(pa.table({f"c{number}": [1] for number in range(10_001)})))


def test_big_endian_data_is_refused_rather_than_misread():
    body = body_of(pa.table({"word": ["x"]}))
    (n_header,) = struct.unpack_from("<i", body, 4)
    told = 0
    # Little-endian is said by leaving a field out: one of these bytes makes it be there, and some values make it 1.
    for at, value in itertools.product(range(8, 8 + n_header), range(4, 32)):
        try:
            read(bytes([*body[:at], value, *body[at + 1 :]]), plan=WORDS)
        except InvalidInput as problem:
            told += "big-endian" in problem.detail
        except MalformedBody:
            pass
    assert told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"{}",
        b"\xff" * 100,
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
        b"ARROW1\0\0" + b"\0" * 20,
        b"ARROW1\0\0" + b"\xff\xff\xff\x7f" + b"ARROW1",
        body_of(pa.table(GOOD))[:300],
    ],
    ids=lambda body: str(body[:16]),
)
@pytest.mark.parametrize("media_type", [STREAM, FILE])
def test_what_is_no_arrow_is_refused(body, media_type):
    with pytest.raises(MalformedBody):
        read(body, media_type)


@pytest.mark.parametrize("media_type", [STREAM, FILE])
def test_no_change_to_the_bytes_leads_to_anything_but_rows_or_a_problem_of_the_request(media_type):
    views = GOOD["city"].cast(pa.string_view())
    tables = [GOOD, GOOD | {"city": GOOD["city"].dictionary_encode()}, GOOD | {"city": views, "a": pa.nulls(3)}]
    bodies = [body_of(pa.table(columns), file=media_type == FILE) for columns in tables]
    dice = random.Random(4)
    seen = Counter()
    for number in range(6_000):
        body = bytearray(bodies[number % len(bodies)])
        for _ in range(dice.choice((1, 1, 2, 6))):
            place = dice.randrange(len(body))
            if dice.random() < 0.7:
                body[place] ^= 1 << dice.randrange(8)
            else:
                body[place : place + 4] = dice.choice((b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0", b""))
        try:
            inputs = read(bytes(body), media_type)
        except RequestProblem as problem:
            seen[problem.slug] += 1
        else:
            seen["rows"] += 1
            assert set(inputs) == set(GOOD)
            assert np.isfinite(inputs["n"]).all()
    assert min(seen["rows"], seen["malformed-body"], seen["invalid-input"]) > 10


@pytest.mark.parametrize(
    ("accept", "sent", "answer"),
    [
        (None, STREAM, STREAM),
        (None, b"application/json", None),
        (b"*/*", FILE, FILE),
        (b"application/json", STREAM, None),
        (b"text/html, Application/VND.apache.arrow.file;q=0.5, */*", b"application/json", FILE),
        (b"text/html", STREAM, STREAM),
    ],
)
def test_the_answer_has_the_type_that_is_accepted_or_else_that_was_sent(accept, sent, answer):
    head = {} if accept is None else {b"accept": accept}
    assert wanted(head, sent) == answer


WITHOUT = """
import sys
import serving.app
from serving import arrow
from serving.doors import Head
from serving.errors import WrongMediaType
from serving.limits import Limits
assert "pyarrow" not in sys.modules, "it is imported before anybody asks for it"
sys.modules["pyarrow"] = None
assert arrow.wanted({b"accept": arrow.STREAM}, b"application/json") is None
try:
    arrow.read_arrow(b"", arrow.STREAM, None, Limits())
except WrongMediaType as problem:
    assert problem.status == 415 and "pyarrow is not installed" in problem.detail
else:
    raise SystemExit("it was read")
"""


def test_a_server_without_pyarrow_says_so():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


FIRST = """
import sys
import threading
from pathlib import Path

import httpx

from tests.fakes.registry import FakeRegistry
from tests.fakes.server import running, settings_for, until


def watch(frame, event, _):
    if event == "call" and frame.f_code.co_name == "_find_pyarrow":
        print(threading.current_thread().name)


threading.setprofile(watch)
package, cache = map(Path, sys.argv[1:])
registry = FakeRegistry({("cancer", "1"): package}, aliases={("cancer", "production"): "1"})
with running(settings_for(cache), registry) as url:
    until(lambda: httpx.get(f"{url}/readyz").is_success)
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    answer = httpx.post(f"{url}/v1/models/cancer/predict", content=sys.stdin.buffer.read(), headers=headers)
    assert answer.status_code == 200, answer.text
"""


def test_the_first_request_in_arrow_holds_up_no_other(tmp_path):
    package = build_onnx_classifier(tmp_path / "package")
    body = body_of(pa.table({name: [1.5] for name in ONNX_INPUTS}))
    command = [sys.executable, "-c", FIRST, str(package), str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=ROOT, input=body, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"engine"), "it was imported on the event loop"
