"""`python -m llm_rebuild` is `llm-rebuild`."""

from llm_rebuild.cli.main import command

command()
