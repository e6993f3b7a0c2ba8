"""Which room may import which, seen from fresh interpreters: what pyproject.toml says, and what really loads."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOMAIN = sorted(path.stem for path in (ROOT / "release_platform" / "domain").glob("*.py") if path.stem != "__init__")


def loaded_by(statement: str) -> set[str]:
    """Returns the names of all modules that are loaded in a fresh interpreter after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_the_domain_loads_the_standard_library_numpy_and_scipy_only() -> None:
    statement = "; ".join(f"import release_platform.domain.{name}" for name in DOMAIN)
    allowed = packages(loaded_by("import numpy, scipy.special, scipy.stats")) | set(sys.stdlib_module_names)
    found = packages(loaded_by(statement))
    assert "release_platform" in found
    assert {name for name in found - allowed - {"release_platform"} if not name.startswith("_")} == set()


def test_the_domain_loads_no_other_room_of_the_platform() -> None:
    found = loaded_by("; ".join(f"import release_platform.domain.{name}" for name in DOMAIN))
    rooms = {module.split(".")[1] for module in found if module.startswith("release_platform.")}
    assert rooms == {"domain"}


def test_serving_loads_neither_dagster_nor_what_trains() -> None:
    found = loaded_by("import serving.__main__, serving.server, serving.app")
    assert not {"dagster", "dagster_mlflow", "alembic", "pandera"} & packages(found)
    rooms = {".".join(module.split(".")[:2]) for module in found if module.startswith("release_platform.")}
    assert not rooms & {f"release_platform.{room}" for room in ("pipeline", "defs", "component", "definitions", "cli")}


def test_the_platform_never_loads_serving() -> None:
    rooms = ("definitions", "cli.running", "cli.app", "cli.serving", "adapters.serving_client")
    assert "serving" not in packages(loaded_by("; ".join(f"import release_platform.{room}" for room in rooms)))


def test_asking_for_help_loads_nothing_slow() -> None:
    slow = {"dagster", "mlflow", "pandas", "sklearn", "matplotlib", "sqlalchemy"}
    assert not slow & packages(loaded_by("import release_platform.cli.app"))
