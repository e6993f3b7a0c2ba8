"""A version as a CycloneDX 1.6 bill of materials for machine learning: model, data, libraries, metrics.

`cyclonedx-python-lib` knows no model card, so the document is written here; the tests hold it against the schema.
"""

import re
import uuid
from collections.abc import Iterator
from typing import Any

from release_platform.domain.card import ModelCard
from release_platform.domain.evidence import Measurement

_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_NAMESPACE = uuid.UUID("6f1a3c1e-5a5e-4f0e-9c39-5b6a0d0f6d11")
_MODEL = "model"
_TASKS = {"binary": "binary classification", "multiclass": "multiclass classification", "regression": "regression"}


def bom(card: ModelCard, *, platform_version: str, lock: str, lock_digest: str) -> dict[str, Any]:
    """Returns the bill of materials of a version, as a JSON value.

    Args:
        card: What is recorded of the version.
        platform_version: The version of the platform that writes this.
        lock: The lock file of this installation.
        lock_digest: Its digest. Where the version was trained with another lock file, only the libraries that were
            recorded with it are listed.
    """
    of, same_lock = card.lineage.registration, card.lineage.environment.get("lock") == lock_digest
    libraries = list(_locked(lock) if same_lock else _recorded(card))
    data = list(_data(card))
    parts = [*data, *libraries]
    return {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{of.model}/{of.version}/{of.digest}')}",
        "version": 1,
        "metadata": {
            "timestamp": of.registered_at.isoformat(),
            "lifecycles": [{"phase": "post-build"}],
            "tools": {
                "components": [{"type": "application", "name": "model-release-platform", "version": platform_version}]
            },
            "component": _model(card),
        },
        "components": parts,
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
        "properties": [
            {"name": "release:lock", "value": card.lineage.environment.get("lock", "unknown")},
            {"name": "release:libraries", "value": "all of the lock file" if same_lock else "those that were recorded"},
        ],
    }


def _model(card: ModelCard) -> dict[str, Any]:
    of, spec = card.lineage.registration, card.spec
    facts = {
        "release:model_digest": of.model_digest,
        "release:report_digest": of.report_digest,
        "release:data_fingerprint": of.fingerprint,
        "release:code_version": of.code_version,
        "release:git_commit": card.lineage.environment.get("git_commit", "unknown"),
        **{f"release:gate:{gate.gate}": gate.verdict.value for gate in of.gates},
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": of.model,
        "version": of.version,
        "description": str(spec.get("description", "")),
        "authors": [{"name": str(spec.get("owner", ""))}],
        "properties": [
            {"name": "release:digest", "value": of.digest},
            *({"name": name, "value": value} for name, value in facts.items()),
        ],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": _TASKS.get(str(spec.get("task")), str(spec.get("task"))),
                "modelArchitecture": str(spec.get("estimator", {}).get("type", "")),
                "datasets": [{"ref": part["bom-ref"]} for part in _data(card)],
                "inputs": [{"format": f"{name}: {kind}"} for name, kind in _inputs(card)],
                "outputs": [{"format": f"{spec.get('target', {}).get('column')}: {spec.get('task')}"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": list(_performance(card))},
            "considerations": {
                "useCases": [str(spec["intended_use"])] if spec.get("intended_use") else [],
                "technicalLimitations": [
                    *card.limits,
                    *(f"{name}: the data it was trained on held {found}" for name, found in card.ranges.items()),
                ],
            },
        },
    }


def _inputs(card: ModelCard) -> Iterator[tuple[str, str]]:
    target = card.spec.get("target", {}).get("column")
    for name, rules in card.spec.get("contract", {}).get("columns", {}).items():
        if name != target:
            yield name, rules["type"]


def _data(card: ModelCard) -> Iterator[dict[str, Any]]:
    for key, snapshot in sorted(card.lineage.data.items()):
        yield {
            "type": "data",
            "bom-ref": f"data:{key}",
            "name": f"{card.name}/raw_data" + ("" if key == "all" else f"/{key}"),
            "version": snapshot.digest,
            "data": [
                {
                    "type": "dataset",
                    "name": f"{snapshot.n_rows} rows",
                    "contents": {"url": snapshot.uri},
                }
            ],
            "properties": [
                {"name": "release:fingerprint", "value": snapshot.digest},
                {"name": "release:rows", "value": str(snapshot.n_rows)},
                {"name": "release:columns", "value": str(len(snapshot.fingerprint.columns))},
            ],
        }


def _locked(lock: str) -> Iterator[dict[str, Any]]:
    for name, version in dict.fromkeys(_PINNED.findall(lock)):
        yield _library(name, version)


def _recorded(card: ModelCard) -> Iterator[dict[str, Any]]:
    for name, version in card.lineage.environment.items():
        if name.startswith("version."):
            yield _library(name.removeprefix("version."), version)


def _library(name: str, version: str) -> dict[str, Any]:
    plain = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{plain}@{version}"
    return {"type": "library", "bom-ref": purl, "name": plain, "version": version, "purl": purl}


def _performance(card: ModelCard) -> Iterator[dict[str, Any]]:
    for name, found in card.report.quality.items():
        yield from _measured(name, found, None)
    for column, values in card.report.slices.items():
        for key, of in values.items():
            for name, found in of.items():
                yield from _measured(name, found, f"{column}={key}")
    for name, value in card.report.operational.items():
        if value is not None:
            yield {"type": name, "value": repr(value)}


def _measured(name: str, found: Measurement, slice_of: str | None) -> Iterator[dict[str, Any]]:
    if found.value is None:
        return
    ends = (
        {}
        if found.lower is None
        else {"confidenceInterval": {"lowerBound": repr(found.lower), "upperBound": repr(found.upper)}}
    )
    yield {"type": name, "value": repr(found.value), **({"slice": slice_of} if slice_of else {}), **ends}
