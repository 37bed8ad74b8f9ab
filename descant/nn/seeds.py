"""Numbers that belong to a seed and a place: counted, not drawn, so that nothing depends on what came before."""

from __future__ import annotations

# splitmix64 (Steele, Lea and Flood, 2014): an odd constant for the seed, one for the place, and the two of its mixer
PAIR_STEPS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)
PAIR_MIXERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def mix64(seed: int, place: int) -> int:
    """64 bits of (seed, place), 0 or more: neighbouring pairs share nothing."""
    z = (seed * PAIR_STEPS[0] + (place + 1) * PAIR_STEPS[1]) % 2**64
    z = (z ^ z >> 30) * PAIR_MIXERS[0] % 2**64
    z = (z ^ z >> 27) * PAIR_MIXERS[1] % 2**64
    return z ^ z >> 31
