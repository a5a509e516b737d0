"""What several rooms of the tests share."""

from __future__ import annotations

import pytest

from llm_rebuild import local_copy
from llm_rebuild.errors import InputError
from llm_rebuild.local_copy import LocalCopy


@pytest.fixture(scope="session")
def minilm() -> LocalCopy:
    """The real MiniLM, from the store or fetched into it now. Skips with the reason where there is none."""
    try:
        return local_copy.get("minilm", strict=True)
    except InputError as reason:
        pytest.skip(f"no real MiniLM: {reason}")
