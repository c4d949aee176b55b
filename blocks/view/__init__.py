"""Views: what signals, error rates and pictures look like, as figures for papers and as blocks that write them."""
