"""The physical layer: modulation, channels, equalisation, and the theory they are measured against."""
