"""A keyed permutation of [0, n) that is computed place by place: no table, any n, the same on every machine.

A generalised Feistel network over Z_a x Z_b with a * b >= n (Black and Rogaway: Ciphers with arbitrary finite domains,
2002); the few values that fall outside [0, n) are walked along their cycle until they fall inside.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from hbtrain.batching.hashing import key_of, mix

ROUNDS = 6


def permute(places: npt.NDArray[np.int64], n: int, key: object) -> npt.NDArray[np.int64]:
    """Where the keyed permutation of [0, n) sends each of `places`.

    Args:
        places: int64 of any shape, values in [0, n).
        n: size of the domain, at least 1.
        key: anything printable; different keys give unrelated permutations.

    Returns:
        int64 of the shape of `places`. O(len(places)) time, no memory that grows with n.
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
    # Even rounds move the half in Z_a by a hash of the half in Z_b, odd rounds the other way: each can be undone.
    left, right = np.divmod(values, b)
    for round_, key in enumerate(keys):
        if round_ % 2 == 0:
            left = (left + (mix(key, right) % np.uint64(a)).astype(np.int64)) % a
        else:
            right = (right + (mix(key, left) % np.uint64(b)).astype(np.int64)) % b
    return left * b + right
