"""Processes that open a new embedded MLflow at the same moment, as `release dev` and `release run` do."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

OPEN = """
import sys
from release_platform.adapters.mlflow_client import mlflow_client
print(mlflow_client(sys.argv[1]).create_experiment(sys.argv[2], "/nowhere"))
"""


def test_two_processes_that_open_a_new_database_together_both_find_it_whole(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    opening = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, f"sqlite:///{database}", name],
            cwd=tmp_path,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("churn", "digits")
    ]
    said = [process.communicate(timeout=180) for process in opening]
    assert [process.returncode for process in opening] == [0, 0], said
    with sqlite3.connect(database) as connection:
        names = {name for (name,) in connection.execute("select name from experiments")}
    assert {"churn", "digits"} <= names
