"""Forward error correction: codes as pure functions over arrays, and the blocks that run them."""
