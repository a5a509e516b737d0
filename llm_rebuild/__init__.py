"""Take a real language model apart, build it again in plain PyTorch, and prove it right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_rebuild.errors import InputError
from llm_rebuild.printing import look_from

if TYPE_CHECKING:
    from llm_rebuild.diagnosis.explain import prove
    from llm_rebuild.workbench.check import check

__version__ = "0.1.0"
__all__ = ["InputError", "__version__", "check", "prove"]


def __getattr__(name: str) -> Any:
    """`from llm_rebuild import check, prove` brings torch with it; `import llm_rebuild` does not."""
    if name == "check":
        from llm_rebuild.workbench.check import check

        return check
    if name == "prove":
        from llm_rebuild.diagnosis.explain import prove

        return prove
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _look() -> Any:
    """What `print` shows of a result is laid out by the room that knows terminals."""
    from llm_rebuild.show import results

    return results


look_from(_look)
