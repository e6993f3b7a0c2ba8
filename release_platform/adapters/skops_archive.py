"""Reads a skops file, default-deny: an archive of uncompressed arrays and one schema, walked before skops sees it.

skops' own audit asks the user what to trust and trusts much by default. Here every node must be of a loader and a type
in `skops_types`, every array must be as long as its header says, and numbers that size something are bounded. What
skops is then given is an archive that was written anew from what was checked.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from release_platform.adapters.skops_types import TRUSTED, TYPES
from release_platform.adapters.strict_json import read_json
from release_platform.adapters.trees import check_boosted_nodes, check_tree_nodes

_SCHEMA = "schema.json"
_ARRAY = re.compile(r"[0-9]{1,20}\.npy")
_MAXIMUM_EMPTY_DIMENSION = 4096
_PROTOCOL = 2
_MAXIMUM_SCHEMA_BYTES = 32 * 1024**2  # a forest of 2,000 trees; each byte may take 20 in memory
_BOUNDS = {"n_jobs": (-64, 64), "pool_size": (4, 4), "pos": (0, 624)}
"""Ranges, ends included, of what the code of a known attribute would size or index memory by."""


def load_skops(data: bytes) -> Any:
    """Returns the object in a skops file.

    Raises:
        ValueError: It holds what may not be loaded.
        Exception: skops or scikit-learn cannot make an object of it.
    """
    import skops.io as sio

    entries = _read_entries(data)
    schema = read_json(entries.pop(_SCHEMA, b""), maximum=_MAXIMUM_SCHEMA_BYTES)
    if not isinstance(schema, dict) or type(schema.get("protocol")) is not int or schema["protocol"] != _PROTOCOL:
        raise ValueError(f"its schema is not of protocol {_PROTOCOL}, whose nodes are known here")
    arrays = {name: _read_array(name, content) for name, content in entries.items()}
    digests = {name: hashlib.sha256(content).digest() for name, content in entries.items()}
    _Audit(arrays=arrays, digests=digests).node(schema)
    checked = io.BytesIO()
    with zipfile.ZipFile(checked, "w") as archive:
        archive.writestr(_SCHEMA, json.dumps(schema))
        for name, content in entries.items():
            archive.writestr(name, content)
    return sio.loads(checked.getvalue(), trusted=list(TRUSTED))


def _read_entries(data: bytes) -> dict[str, bytes]:
    entries: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > len(data):
            raise ValueError("the archive expands to more than its size")
        for member in members:
            if member.filename in entries or not (member.filename == _SCHEMA or _ARRAY.fullmatch(member.filename)):
                raise ValueError(f"the archive holds {member.filename[:80]!a}, which is not expected there")
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 0x1:
                raise ValueError(f"{member.filename} is compressed or encrypted")
            entries[member.filename] = archive.read(member)
    if sum(map(len, entries.values())) > len(data):
        raise ValueError("entries of the archive overlap")
    return entries


def _read_array(name: str, content: bytes) -> npt.NDArray[Any]:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read(file)
    n_bytes = len(content) - file.tell()
    count = 1
    for length in shape:
        if length < 0:
            raise ValueError(f"{name} has a negative length")
        count *= length
    if dtype.hasobject or count * dtype.itemsize != n_bytes or count > n_bytes:
        raise ValueError(f"{name} holds {n_bytes:,} bytes, not those of a {dtype!s:.80} array of shape {shape!s:.80}")
    if not count and any(length > _MAXIMUM_EMPTY_DIMENSION for length in shape):
        raise ValueError(f"{name} is empty and of shape {shape!s:.80}")
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


@dataclass(slots=True, kw_only=True)
class _Audit:
    """Walks a schema. Its fields hold what was met so far."""

    arrays: Mapping[str, npt.NDArray[Any]]
    digests: Mapping[str, bytes]
    seen: dict[object, bytes] = field(default_factory=dict)

    def node(self, value: Any) -> bytes:
        """Checks a node and all below it, and returns a digest of it without its ids.

        skops takes a node whose id it met before for that earlier one, unseen. So two nodes of one id must be equal.
        """
        if not isinstance(value, dict):
            raise ValueError("the schema holds something that is no node")
        loader, kind = value.get("__loader__"), f"{value.get('__module__')}.{value.get('__class__')}"
        if not isinstance(loader, str) or kind not in TYPES.get(loader, ()):
            raise ValueError(f"it holds {kind:.100} by {loader!s:.40}, which is not loaded")
        digest = hashlib.sha256(f"{loader} {kind}".encode())
        for name in sorted(value):
            if name not in {"__id__", "__loader__", "__module__", "__class__"}:
                digest.update(f"|{name}=".encode() + self._field(value, name))
        self._check(loader, kind, value)
        return self._once(value.get("__id__"), digest.digest())

    def _once(self, identity: object, digest: bytes) -> bytes:
        known = type(identity) is int and self.seen.setdefault(identity, digest) == digest
        if identity is not None and not known:
            raise ValueError(f"two nodes share the id {identity!s:.40}")
        return digest

    def _field(self, value: Mapping[str, Any], name: str) -> bytes:
        below = value[name]
        loader = value["__loader__"]
        if name == "file":
            return self.digests[below]
        if name in {"protocol", "_skops_version", "type", "is_json"} or loader in {"JsonNode", "SliceNode"}:
            return json.dumps(below, sort_keys=True).encode()
        if isinstance(below, list):
            return b",".join(self.node(item) for item in below)
        if isinstance(below, dict) and "__loader__" not in below:
            return b",".join(
                key.encode("utf-8", "surrogatepass") + b":" + self.node(below[key]) for key in sorted(below)
            )
        return self.node(below)

    def _check(self, loader: str, kind: str, value: Mapping[str, Any]) -> None:
        if loader == "JsonNode":
            _scalar(value)
        elif loader == "SliceNode":
            if not all(bound is None or type(bound) is int for bound in value["content"].values()):
                raise ValueError("a slice is not of whole numbers")
        elif loader == "NdArrayNode" and value["type"] == "numpy":
            self._array(value)
        elif loader == "DictNode":
            for name, (low, high) in _BOUNDS.items():
                found = value["content"].get(name)
                if found is not None and not _within(found, low, high):
                    raise ValueError(f"{name} is not between {low} and {high}")
        elif loader == "TreeNode":
            self._tree(value)
        elif kind.endswith(".TreePredictor"):
            check_boosted_nodes(self._array(value["content"]["content"]["nodes"]))

    def _array(self, node: Mapping[str, Any]) -> npt.NDArray[Any]:
        return self.arrays[node["file"]]

    def _tree(self, value: Mapping[str, Any]) -> None:
        n_features, _, n_outputs = value["__reduce__"]["args"]["content"]
        state = value["content"]["content"]
        nodes = self._array(state["nodes"])
        if _scalar(n_outputs) != 1 or _scalar(state["node_count"]) != len(nodes):
            raise ValueError("a tree says that it has more nodes or outputs than it has")
        check_tree_nodes(nodes, _scalar(n_features))


def _scalar(node: Mapping[str, Any]) -> Any:
    if node.get("__loader__") != "JsonNode":
        raise ValueError("a plain value is expected, but it is none")
    value = json.loads(node["content"])
    if isinstance(value, list | dict):
        raise ValueError("a plain value is expected, but it is a list")
    return value


def _within(node: Mapping[str, Any], low: int, high: int) -> bool:
    value = _scalar(node)
    return value is None or (type(value) is int and low <= value <= high)
