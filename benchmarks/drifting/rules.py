"""What others say of a day: a column's test at 0.05, and Evidently's defaults as its documentation states them.

Evidently 0.7 chooses by the reference: of more than 1,000 rows, Wasserstein's distance in standard deviations for
numbers of more than five values, Jensen and Shannon's for all else, each drifted from 0.1 on; the data set has drifted
when half of the columns have. https://docs.evidentlyai.com/metrics/explainer_drift
"""

from collections.abc import Mapping

from release_platform.domain.distances import Difference

P_VALUE = 0.05
EVIDENTLY_DISTANCE = 0.1
EVIDENTLY_SHARE = 0.5


def by_p_value(found: Mapping[str, Difference]) -> set[str]:
    """Returns the columns whose test says p < 0.05."""
    return {name for name, one in found.items() if one.p_value < P_VALUE}


def by_evidently(found: Mapping[str, Difference]) -> set[str]:
    """Returns the columns that Evidently's defaults call drifted, of a reference of more than 1,000 rows."""
    distances = {
        name: one.jensen_shannon if one.wasserstein is None else one.wasserstein for name, one in found.items()
    }
    return {name for name, distance in distances.items() if distance >= EVIDENTLY_DISTANCE}
