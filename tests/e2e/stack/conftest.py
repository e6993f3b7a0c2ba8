"""The stack of containers, brought up once for all tests of this folder; only `make e2e` collects them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack.stack import Stack, running_stack

collect_ignore_glob = [] if os.environ.get("STACK_E2E") else ["test_*.py"]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("stack")
    with running_stack(folder) as running:
        yield running
