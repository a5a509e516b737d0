from __future__ import annotations

from pathlib import Path

import pytest

from tests.workbench.bench import Bench


@pytest.fixture(scope="session")
def captures(shared: Path) -> Path:
    """A store in which official results are kept: each is computed once, whichever process needs it first."""
    return shared / "captures"


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, captures: Path) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), captures)
