"""The board of drift: one verification under several releases of transformers and torch."""

LIBRARIES = ("transformers", "torch")
