"""Keyed hashes: numbers that look random and depend on nothing but their key, on any machine and in any order.

The mixer is SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key_of(*parts: object) -> np.uint64:
    """A 64-bit key made of any printable parts."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def mix(key: np.uint64, counters: npt.NDArray[np.integer]) -> UInt64s:
    """uint64 of the shape of `counters`: a hash of (key, counter) each."""
    with np.errstate(over="ignore"):
        z = (counters.astype(np.uint64) + np.uint64(1)) * _GOLDEN + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(key: np.uint64, counters: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """float64 in [0, 1) of the shape of `counters`."""
    return (mix(key, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53
