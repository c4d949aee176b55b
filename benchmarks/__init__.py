"""Speed of the engine and the signal path, as ratios against their peers measured in the same run."""
