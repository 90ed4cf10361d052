"""Keyed permutations and keyed hashes: random-looking, computed element by element, the same on every machine.

The permutation of [0, n) needs no table, for any n. It is a generalised Feistel network over Z_a x Z_b with a * b >= n
(Black and Rogaway: Ciphers with arbitrary finite domains, 2002); the few values that fall outside [0, n) are walked
along their cycle until they fall inside. The hash is SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable
pseudorandom number generators, 2014).
"""

from __future__ import annotations

import hashlib
from math import isqrt

import numpy as np
import numpy.typing as npt

ROUNDS = 6


def permute(places: npt.NDArray[np.int64], n: int, key: object) -> npt.NDArray[np.int64]:
    """The images of `places` under the permutation of [0, n) that `key` selects.

    Args:
        places: int64 of any shape, values in [0, n).
        n: size of the domain, at least 1.
        key: anything printable; different keys give unrelated permutations.

    Returns:
        int64 of the shape of `places`. Time and memory are O(len(places)), whatever n is.
    """
    if n <= 1 or not places.size:
        return places.copy()
    a = isqrt(n - 1) + 1
    b = -(-n // a)
    keys = [key_of(key, n, round_) for round_ in range(ROUNDS)]
    out = _network(places.astype(np.int64), a, b, keys)
    while (outside := out >= n).any():
        out[outside] = _network(out[outside], a, b, keys)
    return out


def _network(values: npt.NDArray[np.int64], a: int, b: int, keys: list[np.uint64]) -> npt.NDArray[np.int64]:
    # Even rounds add a hash of the half in Z_b to the half in Z_a, odd rounds the reverse: each round is invertible.
    left, right = np.divmod(values, b)
    for round_, key in enumerate(keys):
        if round_ % 2 == 0:
            left = (left + (mix(key, right) % np.uint64(a)).astype(np.int64)) % a
        else:
            right = (right + (mix(key, left) % np.uint64(b)).astype(np.int64)) % b
    return left * b + right


UInt64s = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key_of(*parts: object) -> np.uint64:
    """A 64-bit key made of any printable parts."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def mix(key: np.uint64, counters: npt.NDArray[np.integer]) -> UInt64s:
    """uint64 of the shape of `counters`: a hash of (key, counter) for each."""
    with np.errstate(over="ignore"):
        z = (counters.astype(np.uint64) + np.uint64(1)) * _GOLDEN + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(key: np.uint64, counters: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """float64 in [0, 1) of the shape of `counters`: a uniform number from a hash of (key, counter) for each."""
    return (mix(key, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53
