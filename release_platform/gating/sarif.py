"""A judgement as SARIF 2.1.0: each gate that did not pass, at its line in the `defs.yaml`."""

import json
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml

from release_platform.domain.gates import GateResult, Verdict
from release_platform.domain.identity import digest_of
from release_platform.domain.judged import NOT_COMPARED, Judged
from release_platform.domain.metrics import METRICS

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(judged: Judged, file: Path, root: Path) -> str:
    """Returns the SARIF of a judgement; a gate that only had nothing to compare with is no finding.

    Args:
        judged: The judgement.
        file: The model's `defs.yaml`.
        root: The folder that addresses are relative to: that of the repository.
    """
    lines = gate_lines(file.read_text(encoding="utf-8"), judged.model)
    address = file.resolve().relative_to(root.resolve()).as_posix() if _is_within(file, root) else file.name
    open_gates = [gate for gate in judged.gates if not gate.passed and not _is_not_compared(gate)]
    driver = {
        "name": "release gate",
        "version": installed("model-release-platform"),
        "rules": [_rule(gate) for gate in judged.gates],
    }
    ids = [gate.gate for gate in judged.gates]
    results = [_result(judged.model, gate, ids.index(gate.gate), address, lines) for gate in open_gates]
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"release-gate/{judged.model}"},
        "originalUriBaseIds": {"SRCROOT": {"description": {"text": "the root of the repository"}}},
        "results": results,
        "columnKind": "utf16CodeUnits",
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _is_not_compared(gate: GateResult) -> bool:
    return not gate.blocking and gate.verdict is Verdict.INCONCLUSIVE and gate.reason.startswith(NOT_COMPARED)


def gate_lines(text: str, model: str) -> dict[str, int]:
    """Returns the line of each gate in a `defs.yaml`, from 1, and under `""` that of the key `gates`."""
    for document in yaml.compose_all(text, yaml.SafeLoader):
        attributes = _find(document, "attributes")
        name, gates = (None, None) if attributes is None else (_find(attributes, "name"), _find(attributes, "gates"))
        if name is not None and name.value == model and isinstance(gates, yaml.SequenceNode):
            named = {found.value: gate for gate in gates.value if (found := _find(gate, "name")) is not None}
            return {"": gates.start_mark.line + 1} | {key: gate.start_mark.line + 1 for key, gate in named.items()}
    return {"": 1}


def _find(node: Any, key: str) -> Any:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _is_within(file: Path, root: Path) -> bool:
    return file.resolve().is_relative_to(root.resolve())


def _rule(gate: GateResult) -> dict[str, Any]:
    metric = METRICS.get(gate.metric)
    meaning = f"{gate.metric}: {metric.meaning}" if metric else gate.metric
    return {
        "id": gate.gate,
        "name": gate.gate,
        "shortDescription": {"text": f"quality gate {gate.gate}"},
        "fullDescription": {"text": meaning},
        "help": {"text": f"{meaning}. docs/gates.md describes every kind of gate."},
        "defaultConfiguration": {"level": _level(gate)},
    }


def _result(model: str, gate: GateResult, index: int, address: str, lines: dict[str, int]) -> dict[str, Any]:
    region = {"startLine": lines.get(gate.gate, lines[""])}
    place = {"artifactLocation": {"uri": address, "uriBaseId": "SRCROOT"}, "region": region}
    return {
        "ruleId": gate.gate,
        "ruleIndex": index,
        "level": _level(gate),
        "message": {"text": f"{gate.gate} {gate.verdict}: {gate.reason}"},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"gate/v1": digest_of([model, gate.gate]).removeprefix("sha256:")},
    }


def _level(gate: GateResult) -> str:
    return "error" if gate.blocking else "warning"
