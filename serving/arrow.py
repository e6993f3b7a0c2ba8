"""Rows and predictions as Arrow IPC.

pyarrow is imported with the first such request, on a thread: it takes 30 MB and 0.2 s that no other request should pay.
A body is never trusted. Its messages are looked at first, only the columns that the model takes are decoded, and all of
them are validated before a value is read. What stands in the body once may be meant many times (a dictionary's texts,
the data behind string views), so the texts are counted before they are made.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.domain.features import Column, Inputs
from release_platform.domain.prediction import Predictions
from serving.arrow_messages import check_messages, stream_in_file
from serving.doors import JSON, Head
from serving.errors import InvalidInput, MalformedBody, WrongMediaType
from serving.forms import Form, check_count
from serving.limits import Limits
from serving.models import LoadedModel
from serving.route_keys import shared_key
from serving.routing import KEY_MEMBER

STREAM = b"application/vnd.apache.arrow.stream"
FILE = b"application/vnd.apache.arrow.file"
MEDIA_TYPES = frozenset({STREAM, FILE})

MOST_COLUMNS = 10_000
MOST_TEXT_BYTES = 16 * 1024**2
"""Most bytes of text in one request, each value counted as often as it is meant; more where the body is larger."""

_MOST_READINGS = 4
_NOTHING = np.empty(0)
_VIEW_WORDS = 4  # a string view is four 32-bit words, the first of which is the length


def is_ready(head: Head, media_type: bytes) -> bool:
    """Returns whether a request can be read and answered without an import first."""
    is_loaded = _find_pyarrow.cache_info().currsize > 0
    return is_loaded or not (media_type in MEDIA_TYPES or b"arrow" in head.get(b"accept", b"").lower())


def read_arrow(body: bytes, media_type: bytes, form: Form, limits: Limits) -> Inputs:
    """Returns the rows that an Arrow IPC stream or file holds, at least one.

    Raises:
        WrongMediaType: pyarrow is not installed.
        MalformedBody: It is not valid Arrow IPC.
        InvalidInput: It is not what the form takes.
    """
    _get_pyarrow()
    if KEY_MEMBER in form.names:
        return form.from_arrays(_read(body, media_type, form.names, limits), limits)
    given = _read(body, media_type, [*form.names, KEY_MEMBER], limits)
    if KEY_MEMBER in given:
        shared_key(given.pop(KEY_MEMBER).tolist())
    return form.from_arrays(given, limits)


def read_key(body: bytes, media_type: bytes, limits: Limits) -> str | None:
    """Returns the key that the rows of an Arrow IPC stream or file carry, or None. Raises as `read_arrow`."""
    return shared_key(_read(body, media_type, [KEY_MEMBER], limits).get(KEY_MEMBER, _NOTHING).tolist())


def _read(body: bytes, media_type: bytes, names: Sequence[str], limits: Limits) -> dict[str, Column]:
    pa = _get_pyarrow()
    try:
        view = stream_in_file(memoryview(body)) if media_type == FILE else memoryview(body)
        check_messages(pa.ipc.MessageReader.open_stream(view))
        return _columns(pa, view, names, limits)
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise MalformedBody(f"the body is not valid Arrow IPC: {error}") from None


def write_arrow(media_type: bytes, loaded: LoadedModel, predictions: Predictions, prediction_id: str) -> bytes:
    """Returns predictions as one record batch, named in its schema."""
    pa = _get_pyarrow()
    names = {"model": loaded.model, "version": loaded.version, "digest": loaded.digest, "epoch": str(loaded.epoch)}
    names |= {"engine": loaded.package.engine_name, "prediction_id": prediction_id}
    batch = as_batch(loaded, predictions).replace_schema_metadata(names)
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_file if media_type == FILE else pa.ipc.new_stream
    with new(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def as_batch(loaded: LoadedModel, predictions: Predictions) -> Any:
    """Returns predictions as one record batch: `prediction`, and a `probability_...` for each class."""
    pa = _get_pyarrow()
    columns = {"prediction": _labels(pa, predictions, loaded.package.classes)}
    if predictions.probabilities is not None:
        for label, values in zip(loaded.package.classes, predictions.probabilities.T, strict=True):
            columns[f"probability_{label}"] = pa.array(np.ascontiguousarray(values))
    return pa.record_batch(list(columns.values()), names=list(columns))


def wanted(head: Head, media_type: bytes) -> bytes | None:
    """Returns the Arrow type that an answer is to have; None for JSON.

    It is the first type of the header `Accept` that there is, else that of the request. JSON where there is no pyarrow.
    """
    accept = head.get(b"accept")
    if accept is not None and accept != b"*/*":
        for part in accept.lower().split(b","):
            name = part.partition(b";")[0].strip()
            if name == JSON:
                return None
            if name in MEDIA_TYPES:
                return name if _find_pyarrow() is not None else None
    return media_type if media_type in MEDIA_TYPES else None


@cache
def _find_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        return None
    return pyarrow


def _get_pyarrow() -> Any:
    found = _find_pyarrow()
    if found is None:
        raise WrongMediaType("this server does not read Arrow, because pyarrow is not installed; send application/json")
    return found


def _columns(pa: Any, stream: memoryview, names: Sequence[str], limits: Limits) -> dict[str, Column]:
    """Returns the columns that a form asks for; those that it does not know are there, but empty."""
    schema = pa.ipc.open_stream(stream).schema
    if len(schema) > MOST_COLUMNS:
        raise InvalidInput(f"{len(schema):,} columns are more than the {MOST_COLUMNS:,} of one request")
    given: dict[str, Column] = dict.fromkeys(schema.names, _NOTHING)
    if len(given) < len(schema):
        twice = next(name for name, n in Counter(schema.names).items() if n > 1)
        raise InvalidInput(f"there are two columns '{twice:.100}'; send each once", field=twice)
    known = frozenset(names)
    places = [place for place, name in enumerate(schema.names) if name in known]
    for place in places:
        _check_type(pa, schema.field(place))
    if places:  # where there are none, the form says what is missing; pyarrow would take it for all
        given |= _values(pa, stream, places, limits)
    return given


def _values(pa: Any, stream: memoryview, places: list[int], limits: Limits) -> dict[str, Column]:
    reader = pa.ipc.open_stream(stream, options=pa.ipc.IpcReadOptions(use_threads=False, included_fields=places))
    parts: dict[str, list[Column]] = {name: [] for name in reader.schema.names}
    n_rows, text_left = 0, max(MOST_TEXT_BYTES, len(stream))
    work_left = _MOST_READINGS * text_left
    for batch in reader:
        work_left -= _n_bytes_to_read(pa, batch)
        if work_left < 0:
            raise InvalidInput("the texts that rows or record batches share are too long; send fewer rows")
        batch.validate(full=True)
        if batch.num_rows == 0:
            continue
        check_count(n_rows + batch.num_rows, limits, "columns")
        for name, array in zip(parts, batch.columns, strict=True):
            text_left -= _n_text_bytes(pa, array)
            if text_left < 0:
                raise InvalidInput(f"the texts up to '{name:.100}' are too long; send fewer rows", field=name)
            parts[name].append(_decoded(pa, name, array, n_rows))
        n_rows += batch.num_rows
    return {name: np.concatenate(found) if found else _NOTHING for name, found in parts.items()}


def _check_type(pa: Any, field: Any) -> None:
    types = pa.types
    texts = [types.is_string, types.is_large_string, types.is_string_view]
    others = [types.is_integer, types.is_floating, types.is_boolean, types.is_timestamp, types.is_date, types.is_null]
    is_coded = types.is_dictionary(field.type)
    kind = field.type.value_type if is_coded else field.type
    if not any(test(kind) for test in (texts if is_coded else texts + others)):
        detail = f"the column '{field.name:.100}' is {field.type!s:.100}; send numbers, booleans, text or timestamps"
        raise InvalidInput(detail, field=field.name)


def _decoded(pa: Any, name: str, array: Any, first_row: int) -> Column:
    """Returns the values of an array that was validated, as `Form.from_arrays` takes them."""
    types = pa.types
    if types.is_dictionary(array.type):
        return _looked_up(array)
    if types.is_null(array.type):
        return np.full(len(array), None, dtype=object)
    values: Column = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "M":
        _check_years(name, values, first_row)
    return values


def _looked_up(array: Any) -> Column:
    texts = array.dictionary.to_numpy(zero_copy_only=False)
    there = array.is_valid().to_numpy(zero_copy_only=False)
    codes = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
    out = np.full(len(array), None, dtype=object)
    out[there] = texts[codes[there]]
    return out


def _check_years(name: str, values: Column, first_row: int) -> None:
    unit, _ = np.datetime_data(values.dtype)
    if unit == "ns":  # reaches from 1677 to 2262
        return
    first, end = (np.datetime64(day, "s").astype(f"M8[{unit}]") for day in ("0001-01-01", "9999-12-31T23:59:59"))
    outside = (values < first) | (values > end)
    if outside.any():
        row = first_row + int(np.argmax(outside))
        raise InvalidInput(f"row {row}, '{name}': is not in the years 1 to 9999", field=name, row=row)


def _n_text_bytes(pa: Any, array: Any) -> int:
    """Returns how long the texts of an array are together, each counted as often as it is meant."""
    if pa.types.is_dictionary(array.type):
        codes = array.indices.drop_null().to_numpy(zero_copy_only=False)
        return int(_lengths(pa, array.dictionary)[codes].sum())
    return int(_lengths(pa, array).sum())


def _n_bytes_to_read(pa: Any, batch: Any) -> int:
    """Returns how many bytes are read to validate a batch: dictionaries each time, the data of views for each view."""
    n_viewed = 0
    for array in batch.columns:
        values = array.dictionary if pa.types.is_dictionary(array.type) else array
        if pa.types.is_string_view(values.type):
            n_viewed += int(np.maximum(_lengths(pa, values), 0).sum())
    return n_viewed + int(batch.get_total_buffer_size())


def _lengths(pa: Any, array: Any) -> npt.NDArray[np.int64]:
    """Returns how long each text of an array is, in bytes; shape (n,), or (0,) where it holds no text."""
    _, *buffers = array.buffers()
    begin, end = array.offset, array.offset + len(array)
    if not len(array):
        return np.zeros(0, dtype=np.int64)
    if pa.types.is_string_view(array.type):
        lengths = np.frombuffer(buffers[0], dtype=np.int32)[::_VIEW_WORDS][begin:end].astype(np.int64)
        return np.where(array.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        width = np.int32 if pa.types.is_string(array.type) else np.int64
        ends = np.frombuffer(buffers[0], dtype=width)[begin : end + 1].astype(np.int64)
        return ends[1:] - ends[:-1]
    return np.zeros(0, dtype=np.int64)


def _labels(pa: Any, predictions: Predictions, classes: Sequence[Any]) -> Any:
    kinds = {type(label) for label in classes}
    if not classes or kinds in ({bool}, {int}):
        return pa.array(predictions.values.tolist())
    return pa.array([str(label) for label in predictions.values], pa.string())
