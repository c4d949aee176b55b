"""The signal path: the blocks of Semflow, found by the engine's registry."""
