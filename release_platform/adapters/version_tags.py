"""What the tags of a registered version say, by whatever way they were read: its digest and its manifest."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from release_platform.adapters.strict_json import read_json
from release_platform.domain.errors import IntegrityError, NotFound
from release_platform.domain.identity import Manifest
from release_platform.domain.ports import VersionRecord

DIGEST_TAG = "release.digest"
MANIFEST_TAG = "release.manifest"
KEY_TAG = "release.key"
PLATFORM_TAG = "release.platform"


def manifest_tags(manifest: Manifest) -> dict[str, str]:
    """Returns the tags in which a version carries its manifest."""
    return {
        DIGEST_TAG: manifest.digest,
        MANIFEST_TAG: json.dumps(manifest.to_json(), separators=(",", ":")),
    }


def find_manifest(tags: Mapping[str, str]) -> Manifest | None:
    """Returns the manifest among the tags of a version, if it is there and hashes to the digest beside it."""
    try:
        manifest = Manifest.from_json(read_json(tags[MANIFEST_TAG]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return manifest if manifest.digest == tags.get(DIGEST_TAG) else None


def record_of(
    *, model: str, version: str, run_id: str | None, tags: Mapping[str, str], created_ms: int
) -> VersionRecord:
    """Returns the record of a version from what MLflow keeps of it.

    Args:
        model: The model's name.
        version: The version's number.
        run_id: The MLflow run that trained it, if it names one.
        tags: All its tags.
        created_ms: When it was registered, in milliseconds since 1970.

    Raises:
        IntegrityError: It was not registered by this platform, or one of the two tags was edited.
    """
    name = f"{model} version {version}"
    if DIGEST_TAG not in tags or MANIFEST_TAG not in tags:
        raise IntegrityError(
            f"{name} was not registered by this platform",
            remedy="only versions made by `release run` can be released",
        )
    manifest = find_manifest(tags)
    if manifest is None:
        raise IntegrityError(
            f"{name}: its manifest does not match its digest, so one of the two tags was edited",
            remedy="find out who edited it; register the model again",
        )
    return VersionRecord(
        model=model,
        version=version,
        digest=manifest.digest,
        manifest=manifest,
        run_id=run_id or "",
        tags=tags,
        created_at=datetime.fromtimestamp(created_ms / 1000, tz=UTC),
    )


def version_missing(model: str, version: str) -> NotFound:
    """Returns the failure that there is no version of that number, or that it is no number."""
    if version.isdigit():
        return NotFound(
            f"{model}: the registry has no version {version}", remedy=f"`release history {model}` lists its versions"
        )
    return NotFound(f"{model}: '{version}' is no version number", remedy=f"`release history {model}` lists them")
