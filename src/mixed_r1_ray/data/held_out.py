"""Which of the drawn records are held out: whole groups that share pictures, so that no picture leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixed_r1_ray.data.quotas import Stratum


def hold_out(
    key: np.ndarray,
    stratum: np.ndarray,
    owner: np.ndarray,
    picture: np.ndarray,
    strata: Sequence[Stratum],
    numbers: Mapping[Stratum, int],
) -> np.ndarray:
    """A mask (N,): True where a record is held out. At most `numbers` of a stratum, fewer where its pictures
    are shared too widely.

    key: uint64 (N, 2), by which groups are visited. stratum: (N,), places in `strata`. owner, picture: (M,),
    which record holds a picture of which hash.
    """
    group = _groups(len(key), owner, picture)
    by_group = np.lexsort((key[:, 1], key[:, 0], group))  # members of a group, least key first
    starts = np.flatnonzero(np.r_[True, np.diff(group[by_group]) > 0])
    leaders = by_group[starts]
    left = np.array([numbers.get(name, 0) for name in strata])
    members = np.split(by_group, starts[1:])
    chosen = np.zeros(len(key), dtype=bool)
    for place in np.lexsort((key[leaders, 1], key[leaders, 0])):
        counts = np.bincount(stratum[members[place]], minlength=len(strata))
        if (counts <= left).all():
            chosen[members[place]] = True
            left -= counts
            if not left.any():
                break
    return chosen


def _groups(number: int, owner: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Group number (N,) of each record: two that share a picture, directly or through others, are in one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    different, node = np.unique(picture, return_inverse=True)
    nodes = number + len(different)
    edges = coo_array((np.ones(len(owner), bool), (owner, number + node)), shape=(nodes, nodes))
    return connected_components(edges, directed=False)[1][:number]
