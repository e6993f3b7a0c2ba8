"""Hostile artefacts: none is loaded, no payload runs, memory and time are bounded."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.attacks import ATTACKS, CLASSES
from tests.hostile.forests import forest
from tests.hostile.workshop import build_honest, graph, prepare

ROOT = Path(__file__).parents[2]
MAXIMUM_BYTES = 1_500_000_000
MAXIMUM_S = 10.0
CONTROLS = {
    "control/untouched": lambda bench: bench.registered(),
    "control/skops-rewritten": lambda bench: bench.edit_skops(lambda schema, entries: None),
    "control/onnx": lambda bench: bench.use_onnx(graph()),
    "control/onnx-trees": lambda bench: bench.use_onnx(forest()),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each artefact, in one process that loads them all."""
    root = tmp_path_factory.mktemp("hostile")
    honest = build_honest(root / "honest")
    made = {}
    for name, attack in {**CONTROLS, **ATTACKS}.items():
        bench = prepare(honest, root, name)
        made[name] = {**asdict(attack(bench)), "marker": bench.marker}
    (root / "artefacts.json").write_text(json.dumps(made, default=str))
    command = [sys.executable, "-m", "tests.hostile.victim", str(root / "artefacts.json"), str(root / "found")]
    done = subprocess.run(command, cwd=ROOT, timeout=100, check=False, capture_output=True, text=True)
    lines = [json.loads(line) for line in (root / "found").read_text().splitlines()]
    found = {line.pop("name"): line for line in lines}
    late = [name for name, artefact in made.items() if Path(artefact["marker"]).exists()]
    assert (done.returncode, late) == (0, []), (list(made)[len(lines)], done.stderr[-2000:])
    return found


def test_there_are_a_hundred_attacks_of_eight_classes() -> None:
    print({kind: len(attacks) for kind, attacks in CLASSES.items()}, len(ATTACKS))
    assert len(ATTACKS) >= 100
    assert len(CLASSES) >= 8


def test_honest_artefacts_made_in_the_same_workshop_load(found: dict[str, dict[str, Any]]) -> None:
    assert found["control/untouched"]["outcome"] == "loaded"
    assert found["control/skops-rewritten"]["outcome"] == "loaded"
    for name in ("control/onnx", "control/onnx-trees"):  # they are loaded; they are only other models
        assert "golden rows do not get the answers" in found[name]["reason"]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_artefact_is_refused(found: dict[str, dict[str, Any]], name: str) -> None:
    outcome = found[name]
    assert (outcome["outcome"], outcome["payload_ran"]) == ("refused", False), outcome
    assert outcome["seconds"] < MAXIMUM_S
    assert outcome["peak_bytes"] - found["control/onnx"]["peak_bytes"] < MAXIMUM_BYTES
    by_its_answers = "golden rows do not get the answers" in outcome["reason"]
    assert not by_its_answers or name.startswith("golden/"), outcome["reason"]


def test_what_none_of_them_did_is_told_with_its_bound(found: dict[str, dict[str, Any]]) -> None:
    loaded = [name for name in ATTACKS if found[name]["outcome"] != "refused"]
    peak = max(outcome["peak_bytes"] for outcome in found.values()) - found["control/onnx"]["peak_bytes"]
    print(f"{len(loaded)} of {len(ATTACKS)} loaded (95 % bound {3 / len(ATTACKS):.1%}), peak +{peak / 1e6:.0f} MB")
    assert not loaded
