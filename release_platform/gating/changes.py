"""What differs from a registered version, of the working tree's model or a later version: data, code, YAML keys."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from release_platform.domain.errors import IntegrityError, NotFound, SpecError
from release_platform.domain.judged import Changes, key_changes
from release_platform.domain.records import RawData
from release_platform.domain.snapshot import Snapshot
from release_platform.pipeline.causes import code_differences
from release_platform.pipeline.environment import file_digests, git_state
from release_platform.pipeline.ingest import data_differences
from release_platform.project import SPEC, Project, parse_spec
from release_platform.services import Services

NO_CHANGES_KNOWN = Changes()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a model is made from: data by partition, short digests of its code by file, the commit, the YAML's keys."""

    data: Mapping[str, Snapshot]
    code: Mapping[str, str]
    commit: str
    attributes: Mapping[str, Any]


def changes_since(services: Services, project: Project, version: str, raw: RawData) -> Changes:
    """Returns what differs from a registered version.

    Args:
        services: The outside systems.
        project: The model as it is now.
        version: The version.
        raw: The raw data as it is now.
    """
    now = _Made(
        data=raw.snapshots,
        code=file_digests(project.folder),
        commit=git_state(project.folder)["git_commit"],
        attributes=project.attributes,
    )
    return _changes(_recorded(services, project, version), now)


def changes_between(services: Services, project: Project, before: str, after: str) -> Changes:
    """Returns what differs between two registered versions; nothing is known where a record of one is gone."""
    try:
        return _changes(_recorded(services, project, before), _recorded(services, project, after))
    except (NotFound, IntegrityError):
        return NO_CHANGES_KNOWN


def _recorded(services: Services, project: Project, version: str) -> _Made:
    run_id = services.registry.get_version(project.spec.name, version).run_id
    return _Made(
        data={key: services.snapshots.get(uri) for key, uri in services.tracking.snapshots_of(run_id).items()},
        code=services.tracking.code_of(run_id),
        commit=services.tracking.environment_of(run_id).get("git_commit", ""),
        attributes=recorded_attributes(services, project, version),
    )


def _changes(then: _Made, now: _Made) -> Changes:
    return Changes(
        data=data_changes(then.data, now.data),
        code=code_differences(then.code, now.code, commits=(then.commit, now.commit)),
        parameters=key_changes(then.attributes, now.attributes),
    )


def data_changes(before: Mapping[str, Snapshot], after: Mapping[str, Snapshot]) -> tuple[str, ...]:
    """Returns a sentence for each difference of two sets of snapshots, by partition where there are several."""
    said = [f"partition {key}: gone" for key in sorted(before.keys() - after.keys())]
    said += [f"partition {key}: new" for key in sorted(after.keys() - before.keys())]
    for key in sorted(before.keys() & after.keys()):
        where = f"partition {key}: " if len(after) > 1 else ""
        said += [where + sentence for sentence in data_differences(before[key], after[key])]
    return tuple(said)


def recorded_attributes(services: Services, project: Project, version: str) -> Mapping[str, Any]:
    """Returns the keys of the YAML that a version was made from, as a JSON value."""
    record = services.registry.get_version(project.spec.name, version)
    described: dict[str, Any] = json.loads(services.registry.read_file(record, "release.json")).get("spec") or {}
    try:  # so that keys that came later have their defaults
        found: dict[str, Any] = SPEC.dump_python(parse_spec(described, file=project.folder), mode="json")
    except SpecError:  # a key that is no more
        return described
    return found
