"""Take a real language model apart, build it again in plain PyTorch, and prove it right."""

from llm_rebuild.errors import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "__version__"]
