"""Part 4: the ways to be wrong, or right for the wrong reason, and how each is caught."""
