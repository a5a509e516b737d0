"""What a person sees: the page."""
