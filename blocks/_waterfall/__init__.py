"""Waterfalls: bit and block error rates of links against Eb/N0, measured through flowgraphs, beside theory."""
