"""What OpenLineage 2-0-2 asks of a run event and of the facets that we write, as a check that names each breach."""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

Check = Callable[[Any], bool]
EVENT_TYPES = {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}
PREFIX = "https://openlineage.io/spec/"


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def is_uri(value: Any) -> bool:
    return is_text(value) and bool(re.fullmatch(r"[a-z][a-z0-9+.-]*", urlsplit(value).scheme)) and " " not in value


def is_moment(value: Any) -> bool:
    return is_text(value) and datetime.fromisoformat(value).tzinfo is not None


def is_uuid(value: Any) -> bool:
    return is_text(value) and str(uuid.UUID(value)) == value


def each(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def of(required: Mapping[str, Check], **optional: Check) -> Check:
    """Returns the check of an object with these fields and no other."""

    def check(value: Any) -> bool:
        known = {**optional, **required}
        return (
            isinstance(value, dict)
            and required.keys() <= value.keys() <= known.keys()
            and all(known[name](part) for name, part in value.items())
        )

    return check


def is_anything(value: Any) -> bool:
    return True


def is_column_metrics(value: Any) -> bool:
    column = of({}, nullCount=is_count, distinctCount=is_count)
    return isinstance(value, dict) and all(is_text(name) and column(metrics) for name, metrics in value.items())


JOB = of({"namespace": is_text, "name": is_text})
RUN_FACETS: dict[str, Check] = {
    "parent": of({"run": of({"runId": is_uuid}), "job": JOB}),
    "jobRunParameters": of({"parameters": each(of({"key": is_text}, value=is_anything))}),
}
JOB_FACETS: dict[str, Check] = {
    "jobType": of({"processingType": lambda v: v in {"BATCH", "STREAMING"}, "integration": is_text}, jobType=is_text)
}
DATASET_FACETS: dict[str, Check] = {
    "schema": of({"fields": each(of({"name": is_text}, type=is_text))}),
    "version": of({"datasetVersion": is_text}),
    "dataSource": of({}, name=is_text, uri=is_uri),
}
INPUT_FACETS: dict[str, Check] = {
    "dataQualityMetrics": of({"columnMetrics": is_column_metrics}, rowCount=is_count, bytes=is_count),
    "dataQualityAssertions": of(
        {"assertions": each(of({"assertion": is_text, "success": lambda v: isinstance(v, bool)}, column=is_text))}
    ),
}
OUTPUT_FACETS: dict[str, Check] = {"outputStatistics": of({}, rowCount=is_count, size=is_count)}


def breaches(event: Mapping[str, Any]) -> list[str]:
    """Returns a name for each place where an event is not what the specification asks for."""
    return list(_event(event))


def _event(event: Mapping[str, Any]) -> Iterator[str]:
    fields: dict[str, Check] = {
        "eventTime": is_moment,
        "eventType": lambda value: value in EVENT_TYPES,
        "producer": is_uri,
        "schemaURL": lambda value: value == f"{PREFIX}2-0-2/OpenLineage.json#/$defs/RunEvent",
    }
    yield from (name for name, check in fields.items() if not check(event.get(name)))
    yield from sorted(event.keys() - {*fields, "run", "job", "inputs", "outputs"})
    if not is_uuid(event["run"]["runId"]):
        yield "run.runId"
    if not JOB({name: event["job"].get(name) for name in ("namespace", "name")}):
        yield "job"
    yield from _facets("run", event["run"].get("facets", {}), RUN_FACETS)
    yield from _facets("job", event["job"].get("facets", {}), JOB_FACETS)
    for side, own in (("inputs", INPUT_FACETS), ("outputs", OUTPUT_FACETS)):
        for dataset in event[side]:
            yield from _dataset(dataset, side, own)


def _dataset(dataset: Mapping[str, Any], side: str, own: Mapping[str, Check]) -> Iterator[str]:
    facets = f"{side.removesuffix('s')}Facets"
    place = f"{side}.{dataset.get('name')}"
    if not (is_text(dataset.get("namespace")) and is_text(dataset.get("name"))):
        yield place
    yield from (f"{place}.{name}" for name in sorted(dataset.keys() - {"namespace", "name", "facets", facets}))
    yield from _facets(place, dataset.get("facets", {}), DATASET_FACETS)
    yield from _facets(place, dataset.get(facets, {}), own)


def _facets(place: str, facets: Mapping[str, Any], known: Mapping[str, Check]) -> Iterator[str]:
    for name, facet in facets.items():
        content = {field: value for field, value in facet.items() if field not in {"_producer", "_schemaURL"}}
        ours = name.startswith("release_")
        schema = r"2-0-2/OpenLineage\.json#/\$defs/\w+Facet" if ours else r"facets/\d-\d-\d/(\w+)\.json#/\$defs/\1"
        if not is_uri(facet.get("_producer")) or not re.fullmatch(re.escape(PREFIX) + schema, facet["_schemaURL"]):
            yield f"{place}.{name}: producer or schema"
        if not ours and (name not in known or not known[name](content)):
            yield f"{place}.{name}"


def unpaired(events: list[dict[str, Any]]) -> list[str]:
    """Returns the runs that have not one START and, not before it, one COMPLETE of the same job."""
    kinds: dict[str, list[tuple[str, str, str]]] = {}
    for event in events:
        seen = (event["eventType"], event["job"]["name"], event["eventTime"])
        kinds.setdefault(event["run"]["runId"], []).append(seen)
    return [
        run
        for run, seen in kinds.items()
        if [kind for kind, _, _ in seen] != ["START", "COMPLETE"]
        or seen[0][1] != seen[1][1]
        or datetime.fromisoformat(seen[0][2]) > datetime.fromisoformat(seen[1][2])
    ]
