"""The live page: a run as a browser shows it, in a process of its own that knows the run by `flowgraph.live` alone."""
