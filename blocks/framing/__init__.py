"""Between meaning and bits: captions and latents become frames of bits, and frames become both again."""
