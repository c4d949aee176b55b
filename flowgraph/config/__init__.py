"""A YAML config: read, laid over others, its variables put in, checked, every mistake told with its place."""
