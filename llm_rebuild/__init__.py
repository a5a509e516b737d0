"""Take a real language model apart, build it again in plain PyTorch, and prove it right."""

__version__ = "0.1.0"
