"""Radios: a waveform for the air, and the wires and files of GNU Radio and others."""
