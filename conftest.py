"""Loads the doc plugin for tests/, docs/ and README.md alike."""

import os

# Before torch: two processes with two threads each on two cores would spend most of their time waiting for
# each other in busy loops. Bits do not depend on it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Ray's workers step back for everybody else (nice 15): beside two other test processes a sweep of a quarter
# of a minute took four.
os.environ.setdefault("RAY_worker_niceness", "0")

collect_ignore = ["docs/source"]  # the package's own files, as pages

pytest_plugins = ["pytester", "tests.doc_plugin"]
