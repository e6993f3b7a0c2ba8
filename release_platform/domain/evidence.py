"""What was measured of a trained model: the evaluation report, as numbers with a schema version."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from release_platform.domain.identity import digest_of

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One metric over some rows.

    Attributes:
        value: The point estimate; None when it is undefined there (no rows, one class only, not finite).
        lower: Lower end of the 95 % bootstrap interval; None when there is none.
        upper: Upper end of it.
        n_rows: How many rows it is of.
    """

    value: float | None
    lower: float | None = None
    upper: float | None = None
    n_rows: int

    def __post_init__(self) -> None:
        for number in (self.value, self.lower, self.upper):
            if number is not None and not isfinite(number):
                raise ValueError("a measurement is finite or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Candidate and Production on the same held-out rows, by a paired bootstrap.

    `improvement` is positive where the candidate is better, whichever direction the metric has. `replicates` are the
    improvements in the bootstrap resamples at fixed quantiles, from 0.5 % to 99.5 % in steps of 0.5 %.
    """

    candidate: float
    production: float
    improvement: float
    quantiles: tuple[float, ...]

    def bound(self, probability: float) -> float:
        """Returns the bootstrap quantile of the improvement at a probability, rounded to 0.005, within 0.005 to 0.995."""
        index = round(probability / 0.005) - 1
        return self.quantiles[min(max(index, 0), len(self.quantiles) - 1)]


QUANTILES = tuple(round(0.005 * i, 3) for i in range(1, 200))


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Which Production version the candidate was compared with, and how it came out, by metric."""

    version: str
    digest: str
    comparisons: Mapping[str, Comparison]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """Everything that gates judge.

    Attributes:
        model: The model's name.
        model_digest: Canonical digest of the fitted model.
        package_digest: Digest of the version's files: `D(v)` of the version that this becomes.
        data_fingerprint: Fingerprint of the raw data that it was trained on.
        n_training_rows: Rows that it was fitted on.
        n_rows: Held-out rows.
        quality: Quality metrics over all held-out rows, by name.
        slices: The same by slice column and value.
        operational: Operational metrics by name; None when one could not be measured.
        baseline: The comparison with Production; None for the first release.
        notes: Sentences worth reading, e.g. why a model did not convert to ONNX.
    """

    model: str
    model_digest: str
    package_digest: str
    data_fingerprint: str
    n_training_rows: int
    n_rows: int
    quality: Mapping[str, Measurement]
    slices: Mapping[str, Mapping[str, Mapping[str, Measurement]]]
    operational: Mapping[str, float | None]
    baseline: Baseline | None
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The digest that gate results and approvals are bound to."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Returns the report as a JSON value."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "notes": list(self.notes)} | (
            {}
            if self.baseline is None
            else {
                "baseline": {
                    "version": self.baseline.version,
                    "digest": self.baseline.digest,
                    "comparisons": {
                        name: {**asdict(c), "quantiles": list(c.quantiles)}
                        for name, c in self.baseline.comparisons.items()
                    },
                }
            }
        )

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "EvaluationReport":
        """Returns the report that `to_json` wrote.

        Raises:
            ValueError: It was written under another schema version.
        """
        if value.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"evaluation report of schema {value.get('schema_version')}, not {SCHEMA_VERSION}")
        baseline = value["baseline"]
        return EvaluationReport(
            **{
                name: value[name]
                for name in (
                    "model",
                    "model_digest",
                    "package_digest",
                    "data_fingerprint",
                    "n_training_rows",
                    "n_rows",
                    "operational",
                )
            },
            quality={name: Measurement(**m) for name, m in value["quality"].items()},
            slices={
                column: {key: {name: Measurement(**m) for name, m in of.items()} for key, of in values.items()}
                for column, values in value["slices"].items()
            },
            baseline=None
            if baseline is None
            else Baseline(
                version=baseline["version"],
                digest=baseline["digest"],
                comparisons={
                    name: Comparison(**{**c, "quantiles": tuple(c["quantiles"])})
                    for name, c in baseline["comparisons"].items()
                },
            ),
            notes=tuple(value["notes"]),
        )
