"""A model's files on this disk: where from, which revision, which hashes."""
