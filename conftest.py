"""Loads the doc plugin for tests/, docs/ and README.md alike."""

pytest_plugins = ["pytester", "tests.doc_plugin"]
