"""A server is configured by its environment."""

import pytest
from pydantic import ValidationError

from serving.app import create_app
from serving.settings import Settings


def test_models_are_listed_with_commas(monkeypatch):
    monkeypatch.setenv("SERVING_MODELS", " a, b ,,a")
    assert Settings().models == ("a", "b")


def test_the_registry_of_mlflow_is_the_default_and_our_own_variable_wins(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    assert Settings().tracking_uri == "http://mlflow"
    monkeypatch.setenv("SERVING_TRACKING_URI", "http://ours")
    assert Settings().tracking_uri == "http://ours"


@pytest.mark.parametrize(("name", "value"), [("REFRESH_S", "0"), ("MAX_ROWS", "0"), ("PORT", "-1"), ("LOG_LEVEL", "x")])
def test_a_value_out_of_range_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"SERVING_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_without_a_registry_there_is_no_application(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "SERVING_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="SERVING_TRACKING_URI"):
        create_app(Settings())
