"""The Wisconsin diagnostic breast cancer data that scikit-learn ships: 569 biopsies, 30 measurements each."""

import pandas as pd
from sklearn.datasets import load_breast_cancer


def load() -> pd.DataFrame:
    """Returns one row for each biopsy: the measurements, and `diagnosis` (`malignant` or `benign`)."""
    data = load_breast_cancer(as_frame=True)
    frame: pd.DataFrame = data.data.rename(columns=lambda name: name.replace(" ", "_"))
    return frame.assign(diagnosis=data.target.map(dict(enumerate(data.target_names))))
