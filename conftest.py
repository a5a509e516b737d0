"""Loads the doc plugin for tests/, docs/ and README.md alike."""

collect_ignore = ["docs/source"]  # the package's own files, as pages

pytest_plugins = ["pytester", "tests.doc_plugin"]
