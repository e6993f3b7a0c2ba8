"""A plugin of pytest: sees to it that the copy's code runs, and writes down what came of each test."""

import json
import os
from pathlib import Path

import pytest

import release_platform
import serving
import tests

FILE = "MUTANTS_REPORT"
"""The environment variable that names the file to write to: one line of JSON for each phase of a test."""


def pytest_configure(config: pytest.Config) -> None:
    for package in (release_platform, serving, tests):
        if not Path(str(package.__file__)).is_relative_to(config.rootpath):
            raise pytest.UsageError(f"{package.__name__} is not the copy's: {package.__file__}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    crash = getattr(report.longrepr, "reprcrash", None)
    said = {
        "test": report.nodeid,
        "phase": report.when,
        "outcome": report.outcome,
        "why": getattr(crash, "message", ""),
    }
    with Path(os.environ[FILE]).open("a") as file:
        file.write(json.dumps(said) + "\n")
