"""The official side, the comparison, and the report."""

from llm_rebuild.verify.capture import Capture, Interim, capture
from llm_rebuild.verify.compare import Verdict, compare
from llm_rebuild.verify.proof import Proof, prove, verify
from llm_rebuild.verify.question import Question, ask
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.run import judge
from llm_rebuild.verify.steps import verify_steps

__all__ = [
    "Capture",
    "Interim",
    "Proof",
    "Question",
    "Report",
    "Verdict",
    "ask",
    "capture",
    "compare",
    "judge",
    "prove",
    "verify",
    "verify_steps",
]
