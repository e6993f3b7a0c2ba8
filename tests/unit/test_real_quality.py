"""Whether the accuracy fell: shown only where the interval is beyond the margin."""

import numpy as np
import pytest

from release_platform.domain.real_quality import RealQuality, find_quality, with_margin
from release_platform.domain.reference import REAL_ERROR, Reference, of_numbers


def quality(right: int, n_rows: int, *, before: float = 0.95, n_before: int = 1000) -> RealQuality:
    return RealQuality(n_rows=n_rows, accuracy=right / n_rows, n_before=n_before, before=before, margin=0.05)


def reference(errors: np.ndarray) -> Reference:
    labels = {REAL_ERROR: of_numbers(errors)}
    return Reference(model="m", version="1", columns={}, outputs={}, labels=labels, floors={REAL_ERROR: 0.01})


@pytest.mark.parametrize(
    ("right", "n_rows", "fell"),
    [
        (950, 1000, False),
        (900, 1000, False),  # exactly the margin
        (860, 1000, True),
        (18, 20, False),
        (0, 29, False),  # too few rows to say it
        (0, 30, True),
        (26, 30, False),  # 87 %, of few rows
        (1000, 1000, False),
    ],
)
def test_it_fell_only_where_the_whole_interval_is_beyond_the_margin(right, n_rows, fell):
    assert quality(right, n_rows).fell is fell


def test_the_interval_is_that_of_newcombe():
    """Newcombe 1998, table II: 56/70 against 48/80 is 0.2 (0.0524 to 0.3339)."""
    found = RealQuality(n_rows=80, accuracy=48 / 80, n_before=70, before=56 / 70, margin=0.05)

    assert found.fell_by == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_few_held_out_rows_make_it_less_certain():
    sure, unsure = quality(850, 1000, n_before=10_000), quality(850, 1000, n_before=100)

    assert sure.fell
    assert not unsure.fell


def test_it_says_what_it_found():
    assert quality(700, 1000).said == (
        "of 1,000 rows whose labels came 70.0% were answered right, of held-out rows 95.0%: it fell by 21.8 to 28.1 "
        "points, more than 5"
    )
    assert "not shown to be more" in quality(940, 1000).said


def test_without_labels_or_held_out_errors_nothing_is_known():
    errors = np.array([0.0, 0.0, 1.0, 0.0])
    found = find_quality(reference(errors), np.array([1.0, 0.0]), 0.1)

    assert found is not None
    assert (found.before, found.accuracy, found.margin) == (0.75, 0.5, 0.1)
    assert find_quality(reference(errors), np.empty(0), 0.1) is None
    assert find_quality(reference(np.empty(0)), errors, 0.1) is None


def test_the_margin_is_no_evidence():
    assert with_margin(reference(np.zeros(3)), 0.05).floors[REAL_ERROR] == 0.05
    assert with_margin(reference(np.zeros(3)), 0.0).floors[REAL_ERROR] == 0.01
