"""Using a rebuild: what it is given, how it generates, how it embeds."""
