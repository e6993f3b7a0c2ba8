"""What is asked of a version's files before they are fetched, by whatever way they come."""

from collections.abc import Mapping

from release_platform.adapters.package_files import check_manifest
from release_platform.domain.errors import IntegrityError
from release_platform.domain.identity import FileEntry, Manifest

_RESTORE = "restore it from a backup, or register the model again"


def check_files(manifest: Manifest, *, of: str) -> None:
    """Refuses a manifest that names what no package holds.

    Raises:
        IntegrityError: It does.
    """
    try:
        check_manifest(manifest)
    except ValueError as error:
        raise IntegrityError(
            f"{of}: {error}", remedy="find out who registered it; only packages of `release run` are loaded"
        ) from error


def check_sizes(manifest: Manifest, sizes: Mapping[str, int | None], *, of: str) -> None:
    """Refuses files that are stored with other sizes than the manifest says; a file without one is not judged.

    Args:
        manifest: The files.
        sizes: Bytes of what lies in the storage, by path; None for what has no size, such as a folder.
        of: Whose files they are.

    Raises:
        IntegrityError: One has another size.
    """
    for entry in manifest.files:
        size_bytes = sizes.get(entry.path, entry.size_bytes) or 0
        if size_bytes != entry.size_bytes:
            raise other_size(entry, size_bytes, of=of)


def other_size(entry: FileEntry, size_bytes: int, *, of: str) -> IntegrityError:
    """Returns the failure that a stored file has another size than the manifest says."""
    return IntegrityError(
        f"{of}: {entry.path} has {size_bytes:,} bytes in the artefact storage, not {entry.size_bytes:,}",
        remedy=_RESTORE,
    )


def file_gone(entry: FileEntry, *, of: str) -> IntegrityError:
    """Returns the failure that a file of the manifest is not stored any more."""
    return IntegrityError(f"{of}: the file {entry.path} is gone from the artefact storage", remedy=_RESTORE)


def leads_nowhere(uri: str, *, of: str) -> IntegrityError:
    """Returns the failure that the address of the files is none."""
    return IntegrityError(
        f"{of}: its files have an address that leads nowhere: {uri}",
        remedy="restore the registry from a backup, or register the model again",
    )
