"""Attacks by the JSON files of a registered package: the plan, the classes, the golden rows."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from tests.hostile.files import Attack
from tests.hostile.workshop import Artefact, Bench


def _release(change: Callable[[Any], Any]) -> Attack:
    return lambda bench: bench.edit_json("release.json", change)


def _set(**changed: Any) -> Attack:
    return _release(lambda release: release.update(changed))


def _plan(change: Callable[[Any], Any]) -> Attack:
    def edit(release: Any) -> None:
        change(release["plan"])

    return _release(edit)


def _raw(name: str, text: str | bytes) -> Attack:
    return lambda bench: bench.write(name, text)


def _spliced(name: str, key: str, text: str) -> Attack:
    """Puts raw text where a value was, for what `json.dumps` would not write."""

    def attack(bench: Bench) -> Artefact:
        value = json.loads(bench.path(name).read_text())
        value[key] = "@@"
        return bench.write(name, json.dumps(value).replace('"@@"', text))

    return attack


def _key_twice(bench: Bench) -> Artefact:
    text = bench.path("release.json").read_text()
    return bench.write("release.json", text.replace('"format": 1', '"format": 2, "format": 1'))


def _combine_bomb(plan: Any) -> None:
    plan["inputs"].append({"name": "c", "type": "category", "nullable": True})
    names = ["c", *(f"c{i}" for i in range(1, 60))]
    plan["derived"] = [{"name": new, "operation": "combine", "of": [old, old]} for old, new in pairwise(names)]


def _bomb_with_rows(bench: Bench) -> Artefact:
    def more(golden: Any) -> None:
        golden["inputs"]["c"] = ["x" * 100] * 5

    bench.edit_json("golden.json", more)
    return _plan(_combine_bomb)(bench)


DEEP = "[" * 100_000 + "]" * 100_000

PLANS: dict[str, Attack] = {
    "deep": _raw("release.json", DEEP),
    "deep-value": _spliced("release.json", "spec", DEEP),
    "is-a-list": _raw("release.json", "[]"),
    "is-empty": _raw("release.json", ""),
    "not-utf-8": _raw("release.json", b"\xff\xfe\x00"),
    "is-a-pickle": lambda bench: bench.write("release.json", bench.pickled()),
    "seventeen-megabytes": lambda bench: bench.write(
        "release.json", bench.path("release.json").read_bytes() + b" " * (17 << 20)
    ),
    "key-twice": _key_twice,
    "nan": _spliced("release.json", "format", "NaN"),
    "infinite": _spliced("release.json", "format", "-Infinity"),
    "beyond-double": _spliced("release.json", "x", "1e999"),
    "huge-integer": _spliced("release.json", "format", "9" * 100_000),
    "format-other": _set(format=2),
    "format-absent": _release(lambda release: release.pop("format") and None),
    "engine-pickle": _set(engine="pickle"),
    "engine-path": _set(engine="../../etc/passwd"),
    "engine-list": _set(engine=["skops"]),
    "engine-absent-file": _set(engine="onnx"),
    "task-unknown": _set(task="eval"),
    "task-other": _set(task="regression"),
    "classes-too-few": _set(classes=["malignant"]),
    "classes-too-many": _set(classes=["a", "b", "c"]),
    "classes-twice": _set(classes=["a", "a"]),
    "classes-nested": _set(classes=[["a"], ["b"]]),
    "classes-number": _set(classes=7),
    "classes-million": _set(classes=list(range(1_000_000))),
    "plan-absent": _release(lambda release: release.pop("plan") and None),
    "operation-unknown": _plan(
        lambda plan: plan.update(derived=[{"name": "d", "operation": "__import__", "of": ["mean radius"]}])
    ),
    "derived-from-itself": _plan(lambda plan: plan.update(derived=[{"name": "d", "operation": "log1p", "of": ["d"]}])),
    "feature-unknown": _plan(lambda plan: plan.update(features=["__class__"])),
    "feature-number": _plan(lambda plan: plan.update(features=[1])),
    "input-name-list": _plan(lambda plan: plan["inputs"].append({"name": ["x"], "type": "number", "nullable": True})),
    "no-features": _plan(lambda plan: plan.update(features=[])),
    "fewer-features-than-the-model": _plan(lambda plan: plan["features"].pop()),
    "quarter-million-features": _plan(lambda plan: plan.update(features=["mean radius"] * 250_000)),
    "text-that-doubles-sixty-times": _bomb_with_rows,
}


def _golden(change: Callable[[Any], Any]) -> Attack:
    return lambda bench: bench.edit_json("golden.json", change)


def _inputs(**changed: Any) -> Attack:
    return _golden(lambda golden: golden["inputs"].update({name.replace("_", " "): v for name, v in changed.items()}))


def _answers(**changed: Any) -> Attack:
    return _golden(lambda golden: golden["answers"].update(changed))


GOLDEN: dict[str, Attack] = {
    "answers-of-another-model": _answers(probabilities=[[0.5, 0.5]] * 5),
    "answers-nan": _spliced("golden.json", "answers", '{"predictions": [], "probabilities": [[NaN]]}'),
    "answers-fewer": _answers(probabilities=[[1, 0]]),
    "answers-ragged": _answers(probabilities=[[1, 0], [1]]),
    "answers-text": _answers(probabilities="yes"),
    "answers-absent": _golden(lambda golden: golden.pop("answers") and None),
    "answers-object": _answers(probabilities={"a": 1}),
    "labels-other": _answers(predictions=["benign"] * 5),
    "inputs-absent": _golden(lambda golden: golden.pop("inputs") and None),
    "inputs-one-absent": _golden(lambda golden: golden["inputs"].pop("mean area") and None),
    "inputs-ragged": _inputs(mean_area=[1.0]),
    "inputs-text": _inputs(mean_area=["__import__('os')"] * 5),
    "inputs-number": _inputs(mean_area=5),
    "inputs-huge-integer": _inputs(mean_area=[10**400] * 5),
    "no-rows": _golden(lambda golden: golden["inputs"].update({name: [] for name in golden["inputs"]})),
    "hundred-thousand-rows": _golden(
        lambda golden: golden["inputs"].update({name: [1.0] * 100_000 for name in golden["inputs"]})
    ),
    "is-a-list": _raw("golden.json", "[]"),
    "is-deep": _raw("golden.json", DEEP),
}
