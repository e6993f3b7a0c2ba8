"""Runs in Evidently's own environment: prints which columns its defaults call drifted, for each day."""

import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import evidently  # noqa: E402
import pandas as pd  # noqa: E402
from evidently import DataDefinition, Dataset, Report  # noqa: E402
from evidently.presets import DataDriftPreset  # noqa: E402


def flagged(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Returns the columns that are flagged."""
    datasets = (Dataset.from_pandas(frame, DataDefinition()) for frame in (now, before))
    metrics = Report([DataDriftPreset()]).run(*datasets).dict()["metrics"]
    columns = [one for one in metrics if "column" in one["config"]]
    return [one["config"]["column"] for one in columns if one["value"] >= one["config"]["threshold"]]


folder = Path(sys.argv[1])
reference = pd.read_parquet(folder / "reference.parquet")
days = [flagged(reference, pd.read_parquet(folder / f"day{i}.parquet")) for i in range(int(sys.argv[2]))]
print(json.dumps({"version": evidently.__version__, "days": days}))
