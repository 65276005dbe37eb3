"""Measurements; each script is run from the repository's root: python -m benchmarks.throughput."""
