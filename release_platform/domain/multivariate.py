"""Multivariate drift: how far rows are away from a reference in all columns together, by a classifier two-sample test.

A domain classifier is fitted on some rows of both sides, and the area under its ROC curve is measured on other ones
(Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017; Rabanser, Günnemann, Lipton, Failing loudly,
NeurIPS 2019). If at most a share `s` of the rows moved, no classifier's true area is above `0.5 + s`: rows that did not
move cannot be told apart, and the others at best always. So floors of columns and of the classifier are of one kind.

What is measured is above what is true by chance. By how much, Hoeffding's bound of a two-sample U-statistic says,
`P(more than x) <= exp(-2 n x**2)` for `n` rows of a side (Hoeffding 1963), whatever the classifier learned and however
rows are distributed, since those that are judged had no part in its fitting. Mann and Whitney's p-value, which people
know, is of no difference at all: it is shown, and does not alarm.
"""

from dataclasses import dataclass

DOMAIN_CLASSIFIER = "domain classifier"
"""How alarms name it, among columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierTest:
    """How well a classifier tells rows from those of a reference.

    Attributes:
        auc: Area under the ROC curve of rows that it was not fitted on, 0 to 1; 0.5 for not at all.
        p_value: Mann and Whitney's, one-sided, of no difference at all.
        n_judged: The rows of each side that were judged, 1 and up; on as many it was fitted.
        n_reference: Rows of the reference from which those of its side were drawn.
    """

    auc: float
    p_value: float
    n_judged: int
    n_reference: int
