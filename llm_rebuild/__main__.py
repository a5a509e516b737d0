"""`python -m llm_rebuild` is `llm-rebuild`."""

from llm_rebuild.cli import main

main()
