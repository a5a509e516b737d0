"""The exercises that a program checks.

from llm_rebuild.exercises import check
check("parameters-of-gpt2", 124_439_808)
"""

from __future__ import annotations

from llm_rebuild.exercises.grade import Graded, check, names

__all__ = ["Graded", "check", "names"]
