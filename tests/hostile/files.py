"""Attacks by files, links and manifests."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.workshop import Artefact, Bench, zipped

Attack = Callable[[Bench], Artefact]
NAMES = ("model.skops", "release.json", "golden.json")


def _after(change: Callable[[Bench], object]) -> Attack:
    """The files are changed after they were registered."""

    def attack(bench: Bench) -> Artefact:
        artefact = bench.registered()
        change(bench)
        return artefact

    return attack


def _rewrite(name: str, change: Callable[[bytes], bytes]) -> Attack:
    return _after(lambda bench: bench.path(name).write_bytes(change(bench.path(name).read_bytes())))


def _replace(name: str, make: Callable[[Bench], object]) -> Attack:
    def change(bench: Bench) -> None:
        bench.path(name).rename(bench.folder.parent / "real")
        make(bench)

    return _after(change)


def _swap(bench: Bench) -> None:
    bench.path("release.json").rename(bench.path("x"))
    bench.path("golden.json").rename(bench.path("release.json"))
    bench.path("x").rename(bench.path("golden.json"))


def _listen(bench: Bench) -> None:
    here = Path.cwd()
    os.chdir(bench.folder)  # the path of a socket has at most 108 characters
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("golden.json")
    os.chdir(here)


TAMPERED: dict[str, Attack] = {
    **{f"{name}-one-bit": _rewrite(name, lambda data: data[:-1] + bytes([data[-1] ^ 1])) for name in NAMES},
    **{f"{name}-longer": _rewrite(name, lambda data: data + b" ") for name in NAMES},
    **{f"{name}-shorter": _rewrite(name, lambda data: data[:-1]) for name in NAMES},
    **{f"{name}-missing": _after(lambda bench, n=name: bench.path(n).unlink()) for name in NAMES},
    "model.skops-pickle-instead": _after(lambda bench: bench.path("model.skops").write_bytes(bench.pickled())),
    "two-files-swapped": _after(_swap),
    "file-added": _after(lambda bench: bench.path("model.pkl").write_bytes(bench.pickled())),
    "hidden-file-added": _after(lambda bench: bench.path(".x").write_text("")),
    "folder-added": _after(lambda bench: bench.path("code").mkdir()),
    "other-engine-added": _after(lambda bench: bench.path("model.onnx").write_bytes(b"\x08\x08")),
    "sparse-gigabytes": _after(lambda bench: os.truncate(bench.path("model.skops"), 1 << 40)),
}

LINKS: dict[str, Attack] = {
    **{
        f"{name}-symlink-to-the-same-bytes": _replace(
            name, lambda b, n=name: b.path(n).symlink_to(b.folder.parent / "real")
        )
        for name in NAMES
    },
    "hard-link": _replace("golden.json", lambda b: os.link(b.folder.parent / "real", b.path("golden.json"))),
    "symlink-to-nowhere": _replace("golden.json", lambda b: b.path("golden.json").symlink_to("nowhere")),
    "symlink-to-itself": _replace("golden.json", lambda b: b.path("golden.json").symlink_to("golden.json")),
    "symlink-to-an-endless-device": _replace("golden.json", lambda b: b.path("golden.json").symlink_to("/dev/zero")),
    "symlink-to-a-system-file": _replace("golden.json", lambda b: b.path("golden.json").symlink_to("/etc/passwd")),
    "pipe": _replace("golden.json", lambda b: os.mkfifo(b.path("golden.json"))),
    "socket": _replace("golden.json", _listen),
    "folder-instead": _replace("golden.json", lambda b: b.path("golden.json").mkdir()),
    "folder-symlink-added": _after(lambda b: b.path("code").symlink_to("/etc")),
    "pipe-added": _after(lambda b: os.mkfifo(b.path("x"))),
}


def _entry(bench: Bench, **changed: Any) -> list[dict[str, Any]]:
    """The honest manifest with its first entry changed."""
    first, *others = json.loads(bench.registered().manifest)
    return [{**first, **changed}, *others]


def _added(path: Any) -> Attack:
    def attack(bench: Bench) -> Artefact:
        files = [*json.loads(bench.registered().manifest), {"path": path, "sha256": "0" * 64, "size_bytes": 1}]
        return bench.claimed(sorted(files, key=lambda file: str(file["path"])))

    return attack


def _changed(**changed: Any) -> Attack:
    return lambda bench: bench.claimed(_entry(bench, **changed))


def _text(text: str) -> Attack:
    return lambda bench: bench.claimed_text(text)


def _twice(bench: Bench) -> Artefact:
    files = json.loads(bench.registered().manifest)
    return bench.claimed([files[0], *files])


def _key_twice(bench: Bench) -> Artefact:
    artefact = bench.registered()
    first = artefact.manifest.replace('"path": "golden.json"', '"path": "evil.json", "path": "golden.json"')
    return Artefact(folder=artefact.folder, manifest=first, digest=artefact.digest)


MANIFESTS: dict[str, Attack] = {
    "parent": _added("../up"),
    "parent-inside": _added("a/../../up"),
    "absolute": _added("/etc/cron.d/x"),
    "backslash": _added("a\\..\\b"),
    "drive": _added("C:x"),
    "nul": _added("golden.json\x00.txt"),
    "newline": _added("a\nb"),
    "empty-path": _added(""),
    "dot": _added("."),
    "url": _added("file:///etc/passwd"),
    "composed-letter": _added("caf\u00e9"),
    "decomposed-letter": _added("cafe\u0301"),
    "fullwidth-dots": _added("\uff0e\uff0e/x"),
    "lone-surrogate": _added("\ud800"),
    "right-to-left": _added("\u202enosj.x"),
    "case-collision": _added("Golden.json"),
    "endless-path": _added("a" * 100_000),
    "path-is-a-list": _added(["a"]),
    "path-twice": _twice,
    "key-twice": _key_twice,
    "out-of-order": lambda bench: bench.claimed(json.loads(bench.registered().manifest)[::-1]),
    "size-negative": _changed(size_bytes=-1),
    "size-float": _changed(size_bytes=1.5),
    "size-text": _changed(size_bytes="12"),
    "size-true": _changed(size_bytes=True),
    "size-null": _changed(size_bytes=None),
    "size-petabyte": _changed(size_bytes=10**15),
    "size-beyond-64-bits": _changed(size_bytes=2**70),
    "digest-null": _changed(sha256=None),
    "digest-other": _changed(sha256="0" * 64),
    "field-more": _changed(loader="evil"),
    "no-files": lambda bench: bench.claimed([]),
    "many-files": lambda bench: bench.claimed(
        [{"path": f"f{i:06}", "sha256": "0" * 64, "size_bytes": 1} for i in range(100_000)]
    ),
    "is-an-object": _text("{}"),
    "is-a-number": _text("1"),
    "is-nan": _text('[{"path": "a", "sha256": "0", "size_bytes": NaN}]'),
    "is-infinite": _text('[{"path": "a", "sha256": "0", "size_bytes": 1e999}]'),
    "huge-integer": _text('[{"path": "a", "sha256": "0", "size_bytes": ' + "9" * 100_000 + "}]"),
    "deep": _text("[" * 200_000 + "]" * 200_000),
    "not-json": _text("manifest"),
    "empty": _text(""),
}

LOADER_MODULE = """
flavors:
  python_function:
    loader_module: payload
    code: code
    python_version: 3.11.0
