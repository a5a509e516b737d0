"""The rounds of a diagnosis, each a search for what gives the tensor at hand."""
