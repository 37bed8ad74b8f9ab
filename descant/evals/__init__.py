"""Measuring: held-out questions, an independent ear for the speech, and the table that benchmarks/README.md shows."""
