"""Serving stands alone: it needs neither Dagster nor the pipeline, and starts nothing when it is imported."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, threading
import serving.__main__, serving.server
from serving.app import create_app
from serving.settings import Settings
create_app(Settings(tracking_uri="sqlite://"))
assert threading.active_count() == 1, threading.enumerate()
slow = {"mlflow", "pandas", "sklearn"} & set(sys.modules)
assert not slow, f"not needed before a model is loaded: {slow}"
import release_platform.adapters.mlflow_registry, release_platform.adapters.mlflow_client
import mlflow, pandas, skops.io, sklearn
banned = ("dagster", "release_platform.pipeline", "release_platform.defs", "release_platform.cli")
found = sorted(name for name in sys.modules if name.startswith(banned))
assert not found, found
"""


def test_a_fresh_interpreter_serves_without_dagster():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


CONNECTING = """
import sys
import serving.__main__, serving.server
from release_platform.adapters.mlflow_rest import RestRegistry, reader_at
from release_platform.domain.errors import Unavailable
registry = reader_at("http://127.0.0.1:1")
assert type(registry) is RestRegistry
try:
    registry.models()
except Unavailable:
    pass
else:
    raise AssertionError("nothing listens there")
slow = {"mlflow", "pandas", "sklearn", "skops", "scipy", "pyarrow", "sqlalchemy", "requests"} & set(sys.modules)
assert not slow, slow
"""


def test_connecting_to_a_registry_imports_nothing_that_is_slow():
    done = subprocess.run(
        [sys.executable, "-c", CONNECTING], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_platform_never_imports_serving():
    program = "import sys; import release_platform.adapters.serving_client; assert 'serving' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
    lines = [
        f"{path}: {line}"
        for path in (ROOT / "release_platform").rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import serving", "from serving"))
    ]
    assert not lines
