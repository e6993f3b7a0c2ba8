"""What was measured of a trained model: the evaluation report, as numbers with a schema version."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, floor, isfinite
from typing import Any

from release_platform.domain.identity import digest_of

SCHEMA_VERSION = 1
QUANTILES = tuple(round(0.005 * i, 3) for i in range(1, 200))


def finite_or_none(number: float | None) -> float | None:
    """Returns a number as a float, or None where it is absent, NaN or infinite: what was not measured is None."""
    return float(number) if number is not None and isfinite(number) else None


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

    Attributes:
        candidate: The candidate's value of the metric.
        production: Production's value of it.
        improvement: Their difference, positive where the candidate is better, whichever direction the metric has.
        quantiles: The improvements in the bootstrap resamples at the probabilities `QUANTILES`, ascending.
    """

    candidate: float
    production: float
    improvement: float
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.quantiles) != len(QUANTILES):
            raise ValueError(f"a comparison has {len(QUANTILES)} quantiles, not {len(self.quantiles)}")
        if not all(isfinite(x) for x in (self.candidate, self.production, self.improvement, *self.quantiles)):
            raise ValueError("a comparison is finite, or there is none")

    def bound(self, probability: float) -> float | None:
        """Returns the bootstrap quantile of the improvement at a probability.

        A probability between two of `QUANTILES` is rounded away from one half, so that no bound is tighter than asked.

        Returns:
            The quantile; None outside of 0.005 to 0.995 (both included), where too few resamples lie.
        """
        steps = round(probability / 0.005, 6)
        index = (floor(steps) if probability < 0.5 else ceil(steps)) - 1
        return self.quantiles[index] if 0 <= index < len(self.quantiles) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Which Production version the candidate was compared with, and how it came out, by metric."""

    version: str
    digest: str
    comparisons: Mapping[str, Comparison]

    @property
    def named(self) -> str:
        """What it is, in words: a version, or whatever else the candidate was compared with, e.g. a commit."""
        return f"Production version {self.version}" if self.version.isdigit() else self.version


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

    def __post_init__(self) -> None:
        for name, value in self.operational.items():
            if value is not None and not isfinite(value):
                raise ValueError(f"'{name}' is {value}: an operational metric is finite, or None where not measured")

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
