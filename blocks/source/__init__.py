"""Where streams begin: images that become captions and latents, and test signals."""
