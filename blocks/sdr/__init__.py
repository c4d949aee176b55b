"""Radios: GNU Radio's wires and its drivers, recordings."""
