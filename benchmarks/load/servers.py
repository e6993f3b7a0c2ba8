"""The servers that are compared: ours, the peers in their usual recommended way, and the limits of the framework."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from benchmarks.load import forms
from benchmarks.load.forms import Form, Forms
from benchmarks.load.models import ROOT, Served, python_path

PEERS = ROOT / "benchmarks" / "peers"
INSTALLED = ROOT / ".bench"


class Kind(StrEnum):
    """What a server is in the comparison."""

    OURS = "ours"
    PEER = "peer"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that can be started with one model.

    Attributes:
        python: The interpreter of its environment.
        forms: How it is asked.
        script: What starts it; None for `python -m serving`.
        variables: Environment variables of its own.
    """

    name: str
    kind: Kind
    python: Path
    forms: Forms
    script: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, served: Served, port: int) -> list[str]:
        """Returns the command that starts it."""
        if self.script is None:
            return [str(self.python), "-m", "serving"]
        return [str(self.python), str(self.script), str(served.folder), str(port)]

    def environment(self, served: Served, port: int) -> dict[str, str]:
        """Returns the environment variables that it is started with, beside those of this process."""
        own = {"SERVING_MODELS": served.name, "SERVING_PORT": str(port)} if self.kind is Kind.OURS else {}
        return {"OMP_NUM_THREADS": "1", **own, **self.variables}


def _forms(json: Form, row: Form | None = None, binary: Form | None = None) -> Forms:
    return Forms(row=row or json, json=json, binary=binary)


OURS = _forms(forms.NATIVE_COLUMNS, row=forms.NATIVE_ROWS, binary=forms.V2_BINARY)
PEER_FORMS = {
    "mlflow": _forms(forms.MLFLOW_SPLIT),
    "mlserver": _forms(forms.V2_JSON),
    "bentoml": _forms(forms.BARE_LISTS),
    "litserve": _forms(forms.LISTS),
    "kserve": _forms(forms.V1_INSTANCES, binary=forms.V2_BINARY),
    "ray": _forms(forms.LISTS),
}


def ours(tracking_uri: str, home: Path, cache: Path) -> Server:
    """Returns our server, which reads from a registry at that address."""
    variables = {
        "PYTHONPATH": python_path(),
        "SERVING_TRACKING_URI": tracking_uri,
        "SERVING_KEY_FOLDER": str(home / "keys"),
        "SERVING_CACHE_DIR": str(cache),
        "SERVING_LOG_LEVEL": "warning",
    }
    return Server(name="ours", kind=Kind.OURS, python=Path(sys.executable), forms=OURS, variables=variables)


def limit(name: str) -> Server:
    """Returns a server that reads what ours is sent and answers the bytes that ours answered, at `/<setting>`."""
    paths = {
        setting: replace(form, path=f"/{setting}") for setting, form in OURS.by_setting.items() if form is not None
    }
    script = PEERS / f"noop_{name}.py"
    return Server(
        name=f"no-op {name}", kind=Kind.LIMIT, python=Path(sys.executable), forms=Forms(**paths), script=script
    )


def peer(name: str) -> Server:
    """Returns a peer; it is installed where its `python` exists."""
    python = INSTALLED / name / "bin" / "python"
    return Server(name=name, kind=Kind.PEER, python=python, forms=PEER_FORMS[name], script=PEERS / f"{name}_server.py")
