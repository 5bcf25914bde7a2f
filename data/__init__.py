"""Benchmarks and data sets, one folder each: how its file is prepared and checked, its presets, and a README."""
