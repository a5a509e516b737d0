"""Tensors from anywhere: files of them, and which official tensor each is meant to be."""
