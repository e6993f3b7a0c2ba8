"""The handwritten digits that scikit-learn ships: 1,797 images of 8 x 8 pixels."""

import pandas as pd
from sklearn.datasets import load_digits


def load() -> pd.DataFrame:
    """Returns one row for each image: 64 pixels of brightness 0 to 16, and `digit` (`0` to `9`)."""
    data = load_digits(as_frame=True)
    frame: pd.DataFrame = data.data.assign(digit=data.target.astype(str))
    return frame
