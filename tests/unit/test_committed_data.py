"""What changed in data files of the repository since a commit, and what is said where that cannot be known."""

from pathlib import Path

from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.gating.committed_data import committed_changes
from release_platform.gating.repository import Repository
from release_platform.pipeline.trial import read_raw_data
from release_platform.project import Project, parse_spec
from tests.unit.test_code_roots import committed, write

ROWS = "x,y\n1,2\n3,4\n"


def project(folder: Path, **source: object) -> Project:
    attributes = {
        "name": "sales",
        "task": "regression",
        "owner": "team:sales",
        "source": source,
        "contract": {"columns": {"x": {"type": "number"}, "y": {"type": "number"}}, "minimum_rows": 1},
        "target": {"column": "y"},
        "features": ["x"],
        "estimator": {"type": "sklearn.linear_model.Ridge"},
        "gates": [{"name": "close", "metric": "rmse", "maximum": 9.0}],
    }
    return Project(spec=parse_spec(attributes, file=folder / "defs.yaml"), folder=folder)


def changes(
    repository: Repository, tmp_path: Path, *, then: dict[str, object], now: dict[str, object]
) -> tuple[str, ...]:
    store = tmp_path / "snapshots"
    with repository.checked_out(repository.commit("HEAD"), tmp_path / "then") as checkout:
        before, after = project(checkout / "model", **then), project(repository.root / "model", **now)
        raw = read_raw_data(after.spec, after.folder, SnapshotStore(str(store)))
        return committed_changes(before, after, raw, repository, checkout, store, None)


def repository(tmp_path: Path, **files: str) -> Repository:
    (tmp_path / "repository").mkdir()
    return committed(tmp_path / "repository", {"model/defs.yaml": "", **files})


def test_a_file_that_was_changed_is_compared_with_that_of_the_commit(tmp_path: Path) -> None:
    found = repository(tmp_path, **{"model/rows.csv": ROWS})
    write(found.root, {"model/rows.csv": ROWS.replace("3", "5")})
    (said,) = changes(found, tmp_path, then={"csv": "rows.csv"}, now={"csv": "rows.csv"})
    assert "column 'x' differs" in said


def test_a_file_that_is_as_it_was_has_no_changes(tmp_path: Path) -> None:
    found = repository(tmp_path, **{"data/rows.csv": ROWS})
    named = str(found.root / "data" / "rows.csv")
    assert changes(found, tmp_path, then={"csv": "../data/rows.csv"}, now={"csv": named}) == ()


def test_a_file_that_was_moved_is_read_where_it_was(tmp_path: Path) -> None:
    found = repository(tmp_path, **{"model/old.csv": ROWS})
    write(found.root, {"model/new.csv": ROWS.replace("4", "6")})
    (said,) = changes(found, tmp_path, then={"csv": "old.csv"}, now={"csv": "new.csv"})
    assert "column 'y' differs" in said


def test_a_file_outside_of_the_repository_is_not_compared(tmp_path: Path) -> None:
    found = repository(tmp_path)
    write(tmp_path, {"rows.csv": ROWS})
    there: dict[str, object] = {"csv": str(tmp_path / "rows.csv")}
    (said,) = changes(found, tmp_path, then=there, now=there)
    assert said == f"not compared: {tmp_path / 'rows.csv'} is not in the repository"


def test_a_file_that_git_ignores_is_not_compared(tmp_path: Path) -> None:
    found = repository(tmp_path)
    write(found.root, {"model/env/rows.csv": ROWS})
    (said,) = changes(found, tmp_path, then={"csv": "env/rows.csv"}, now={"csv": "env/rows.csv"})
    assert said == "not compared: env/rows.csv is not in the repository"


def test_data_that_broke_its_contract_then_is_not_compared(tmp_path: Path) -> None:
    found = repository(tmp_path, **{"model/rows.csv": "x,z\n1,2\n"})
    write(found.root, {"model/rows.csv": ROWS})
    (said,) = changes(found, tmp_path, then={"csv": "rows.csv"}, now={"csv": "rows.csv"})
    assert said.startswith("not compared: the data of the commit cannot be read: ")
