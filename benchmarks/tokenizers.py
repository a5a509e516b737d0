"""Each tokenizer against the official ones on half a million lines: the tests of tests/tokenizers, with forty
times the lines of `make test`.

    python -m benchmarks.tokenizers
"""

from __future__ import annotations

import os
import sys

import pytest

if __name__ == "__main__":
    os.environ["LLM_REBUILD_TOKENIZER_LINES"] = "500000"  # tests/tokenizers/tokenizer_corpus.py reads it
    sys.exit(
        pytest.main(["tests/tokenizers", "-q", "-rP", "-k", "official_ones or the_library or has_a_name"])
    )
