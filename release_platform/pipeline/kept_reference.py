"""A version as drift knows it, as one file that is kept with the version: made once, when it is registered.

It is a Parquet file: its rows are the training rows from which the domain classifier tells new ones, and its metadata
the rest as JSON. Whoever reads it holds its bytes against the digest that was signed with the version.
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from release_platform.domain.estimation import Calibration
from release_platform.domain.json_form import exactly
from release_platform.domain.reference import Reference
from release_platform.pipeline.domain_classifier import DomainClassifier
from release_platform.pipeline.drift_reference import Known

_KEY = b"release.drift"
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "reference": dict,
    "calibration": (dict, type(None)),
    "named": str,
    "most_rows": int,
}


def reference_bytes(known: Known) -> bytes:
    """Returns the file."""
    rest = {
        "reference": known.reference.to_json(),
        "calibration": None if known.calibration is None else known.calibration.to_json(),
        "named": known.classifier.named,
        "most_rows": known.classifier.most_rows,
    }
    table = pa.Table.from_pandas(known.classifier.sample, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: json.dumps(rest).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read_reference(data: bytes) -> Known:
    """Returns what `reference_bytes` wrote.

    Raises:
        ValueError: It is no such file, or one of another release of the platform.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
        rest = json.loads((table.schema.metadata or {})[_KEY])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"it is no reference: {error}") from None
    of = exactly(rest, "kept reference", **_FIELDS)
    return Known(
        reference=Reference.from_json(of["reference"]),
        classifier=DomainClassifier(sample=table.to_pandas(), named=of["named"], most_rows=of["most_rows"]),
        calibration=None if of["calibration"] is None else Calibration.from_json(of["calibration"]),
    )
