"""Speed and correctness of the engine, the signal path and the receiver, beside their peers and the closed forms."""
