"""A sieve for large pools: of all items that stream by, those with the largest scores, in constant memory."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Key = TypeVar("Key")


def sieve(pieces: Iterable[tuple[Sequence[Key], NDArray[np.floating]]], size: int) -> list[Key]:
    """Keys of the `size` largest scores, largest first; of equal ones those that came first.

    `pieces` are keys with their scores, (n,) each, in random order where ties are not to be broken by place; a score
    that is no number counts as the lowest. Memory holds one
    piece and the best so far.
    """
    keys: list[Key] = []
    scores: NDArray[np.float64] = np.empty(0)
    bound = -np.inf
    for more, their in pieces:
        found = np.nan_to_num(np.asarray(their, dtype=np.float64), nan=-np.inf, neginf=-np.inf)
        better = np.flatnonzero(found > bound) if len(keys) == size else np.arange(len(found))
        keys += [more[place] for place in better.tolist()]
        scores = np.concatenate([scores, found[better]])
        if len(keys) > size:
            best = np.argsort(-scores, kind="stable")[:size]
            keys, scores = [keys[place] for place in best.tolist()], scores[best]
            bound = scores[-1]
    return [keys[place] for place in np.argsort(-scores, kind="stable").tolist()]