"""
PROGRAM = "import os\nos.system({command!r})\ndef _load_pyfunc(path):\n    os.system({command!r})\n"


def _program(name: str) -> Attack:
    return lambda bench: bench.write(name, PROGRAM.format(command=bench.command))


def _pickle(name: str) -> Attack:
    return lambda bench: bench.write(name, bench.pickled())


def _with_mlmodel(attack: Attack) -> Attack:
    def both(bench: Bench) -> Artefact:
        bench.write("MLmodel", LOADER_MODULE)
        return attack(bench)

    return both


def _nested_package(bench: Bench) -> Artefact:
    shutil.copytree(bench.folder, bench.folder.parent / "copy")
    shutil.move(bench.folder.parent / "copy", bench.path("inner"))
    return bench.registered()


UNKNOWN_FILES: dict[str, Attack] = {
    "loader-module-and-code": _with_mlmodel(_program("code/payload.py")),
    "loader-module-beside": _with_mlmodel(_program("payload.py")),
    "python-model-pickle": _with_mlmodel(_pickle("python_model.pkl")),
    "model-pickle": _pickle("model.pkl"),
    "model-joblib": _pickle("model.joblib"),
    "model-cloudpickle": _pickle("model.cloudpickle"),
    "sitecustomize": _program("sitecustomize.py"),
    "path-configuration": lambda bench: bench.write("evil.pth", f"import os; os.system({bench.command!r})"),
    "conftest": _program("conftest.py"),
    "shared-library": lambda bench: bench.write("model.so", b"\x7fELF"),
    "onnx-external-data": lambda bench: bench.write("weights.bin", bytes(100)),
    "zip-beside": lambda bench: bench.write("code.zip", zipped({"payload.py": b""})),
    "package-in-a-package": _nested_package,
}
