"""A snapshot: an immutable copy of the raw data, named by its content."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from release_platform.domain.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredData:
    """Where some data is and what its digest is: all that is needed to read it back and know that it is the same."""

    uri: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where a dataset is kept, and what it holds.

    Attributes:
        uri: Path or `s3://` address of the stored Parquet file.
        fingerprint: The fingerprint of its full content.
        n_rows: Its rows, 0 and up.
        size_bytes: Size of the stored file.
        preview: Its first rows as a Markdown table, for people; empty where nobody asked for one.
    """

    uri: str
    fingerprint: Fingerprint
    n_rows: int
    size_bytes: int
    preview: str = ""

    def __post_init__(self) -> None:
        if not self.uri:
            raise ValueError("a snapshot needs a uri")
        if self.n_rows != self.fingerprint.n_rows:
            raise ValueError(f"a snapshot of {self.n_rows} rows with a fingerprint of {self.fingerprint.n_rows}")
        if self.size_bytes < 0:
            raise ValueError("size_bytes is 0 or more")

    @property
    def stored(self) -> StoredData:
        """Where the content is."""
        return StoredData(uri=self.uri, digest=self.digest)

    @property
    def digest(self) -> str:
        """The digest of the content: equal snapshots have equal digests, wherever they are kept."""
        return self.fingerprint.digest

    def to_json(self) -> dict[str, Any]:
        """Returns the snapshot as a JSON value."""
        return {
            "uri": self.uri,
            "fingerprint": self.fingerprint.to_json(),
            "n_rows": self.n_rows,
            "size_bytes": self.size_bytes,
            "preview": self.preview,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Snapshot":
        """Returns the snapshot that `to_json` wrote."""
        return Snapshot(
            uri=str(value["uri"]),
            fingerprint=Fingerprint.from_json(value["fingerprint"]),
            n_rows=int(value["n_rows"]),
            size_bytes=int(value["size_bytes"]),
            preview=str(value.get("preview", "")),
        )
