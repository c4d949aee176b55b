"""Samples as radios send and take them: a waveform for the air."""
