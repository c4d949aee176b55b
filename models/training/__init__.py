"""The project's own training of its embedded models: `python -m models.training --help`."""
