"""The alert rules ask only for what servers export, and are all explained."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.metrics import Metrics
from serving.models import Live

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


def exported() -> set[str]:
    """Returns the names of all series that a server may export, in Prometheus' own spelling."""
    names = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", Metrics(Live()).exposition().decode(), flags=re.MULTILINE):
        suffixes = {"histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))
        names |= {name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_series_that_serving_exports(rule: dict[str, Any]) -> None:
    assert set(re.findall(r"\bserving_\w+", rule["expr"])) <= exported()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_how_bad_it_is_and_is_explained(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert f"| `{rule['alert']}` |" in (ROOT / "docs" / "operate.md").read_text()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' promtool is not on this machine")
def test_prometheus_takes_configuration_and_rules(tmp_path: Path) -> None:
    here = Path(shutil.copytree(FOLDER, tmp_path / "prometheus")) / "prometheus.yml"
    key = tmp_path / "metrics.key"
    key.write_text("mrp_key")
    here.write_text(here.read_text().replace("/tmp/metrics.key", str(key)))
    done = subprocess.run(["promtool", "check", "config", here], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
