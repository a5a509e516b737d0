"""What a person sees: the terminal, a notebook, the page."""
