"""Attacks by model.skops: as an archive, by its schema, by its arrays, and by the trees in them."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from tests.hostile.files import Attack
from tests.hostile.workshop import (
    FEATURES,
    Artefact,
    Bench,
    array_bytes,
    find,
    listed,
    mapped,
    node,
    npy,
    plain,
    rooted,
    tupled,
    zipped,
)

Schema = dict[str, Any]
Entries = dict[str, bytes]


def _entries(bench: Bench) -> Entries:
    with zipfile.ZipFile(bench.path("model.skops")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _more(name: str, data: bytes = b"x") -> Attack:
    return lambda bench: bench.write("model.skops", zipped({**_entries(bench), name: data}))


def _compressed(compression: int) -> Attack:
    return lambda bench: bench.write("model.skops", zipped(_entries(bench), compression))


def _bomb(bench: Bench) -> Artefact:
    bomb = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000000,), }", bytes(100_000_000))
    return bench.write("model.skops", zipped({**_entries(bench), "1.npy": bomb}, zipfile.ZIP_DEFLATED))


def _overlapping(bench: Bench) -> Artefact:
    """Two hundred directory entries that all show the same bytes."""
    data = zipped({"1.npy": array_bytes(np.zeros(100_000))})
    end = data.rindex(b"PK\x05\x06")
    start = data.index(b"PK\x01\x02")
    entry = data[start:end]
    every = b"".join(entry.replace(b"1.npy", b"%d.npy" % i) for i in range(1, 10)) * 20
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 180, 180, len(every), start, 0)
    return bench.write("model.skops", data[:start] + every + tail)


def _lying_size(bench: Bench) -> Artefact:
    data = bytearray(bench.path("model.skops").read_bytes())
    start = data.index(b"PK\x01\x02")
    data[start + 24 : start + 28] = (10).to_bytes(4, "little")
    return bench.write("model.skops", bytes(data))


def _flagged(offset: int, value: bytes) -> Attack:
    def attack(bench: Bench) -> Artefact:
        data = bytearray(bench.path("model.skops").read_bytes())
        start = data.index(b"PK\x01\x02") + offset
        data[start : start + len(value)] = value
        return bench.write("model.skops", bytes(data))

    return attack


def _schema_twice(bench: Bench) -> Artefact:
    entries = _entries(bench)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        archive.writestr("other.json0", json.dumps(rooted(node("TypeNode", "os.system"))))
    return bench.write("model.skops", file.getvalue().replace(b"other.json0", b"schema.json"))


def _link_entry(bench: Bench) -> Artefact:
    info = zipfile.ZipInfo("evil")
    info.external_attr = 0o120777 << 16
    file = io.BytesIO(bench.path("model.skops").read_bytes())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return bench.write("model.skops", file.getvalue())


def _many_entries(bench: Bench) -> Artefact:
    return bench.write("model.skops", zipped({f"f{i}": b"" for i in range(50_000)}))


ARCHIVES: dict[str, Attack] = {
    "pickle-instead": lambda bench: bench.write("model.skops", bench.pickled()),
    "empty": lambda bench: bench.write("model.skops", b""),
    "text": lambda bench: bench.write("model.skops", "model"),
    "truncated": lambda bench: bench.write("model.skops", bench.path("model.skops").read_bytes()[:-30]),
    "deflate-bomb": _bomb,
    "deflated": _compressed(zipfile.ZIP_DEFLATED),
    "bzip2": _compressed(zipfile.ZIP_BZIP2),
    "lzma": _compressed(zipfile.ZIP_LZMA),
    "overlapping-entries": _overlapping,
    "lying-size": _lying_size,
    "encrypted": _flagged(8, b"\x01\x00"),
    "unknown-compression": _flagged(10, b"\x63\x00"),
    "offset-beyond": _flagged(42, b"\xff\xff\xff\x7f"),
    "schema-twice": _schema_twice,
    "no-schema": lambda bench: bench.write("model.skops", zipped({"1.npy": array_bytes(np.zeros(3))})),
    "parent": _more("../../evil.npy"),
    "absolute": _more("/etc/evil"),
    "backslash": _more("..\\evil.npy"),
    "folder": _more("a/"),
    "pickle-inside": lambda bench: _more("1.pkl", bench.pickled())(bench),
    "nested-archive": lambda bench: _more("1.zip", zipped(_entries(bench)))(bench),
    "link": _link_entry,
    "many-entries": _many_entries,
}


def _root(make: Callable[[Bench], Schema]) -> Attack:
    """The whole model is one hostile node."""
    return lambda bench: bench.edit_skops(lambda schema, entries: rooted(make(bench)))


def _hidden(make: Callable[[Bench], Schema]) -> Attack:
    """The hostile node is one more attribute of an honest estimator."""

    def attack(bench: Bench) -> Artefact:
        def change(schema: Schema, entries: Entries) -> None:
            estimator = find(schema, lambda n: n.get("__class__") == "LogisticRegression")
            estimator["content"]["content"]["predict_proba"] = make(bench)
            estimator["content"]["key_types"]["content"].append(node("TypeNode", "builtins.str"))

        return bench.edit_skops(change)

    return attack


def _system(loader: str = "FunctionNode", kind: str = "posix.system", **fields: Any) -> Callable[[Bench], Schema]:
    return lambda bench: node(loader, kind, **fields)


def _called(bench: Bench) -> Schema:
    return node(
        "ConstructorFromReduceNode",
        "subprocess.Popen",
        content=tupled(listed(plain("sh"), plain("-c"), plain(bench.command))),
    )


def _partial(bench: Bench) -> Schema:
    content = {
        "func": _system()(bench),
        "args": tupled(plain(bench.command)),
        "kwds": mapped(),
        "namespace": plain(None),
    }
    return node("PartialNode", "functools.partial", content=content)


def _reduced(loader: str, kind: str) -> Callable[[Bench], Schema]:
    return lambda bench: node(loader, kind, __reduce__={"args": tupled(plain(bench.command))}, content=mapped())


def _operator(name: str) -> Callable[[Bench], Schema]:
    return lambda bench: node(
        "OperatorFuncNode", f"operator.{name}", attrs=tupled(plain("system"), plain(bench.command))
    )


def _same_id(bench: Bench) -> Artefact:
    """A node that is checked, and another of its id that skops would take instead."""

    def change(schema: Schema, entries: Entries) -> None:
        number = find(schema, lambda n: n.get("__loader__") == "JsonNode")
        other = find(schema, lambda n: n.get("__loader__") == "JsonNode" and n["content"] != number["content"])
        other["__id__"] = number["__id__"] = 7

    return bench.edit_skops(change)


def _protocol(number: Any) -> Attack:
    def change(schema: Schema, entries: Entries) -> None:
        schema["protocol"] = number

    return lambda bench: bench.edit_skops(change)


def _function_transformer(bench: Bench) -> Artefact:
    return bench.edit_skops(lambda schema, entries: None, FunctionTransformer(np.exp))


def _generator(bench: Bench) -> Schema:
    state = {"bit_generator": plain("set_bit_generator"), "state": mapped()}
    return node(
        "RandomGeneratorNode",
        "numpy.random._generator.Generator",
        content={"bit_generator": mapped(**state), "seed_seq": mapped(entropy=plain(1), pool_size=plain(4))},
    )


def _seed_bomb(bench: Bench) -> Schema:
    made = _generator(bench)
    made["content"]["bit_generator"] = mapped(bit_generator=plain("PCG64"))
    made["content"]["seed_seq"] = mapped(entropy=plain(1), pool_size=plain(2**31))
    return made


def _text_schema(text: str) -> Attack:
    return lambda bench: bench.write("model.skops", zipped({"schema.json": text.encode()}))


def _deep_list() -> str:
    opened = '{"__loader__": "ListNode", "__module__": "builtins", "__class__": "list", "content": ['
    return opened * 20_000 + "]}" * 20_000


SCHEMAS: dict[str, Attack] = {
    "function": _root(_system()),
    "function-hidden": _hidden(_system()),
    "function-eval-hidden": _hidden(_system(kind="builtins.eval")),
    "function-of-numpy-hidden": _hidden(_system(kind="numpy.exp")),
    "type": _hidden(_system("TypeNode", "posix.system")),
    "type-that-calls": _hidden(_system("TypeNode", "builtins.map")),
    "type-of-an-estimator": _hidden(_system("TypeNode", "sklearn.pipeline.Pipeline")),
    "constructor": _root(_called),
    "constructor-hidden": _hidden(_called),
    "partial": _root(_partial),
    "partial-hidden": _hidden(_partial),
    "method": _hidden(
        lambda bench: node("MethodNode", "builtins.str", content={"func": "format_map", "obj": plain("x")})
    ),
    "operator-methodcaller": _root(_operator("methodcaller")),
    "operator-methodcaller-hidden": _hidden(_operator("methodcaller")),
    "operator-attrgetter": _hidden(_operator("attrgetter")),
    "operator-call": _hidden(_operator("call")),
    "loss-of-another-type": _hidden(_reduced("LossNode", "posix.system")),
    "loss-eval": _root(_reduced("LossNode", "builtins.eval")),
    "tree-of-another-type": _hidden(_reduced("TreeNode", "builtins.exec")),
    "quantile-forest": _hidden(_reduced("QuantileForestNode", "builtins.exec")),
    "object-of-another-type": _hidden(
        lambda b: node("ObjectNode", "subprocess.Popen", content=mapped(args=plain(b.command)))
    ),
    "object-of-a-module-path": _hidden(lambda b: node("ObjectNode", "sklearn.utils._testing.os.system")),
    "object-memory": _hidden(lambda b: node("ObjectNode", "joblib.memory.Memory", content=mapped(location=plain("/")))),
    "object-neighbours": _hidden(lambda b: node("ObjectNode", "sklearn.neighbors._kd_tree.KDTree", content=mapped())),
    "object-libsvm": _hidden(lambda b: node("ObjectNode", "sklearn.svm._classes.SVR", content=mapped())),
    "dictionary-of-another-type": _hidden(lambda b: {**mapped(a=plain(1)), "__module__": "os", "__class__": "environ"}),
    "dictionary-whose-keys-are-called": _hidden(
        lambda b: {**mapped(a=plain(1)), "key_types": listed(node("TypeNode", "posix.system"))}
    ),
    "default-dictionary": _hidden(
        lambda b: node(
            "DefaultDictNode", "collections.defaultdict", content={"main": mapped(), "default_factory": _system()(b)}
        )
    ),
    "list-of-another-type": _hidden(lambda b: listed(plain(b.command), kind="os.system")),
    "tuple-of-another-type": _hidden(lambda b: listed(plain(1), loader="TupleNode", kind="os.stat_result")),
    "set": _hidden(lambda b: listed(_system()(b), loader="SetNode", kind="builtins.set")),
    "deep-in-containers": _hidden(lambda b: listed(tupled(mapped(a=listed(_system()(b)))))),
    "object-array": _hidden(
        lambda b: node("NdArrayNode", "numpy.ndarray", type="json", shape=tupled(plain(1)), content=[_system()(b)])
    ),
    "array-of-another-type": _hidden(
        lambda b: node("NdArrayNode", "os.system", type="json", shape=tupled(plain(1)), content=[plain(b.command)])
    ),
    "memory-map": _hidden(
        lambda b: node(
            "NdArrayNode", "numpy.memmap", type="json", shape=tupled(plain(1)), content=[plain("/etc/passwd")]
        )
    ),
    "masked-array": _hidden(
        lambda b: node("MaskedArrayNode", "numpy.ma.MaskedArray", content={"data": _system()(b), "mask": plain(1)})
    ),
    "sparse-matrix": _hidden(
        lambda b: node("SparseMatrixNode", "scipy.sparse._csr.csr_matrix", type="scipy", file="1.npz")
    ),
    "bytes": _hidden(lambda b: node("BytesNode", "builtins.bytes", file="schema.json")),
    "cached": _hidden(lambda b: node("CachedNode", "builtins.str", __id__=1)),
    "data-type": _hidden(lambda b: node("DTypeNode", "numpy.dtype", content=_system()(b))),
    "random-generator-that-calls": _hidden(_generator),
    "seed-of-gigabytes": _hidden(_seed_bomb),
    "random-state-of-another-type": _hidden(lambda b: node("RandomStateNode", "os.system", content=mapped())),
    "two-nodes-of-one-id": _same_id,
    "loader-is-a-list": _root(lambda b: {**_system()(b), "__loader__": ["FunctionNode"]}),
    "module-is-null": _root(lambda b: {**_system()(b), "__module__": None}),
    "no-loader": _root(lambda b: {"__class__": "system", "__module__": "posix"}),
    "protocol-old": _protocol(0),
    "protocol-before": _protocol(1),
    "protocol-old-with-a-function": lambda b: b.edit_skops(lambda s, e: {**rooted(_system()(b)), "protocol": 0}),
    "protocol-future": _protocol(10**6),
    "protocol-true": _protocol(True),
    "thousand-jobs": _hidden(lambda b: mapped(n_jobs=plain(1000))),
    "json-that-is-deep": _hidden(lambda b: node("JsonNode", "builtins.str", content="[" * 100_000)),
    "json-that-is-a-list": _hidden(lambda b: plain([1, 2])),
    "schema-deep": _text_schema(_deep_list()),
    "schema-not-json": _text_schema("{"),
    "schema-a-list": _text_schema("[]"),
    "schema-key-twice": _text_schema('{"protocol": 2, "__loader__": "ListNode", "__loader__": "FunctionNode"}'),
    "schema-beyond-its-limit": _text_schema(" " * (32 << 20) + "{}"),
    "schema-of-ten-million-lists": _text_schema("[" + "[]," * 10_000_000 + "[]]"),
    "function-transformer": _function_transformer,
    "no-estimator": _root(lambda b: mapped(a=plain(1))),
    "unfitted-estimator": lambda b: b.edit_skops(lambda s, e: None, DecisionTreeClassifier()),
}


def _array(data: bytes | Callable[[Bench], bytes]) -> Attack:
    """The first array of the model is replaced."""

    def attack(bench: Bench) -> Artefact:
        def change(schema: Schema, entries: Entries) -> None:
            entries[min(entries)] = data if isinstance(data, bytes) else data(bench)

        return bench.edit_skops(change)

    return attack


def _header(shape: str, descr: str = "'<f8'", body: bytes = bytes(24)) -> Attack:
    return _array(npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", body))


ARRAYS: dict[str, Attack] = {
    "terabytes-declared": _header("(1000000000000,)"),
    "product-overflows": _header("(4294967296, 4294967296)"),
    "negative-length": _header("(-3,)"),
    "length-true": _header("(True, 30)"),
    "longer-than-declared": _header("(1,)"),
    "shorter-than-declared": _header("(30,)"),
    "elements-of-nothing": _header("(100000000,)", "'|V0'", b""),
    "empty-and-endless": _header("(0, 1000000000000)", body=b""),
    "hundred-dimensions": _header("(" + "1," * 100 + ")", body=bytes(8)),
    "objects": _array(lambda bench: array_bytes(np.array([bench.pickled()], dtype=object))),
    "objects-in-a-structure": _header("(1,)", "[('a', '|O')]", bytes(8)),
    "pickle-instead": _array(lambda bench: bench.pickled()),
    "archive-instead": _array(zipped({"a.npy": array_bytes(np.zeros(3))})),
    "header-that-calls": _array(lambda bench: npy(f"__import__('os').system({bench.command!r})")),
    "header-endless": _array(npy("{" + " " * 60_000 + "}")),
    "header-deep": _array(npy("(" * 5_000)),
    "version-other": _array(b"\x93NUMPY\x09\x00" + bytes(100)),
    "empty": _array(b""),
    "text-instead-of-numbers": _header("(3,)", "'<U2'"),
}


def _data() -> tuple[Any, Any]:
    data = load_breast_cancer(as_frame=True)
    return data.data[list(FEATURES)], data.target


def _fitted(model: Any, change: Callable[[Any], object]) -> Attack:
    """Fits an honest model, whose state is then changed."""

    def attack(bench: Bench) -> Artefact:
        fitted = model.fit(*_data())
        change(fitted)
        return bench.edit_skops(lambda schema, entries: None, fitted)

    return attack


def _nodes(model: Any, dtype_has: str, edit: Callable[[Any], object]) -> Attack:
    """Fits an honest model, and edits the nodes of its first tree where they lie in the archive."""

    def attack(bench: Bench) -> Artefact:
        def change(schema: Schema, entries: Entries) -> None:
            for name in sorted(entries):
                array = np.lib.format.read_array(io.BytesIO(entries[name]))
                if array.dtype.names and dtype_has in array.dtype.names:
                    edit(array)
                    entries[name] = array_bytes(array)
                    return
            raise AssertionError("there are no nodes")

        return bench.edit_skops(change, model.fit(*_data()))

    return attack


def _state(name: str, value: Any) -> Attack:
    def attack(bench: Bench) -> Artefact:
        def change(schema: Schema, entries: Entries) -> None:
            tree = find(schema, lambda n: n.get("__loader__") == "TreeNode")
            if name == "node_count":
                tree["content"]["content"][name] = plain(value)
            else:
                tree["__reduce__"]["args"]["content"][{"n_features": 0, "n_outputs": 2}[name]] = plain(value)

        return bench.edit_skops(change, DecisionTreeClassifier(max_depth=3).fit(*_data()))

    return attack


def _set(field: str, value: Any) -> Callable[[Any], None]:
    def edit(nodes: Any) -> None:
        nodes[field][0] = value

    return edit


def _tree(field: str, value: Any) -> Attack:
    return _nodes(DecisionTreeClassifier(max_depth=3), "left_child", _set(field, value))


def _boosted(field: str, value: Any) -> Attack:
    return _nodes(HistGradientBoostingClassifier(max_iter=2), "feature_idx", _set(field, value))


def _no_leaves(nodes: Any) -> None:
    nodes["is_leaf"] = 0


def _wide_stages(model: Any) -> None:
    model.estimators_ = np.concatenate([model.estimators_, model.estimators_], axis=1)


def _zero_wide(model: Any) -> None:
    model.init_ = "zero"
    model.n_trees_per_iteration_ = 0


def _wider(model: Any) -> None:
    wide = np.random.default_rng(0).normal(size=(50, 500))
    model.estimators_[1] = DecisionTreeClassifier().fit(wide, wide[:, 499] > 0)


def _lying_width(model: Any) -> None:
    _wider(model)
    model.n_features_in_ = 500


def _attribute(name: str, value: Any) -> Callable[[Any], None]:
    return lambda model: setattr(model, name, value)


TREES: dict[str, Attack] = {
    "circle": _tree("left_child", 0),
    "child-beyond": _tree("right_child", 10**9),
    "child-negative": _tree("right_child", -(10**9)),
    "feature-beyond": _tree("feature", 10**9),
    "feature-negative": _tree("feature", -5),
    "more-nodes-than-there-are": _state("node_count", 10**6),
    "fewer-nodes-than-none": _state("node_count", -1),
    "more-outputs-than-there-are": _state("n_outputs", 10**9),
    "more-features-than-it-is-given": _state("n_features", 10**9),
    "boosted-circle": _boosted("left", 0),
    "boosted-child-beyond": _boosted("right", 2**31),
    "boosted-feature-beyond": _boosted("feature_idx", 10**9),
    "boosted-feature-one-beyond": _boosted("feature_idx", 3),
    "boosted-feature-negative": _boosted("feature_idx", -1),
    "boosted-without-leaves": _nodes(HistGradientBoostingClassifier(max_iter=2), "feature_idx", _no_leaves),
    "boosted-by-category": _boosted("is_categorical", 1),
    "boosted-width-lies": _fitted(HistGradientBoostingClassifier(max_iter=2), _attribute("n_features_in_", 1)),
    "boosted-preprocessing": _fitted(
        HistGradientBoostingClassifier(max_iter=2), _attribute("_preprocessor", DecisionTreeClassifier())
    ),
    "stages-wider-than-their-answer": _fitted(GradientBoostingClassifier(n_estimators=2), _wide_stages),
    "stages-without-answer": _fitted(GradientBoostingClassifier(n_estimators=2), _zero_wide),
    "forest-with-a-wider-tree": _fitted(RandomForestClassifier(n_estimators=3), _wider),
    "forest-that-lies-of-its-width": _fitted(RandomForestClassifier(n_estimators=3), _lying_width),
    "tree-that-lies-of-its-width": _fitted(DecisionTreeClassifier(), _attribute("n_features_in_", 500)),
    "tree-without-width": _fitted(DecisionTreeClassifier(), lambda model: delattr(model, "n_features_in_")),
}
