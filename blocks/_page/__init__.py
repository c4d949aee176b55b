"""What shows a run, a page or a window: a process of its own that knows the run by `flowgraph.live` alone."""
