"""Primitives of the networks: torch only; they know nothing of any particular model."""
