"""A score and its place in the pool as one integer, on a device: by it candidates sort best first, ties by place.

Such keys are all different. So the best of them are the same whatever a device's kernels do with equals, and a
candidate's rank is 1 + the keys that are greater than its own. Nothing here has a result whose size the host would have
to wait for.

Shapes: T rows (queries), M columns (candidates), H and K entries of a list, S bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PLACES = 2**32  # places that a key tells apart
COMPARED = 96
"""Up to so many bounds of a row are compared with every key, which reads all keys for each; beyond, keys are sorted."""
GROUPS = 8  # groups of columns that are looked through, for each entry of a list


def keys_of(scores_TM: Tensor, first: int) -> Tensor:
    """int64 [T, M]: the keys of float32 scores without NaN; the first column is at place `first` of the pool.

    Raises:
        ValueError: the pool has more places than keys tell apart.
    """
    import torch

    if first + scores_TM.shape[1] > PLACES:
        raise ValueError(f"a pool of more than {PLACES} candidates")
    places_M = torch.arange(first, first + scores_TM.shape[1], device=scores_TM.device)
    return lowest_keys(scores_TM) + (PLACES - 1 - places_M)


def lowest_keys(scores: Tensor) -> Tensor:
    """int64 of any shape: the lowest key that a candidate with that score can have."""
    import torch

    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes one zero of two
    # As integers, the bits of positive numbers are in order, and those of negative ones backwards.
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64) * PLACES


def scores_and_places(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The float32 scores and int64 places that keys were made of."""
    import torch

    places = PLACES - 1 - (keys & (PLACES - 1))
    bits = (keys >> 32).to(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32), places


def count_above(keys_TM: Tensor, bounds_TS: Tensor) -> Tensor:
    """int64 [T, S]: how many keys of a row are greater than each of its bounds."""
    import torch

    if bounds_TS.shape[1] <= COMPARED:
        return torch.stack([(keys_TM > bound_T1).sum(1) for bound_T1 in bounds_TS.split(1, dim=1)], dim=1)
    not_above_TS = torch.searchsorted(keys_TM.sort(dim=1).values, bounds_TS, right=True)
    return keys_TM.shape[1] - not_above_TS


def merge_best(best_TH: Tensor, keys_TM: Tensor, depth: int) -> Tensor:
    """[T, K]: the `depth` greatest of both, or all where they are fewer, in descending order."""
    import torch

    columns = keys_TM.shape[1]
    size = columns // (GROUPS * depth)
    if size > 1:
        # The K greatest keys lie in the K groups with the greatest maxima.
        groups = columns // size
        grouped_TGM = keys_TM[:, : groups * size].unflatten(1, (groups, size))
        of_groups_TK = grouped_TGM.amax(dim=2).topk(depth, dim=1).indices
        found_TM = grouped_TGM.gather(1, of_groups_TK[:, :, None].expand(-1, -1, size)).flatten(1)
        keys_TM = torch.cat([found_TM, keys_TM[:, groups * size :]], dim=1)
    both = torch.cat([best_TH, keys_TM], dim=1)
    return both.topk(min(depth, both.shape[1]), dim=1).values
