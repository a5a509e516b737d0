"""Programs that make and measure what the package ships; not part of the package."""
