"""A team's own model in the stack, and its clients: each asks about real biopsies, and tells later what they were."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from release_platform.examples.breast_cancer.source import load
from tests.integration.homes import ROOT

MODEL = "biopsies"
EXAMPLE = ROOT / "release_platform" / "examples" / "breast_cancer" / "defs.yaml"
GATES_AND_POLICY = """
  gates:
    - {name: order, metric: roc_auc, minimum: 0.5}
  policy: {approvals: 0}
  rollout:
    strategy: canary
    canary: [{weight: 0.4, minimum_requests: 50, minimum_s: 60, maximum_s: 1200}]
    bake_s: 0
    gates:
      - {metric: errors, margin: 0.1}
      - {metric: label_quality, margin: 0.15}
"""
N_CLIENTS = 3
N_TOLD_TOGETHER = 20
MAXIMUM_S = 1800


def write_model(models: Path, *, strength: float) -> None:
    """Writes the example under another name, with a canary, and a gate that a tiny strength passes all the same.

    Such a model calls every biopsy benign, but still puts them in the right order.
    """
    text = EXAMPLE.read_text().replace("name: breast_cancer", f"name: {MODEL}", 1).replace("C: 0.5", f"C: {strength:f}")
    kept, gates, _ = text.partition("\n  gates:")
    assert gates
    (models / MODEL).mkdir(parents=True, exist_ok=True)
    (models / MODEL / "defs.yaml").write_text(kept + GATES_AND_POLICY)


@dataclass
class Told:
    """What came back: how many answers of which version, how many labels counted, and what went wrong."""

    versions: Counter[str] = field(default_factory=Counter)
    labels: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def clients(url: str, key: str) -> Iterator[Told]:
    """Yields the account of clients that predict and tell outcomes, without a pause, until the end of the block."""
    told, stop = Told(), threading.Event()
    biopsies = [json.loads(row) for row in load().to_json(orient="records", lines=True).splitlines()]
    threads = [
        threading.Thread(target=_work, args=(url, key, biopsies[n::N_CLIENTS], told, stop)) for n in range(N_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _work(url: str, key: str, biopsies: list[dict[str, Any]], told: Told, stop: threading.Event) -> None:
    end, outcomes, n = time.monotonic() + MAXIMUM_S, [], 0
    with httpx.Client(base_url=url, headers={"x-api-key": key}, timeout=60) as client:
        while not stop.is_set() and time.monotonic() < end:
            row = dict(biopsies[n % len(biopsies)])
            label, n = row.pop("diagnosis"), n + 1
            asked = {"rows": [row]}
            answer = client.post(f"/v1/models/{MODEL}/predict", json=asked, headers={"x-route-key": f"patient-{n}"})
            with told.lock:
                if not answer.is_success:
                    told.failures.append(answer.text)
                    continue
                told.versions[answer.headers["x-model-version"]] += 1
            outcomes.append({"prediction_id": answer.headers["x-prediction-id"], "label": label})
            if len(outcomes) >= N_TOLD_TOGETHER:
                outcomes = _tell(client, outcomes, told)


def _tell(client: httpx.Client, outcomes: list[dict[str, Any]], told: Told) -> list[dict[str, Any]]:
    """Tells the outcomes, and returns those to tell again; those of another replica's predictions are carried there."""
    said = client.post("/v1/outcomes", json=outcomes).raise_for_status().json()
    with told.lock:
        told.labels += said["counted"] + len(said["held"])
    unknown = {*said["unknown"], *said["unanswered"]}
    return [one for one in outcomes if one["prediction_id"] in unknown][-10 * N_TOLD_TOGETHER :]
