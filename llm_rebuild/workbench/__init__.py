"""Part 4: the workbench. A learner's own rebuild, in a file of their own, checked step by step.

A learner's file takes one name from here, `step`. Nothing heavy is imported for it.
"""

from llm_rebuild.workbench.steps import step

__all__ = ["step"]
