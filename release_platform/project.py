"""A model's project: its spec, and the folder that its `defs.yaml` and its own Python files are in."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from release_platform.domain.errors import Refused, SpecError
from release_platform.domain.identity import digest_of
from release_platform.domain.spec import ModelSpec

SPEC: TypeAdapter[ModelSpec] = TypeAdapter(ModelSpec)


@dataclass(frozen=True, kw_only=True)
class Project:
    """One model as its team wrote it."""

    spec: ModelSpec
    folder: Path

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The spec as a JSON value, defaults filled in."""
        value: dict[str, Any] = SPEC.dump_python(self.spec, mode="json")
        return value

    def months(self, named: str | None, now: datetime) -> tuple[str, ...] | None:
        """Returns the partitions that `A:B` names, both ends included; None for a model without partitions.

        Args:
            named: Two partitions, one of them, or None for all.
            now: The present moment: a month is a partition as soon as it is over.

        Raises:
            Refused: There are none, or they are not named in order.
        """
        if self.spec.partitions is None:
            if named is not None:
                raise Refused(f"{self.spec.name} has no partitions", remedy="leave out --partitions")
            return None
        keys = self.spec.partitions.keys_at(now)
        if not keys:
            raise Refused(
                f"{self.spec.name}: no month of its partitions is over yet, the first is {self.spec.partitions.start}",
                remedy="wait until it is over, or give an earlier `start` in the defs.yaml",
            )
        first, _, last = (named or f"{keys[0]}:{keys[-1]}").partition(":")
        for key in (first, last or first):
            if key not in keys:
                raise Refused(
                    f"{self.spec.name} has no partition '{key}'", remedy=f"choose from {keys[0]} to {keys[-1]}"
                )
        if keys.index(first) > keys.index(last or first):
            raise Refused(f"{first} is after {last}", remedy=f"give the first partition first: {last}:{first}")
        return keys[keys.index(first) : keys.index(last or first) + 1]

    def digest_of_parts(self, *names: str) -> str:
        """Returns the digest of some attributes of the spec."""
        return digest_of({name: self.attributes[name] for name in names})


class _Loader(yaml.SafeLoader):
    """Leaves moments as text, as Dagster's own loader does, and refuses a key that stands twice in one mapping.

    YAML forbids it and PyYAML keeps the last: a second `gates` would drop the first without a word.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_spec(attributes: Mapping[str, Any], *, file: Path) -> ModelSpec:
    """Returns the spec that the attributes of a `defs.yaml` describe.

    Raises:
        SpecError: They are wrong; names file, field and remedy, each wrong field on a line of its own.
    """
    try:
        return SPEC.validate_python(attributes)
    except ValidationError as error:
        found = [_explained(detail) for detail in error.errors(include_url=False)]
    first_field = found[0][0]
    if len(found) == 1:
        raise SpecError(
            found[0][1],
            remedy="correct it in the defs.yaml; docs/model-yaml.md describes every key",
            file=str(file),
            field=first_field,
        ) from None
    listed = "\n".join(f"  - {field}: {problem}" for field, problem in found)
    raise SpecError(
        f"{len(found)} fields are wrong:\n{listed}",
        remedy="correct them in the defs.yaml; docs/model-yaml.md describes every key",
        file=str(file),
    ) from None


def read_projects(*folders: Path) -> tuple[dict[str, Project], dict[str, SpecError]]:
    """Returns the models whose `defs.yaml` is right, by name, and the error of each folder whose is wrong.

    A wrong file keeps no other model from being looked at or rolled back; Dagster's code location loads all or none.
    """
    projects: dict[str, Project] = {}
    wrong: dict[str, SpecError] = {}
    for file in sorted(path for folder in folders for path in folder.glob("*/defs.yaml")):
        try:
            for described in read_documents(file):
                spec = parse_spec(described["attributes"], file=file)
                projects[spec.name] = Project(spec=spec, folder=file.parent)
        except SpecError as error:
            wrong[file.parent.name] = error
        except (KeyError, TypeError) as error:
            wrong[file.parent.name] = _unreadable(file, error)
    return projects, wrong


def read_documents(file: Path) -> list[Any]:
    """Returns the YAML documents of a file.

    Raises:
        SpecError: It cannot be read, is no YAML, or names a key twice.
    """
    try:
        return list(yaml.load_all(file.read_text(encoding="utf-8"), _Loader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> SpecError:
    return SpecError(
        f"cannot be read: {error}", remedy="correct the YAML; docs/model-yaml.md shows one", file=str(file)
    )


def _explained(detail: ErrorDetails) -> tuple[str, str]:
    place = [str(part) for part in detail["loc"] if str(part) not in {"str", "DerivedSpec", "int", "bool"}]
    field = ".".join(place) or "attributes"
    match detail["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            near = difflib.get_close_matches(place[-1], [f.name for f in fields(ModelSpec)], n=1, cutoff=0.6)
            return field, "there is no such key" + (f"; did you mean '{near[0]}'?" if near and len(place) == 1 else "")
        case "missing":
            return field, "is missing"
        case "value_error":
            return field, str(detail["ctx"]["error"])
        case "string_type" if isinstance(detail["input"], int | float):
            return field, f"should be text, but YAML reads it as {detail['input']!r}: put it in quotes"
        case _:
            return field, f"{detail['msg']} (found {detail['input']!r:.60})"
