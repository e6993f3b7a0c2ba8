"""Where hostile artefacts are made: an honest package is copied, changed, and registered with what it then holds."""

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from release_platform.domain.identity import digest_of
from tests.fakes.packages import build_linear_classifier, manifest_of

FEATURES = ("mean radius", "mean texture", "mean area")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What an attacker left: a folder of files, and the two tags of the version."""

    folder: Path
    manifest: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One attack's place. `marker` is the file that its payload would make."""

    folder: Path
    marker: Path

    @property
    def command(self) -> str:
        return f"touch '{self.marker}'"

    def path(self, name: str) -> Path:
        return self.folder / name

    def registered(self) -> Artefact:
        """The attacker got it registered and signed: manifest and digest are those of the files."""
        return self.claimed(manifest_of(self.folder).to_json())

    def claimed(self, manifest: Any) -> Artefact:
        try:
            digest = digest_of(manifest)
        except (ValueError, UnicodeEncodeError):
            digest = "sha256:" + "0" * 64
        return Artefact(folder=self.folder, manifest=json.dumps(manifest), digest=digest)

    def claimed_text(self, manifest: str) -> Artefact:
        return Artefact(folder=self.folder, manifest=manifest, digest="sha256:" + "0" * 64)

    def edit_json(self, name: str, change: Callable[[Any], Any]) -> Artefact:
        value = json.loads(self.path(name).read_text())
        changed = change(value)
        self.path(name).write_text(json.dumps(value if changed is None else changed))
        return self.registered()

    def write(self, name: str, data: bytes | str) -> Artefact:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_bytes(data.encode() if isinstance(data, str) else data)
        return self.registered()

    def pickled(self) -> bytes:
        return pickle.dumps(_Payload(self.command))

    def edit_skops(self, change: Callable[[Any, dict[str, bytes]], Any], fitted: Any = None) -> Artefact:
        """Rewrites model.skops: the change may return another schema, and edit the arrays in place."""
        import skops.io

        data = self.path("model.skops").read_bytes() if fitted is None else skops.io.dumps(fitted)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        schema = json.loads(entries.pop("schema.json"))
        changed = change(schema, entries)
        return self.write("model.skops", zipped({"schema.json": json.dumps(changed or schema).encode(), **entries}))

    def use_onnx(self, model: onnx.ModelProto | bytes) -> Artefact:
        self.path("model.skops").unlink()
        data = model if isinstance(model, bytes) else model.SerializeToString()
        self.path("model.onnx").write_bytes(data)
        return self.edit_json("release.json", lambda release: release.update(engine="onnx"))


class _Payload:
    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        import os

        return os.system, (self._command,)


def prepare(honest: Path, root: Path, name: str) -> Bench:
    """Returns the bench of an attack, with a copy of an honest package on it."""
    place = root / name.replace("/", "--")
    return Bench(folder=shutil.copytree(honest, place / "package"), marker=place / "payload-ran")


def build_honest(folder: Path) -> Path:
    return build_linear_classifier(folder)


def zipped(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def node(loader: str, kind: str, **fields: Any) -> dict[str, Any]:
    module, _, name = kind.rpartition(".")
    return {"__class__": name, "__module__": module, "__loader__": loader, **fields}


def plain(value: Any) -> dict[str, Any]:
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def listed(*items: Any, loader: str = "ListNode", kind: str = "builtins.list") -> dict[str, Any]:
    return node(loader, kind, content=list(items))


def tupled(*items: Any) -> dict[str, Any]:
    return listed(*items, loader="TupleNode", kind="builtins.tuple")


def mapped(**items: Any) -> dict[str, Any]:
    types = listed(*(node("TypeNode", "builtins.str") for _ in items))
    return node("DictNode", "builtins.dict", content=items, key_types=types)


def rooted(root: dict[str, Any]) -> dict[str, Any]:
    return {**root, "protocol": 2, "_skops_version": "0.16.0"}


def find(schema: Any, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Returns the first node of a schema that is wanted."""
    waiting = [schema]
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, dict):
            if wanted(item):
                return item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    raise AssertionError("there is no such node")


def array_bytes(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def graph(
    *nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = (), inputs: tuple[str, ...] = FEATURES
) -> onnx.ModelProto:
    """Returns an honest linear classifier over three numbers, with more nodes before its own."""
    given = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in inputs]
    answer = [helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, [None, 2])]
    weights = helper.make_tensor("weights", TensorProto.DOUBLE, [3, 2], [0.1, -0.1, 0.2, -0.2, -0.001, 0.001])
    own = [
        helper.make_node("Concat", list(inputs)[:3], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    made = helper.make_graph([*nodes, *own], "g", given, answer, [weights, *initializers])
    return helper.make_model(
        made, ir_version=8, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
