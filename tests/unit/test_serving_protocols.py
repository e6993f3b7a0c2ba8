"""What is sent to a live server is what the golden rows hold, whatever stands in a text."""

import csv
from io import StringIO

import numpy as np
import pytest

from release_platform.adapters.serving_protocols import PROTOCOLS
from release_platform.domain.features import ColumnType, Input
from release_platform.domain.prediction import Predictions
from release_platform.domain.verification import Expected, GoldenRun

CSV = next(protocol for protocol in PROTOCOLS if protocol.name == "csv")


@pytest.mark.parametrize("text", ["plain", "a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", " a ", "\r", "\ufeff"])
def test_a_text_comes_through_csv_as_it_is(text: str) -> None:
    golden = GoldenRun(
        engine="onnx",
        inputs=(Input(name="city", type=ColumnType.CATEGORY), Input(name="size", type=ColumnType.NUMBER)),
        columns={"city": ["here", text], "size": [1.0, 2.0]},
        classes=(),
        answers=Predictions(values=np.zeros(2)),
    )
    asked = CSV.ask(Expected(model="towns", version="1", digest="sha256:1", epoch=1, golden=golden))
    rows = list(csv.reader(StringIO(asked.body.decode(), newline=""), strict=True))
    assert rows == [["city", "size"], ["here", "1.0"], [text, "2.0"]]
