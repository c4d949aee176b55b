"""Where streams end: images regenerated, measured and kept, and errors counted."""
