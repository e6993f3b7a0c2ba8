"""The diabetes data that scikit-learn ships: 442 patients, ten measurements, progression after one year."""

import pandas as pd
from sklearn.datasets import load_diabetes


def load() -> pd.DataFrame:
    """Returns one row for each patient in the original units, and `progression` (25 to 346)."""
    data = load_diabetes(as_frame=True, scaled=False)
    frame: pd.DataFrame = data.data.assign(sex=data.data["sex"].map({1.0: "a", 2.0: "b"}), progression=data.target)
    return frame
