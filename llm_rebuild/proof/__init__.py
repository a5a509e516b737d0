"""What leaks into a rebuild, and what was proved, written down."""
